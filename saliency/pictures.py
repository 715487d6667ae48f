"""The pictures of an evaluation: a sheet and a gallery of every model, and a figure of all categories."""

import re
from pathlib import Path

from sact_det.base.files import replacing
from sact_det.data.image_files import distinct_stems
from sact_det.pictures.figures import save_figure
from sact_det.pictures.style import ON_SCREEN, Style
from saliency.category_plot import draw_categories
from saliency.evaluation import Evaluation
from saliency.page import PREFIX, saliency_gallery
from saliency.report import as_dict
from saliency.sheet import sheet

CATEGORIES = "categories"  # without suffix


def write_pictures(
    folder: Path, evaluation: Evaluation, title: str, photographs: bool = True, style: Style = ON_SCREEN
) -> None:
    """Writes sheet_<model>.png and gallery_<model>.json, and, of two categories or more, categories.png.

    Args:
        folder: an existing one.
        evaluation: what was found.
        title: of the pictures.
        photographs: whether the images themselves are shown.
        style: of sheets and figure; its format stands in place of png.

    Raises:
        InputError: an image or a map can no longer be read.
        OSError: the folder cannot be written.
    """
    stems = distinct_stems([re.sub(r"[^\w.+-]+", "_", model.name) for model in evaluation.models])
    for model, stem in zip(evaluation.models, stems):
        with replacing(folder / f"sheet_{stem}.{style.format}") as temporary:
            sheet(evaluation, model, title, photographs, style).save(temporary)
        saliency_gallery(evaluation, model, photographs).write(folder / f"{PREFIX}{stem}.json")
    if len(evaluation.categories) > 1:
        results = {"title": title, **as_dict(evaluation)}
        save_figure(lambda: draw_categories(results), folder / f"{CATEGORIES}.{style.format}", style)
