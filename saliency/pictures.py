"""The pictures of an evaluation: a sheet and a gallery of every model, and a figure of all categories."""

import re
from pathlib import Path

from PIL import Image

from sact_det.base.files import replacing
from sact_det.data.image_files import distinct_stems
from sact_det.pictures.figures import save_png
from saliency.category_plot import draw_categories
from saliency.evaluation import Evaluation
from saliency.page import PREFIX, saliency_gallery
from saliency.report import as_dict
from saliency.sheet import draw_sheet

CATEGORIES = "categories.png"


def write_pictures(folder: Path, evaluation: Evaluation, title: str, photographs: bool = True) -> None:
    """Writes sheet_<model>.png and gallery_<model>.json, and, of two categories or more, categories.png.

    Args:
        folder: an existing one.
        evaluation: what was found.
        title: of the pictures.
        photographs: whether the images themselves are shown.

    Raises:
        InputError: an image or a map can no longer be read.
        OSError: the folder cannot be written.
    """
    stems = distinct_stems([re.sub(r"[^\w.+-]+", "_", model.name) for model in evaluation.models])
    for model, stem in zip(evaluation.models, stems):
        with replacing(folder / f"sheet_{stem}.png") as temporary:
            Image.fromarray(draw_sheet(evaluation, model, title, photographs)).save(temporary)
        saliency_gallery(evaluation, model, photographs).write(folder / f"{PREFIX}{stem}.json")
    if len(evaluation.categories) > 1:
        save_png(draw_categories({"title": title, **as_dict(evaluation)}), folder / CATEGORIES)
