"""Image files under a trained detector: what it finds beside its ponder map."""

from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from sact_det.data.image_files import distinct_stems, read_checked
from sact_det.detection.class_names import class_names
from sact_det.detection.drawing import draw_found, instance_marks
from sact_det.detection.predictor import Prediction, Predictor
from sact_det.pictures.at_budgets import AtBudget
from sact_det.pictures.boxes import Mark
from sact_det.pictures.canvas import Canvas
from sact_det.pictures.colors import colorize
from sact_det.pictures.folder import PictureFolder
from sact_det.pictures.image_sets import block_costs, check_drawable, titled
from sact_det.pictures.panels import display_scale, panel
from sact_det.pictures.style import ON_SCREEN, Style


def detector_panel(
    image: np.ndarray,
    prediction: Prediction,
    cfg: CfgNode,
    *,
    per_block: bool = False,
    overlay: bool = False,
    photographs: bool = True,
    style: Style = ON_SCREEN,
) -> Canvas:
    """The picture of an RGB image's detections and ponder map, at its own size or, where that is small, a multiple.

    Args:
        image: uint8 RGB [H, W, 3].
        prediction: for it.
        cfg: of the detector.
        per_block: adds a row with the map of every block, each on its own scale.
        overlay: adds the ponder map blended on the image.
        photographs: whether the image is shown; if not, what was found is drawn on the map in grey.
        style: how it is drawn.
    """
    scale, costs = display_scale(*image.shape[:2]), block_costs(prediction.ponder)
    ponder_map = style.spread(costs.values(), (scale * image.shape[0], scale * image.shape[1]))
    ground = image if photographs else pale(style.spread(costs.values(), image.shape[:2]))
    return panel(
        draw_found(ground, prediction, cfg, scale, style),
        ponder_map,
        mean_cost=float(prediction.ponder.mean_cost()),
        block_maps=titled(costs) if per_block else None,
        overlay=image.repeat(scale, 0).repeat(scale, 1) if overlay and photographs else None,
        style=style,
    )


def draw_detected(
    cfg: CfgNode,
    paths: Sequence[Path],
    folder: PictureFolder,
    *,
    deadline: Optional[float] = None,
    per_block: bool = False,
    overlay: bool = False,
    photographs: bool = True,
) -> list[dict[str, Any]]:
    """Draws what a detector finds in every file beside its ponder map, each between its own minimum and maximum.

    Args:
        cfg: of the trained detector.
        paths: of the files.
        folder: where the pictures go.
        deadline: seconds from an image's start after which its positions halt; None: none.
        per_block: adds a row with the map of every block, each on its own scale.
        overlay: adds the ponder map blended on the image.
        photographs: whether the images are shown; if not, what was found is drawn on the maps in grey.

    Returns:
        A row for every picture: file, picture, and the image's own numbers.

    Raises:
        InputError: the weights or an image cannot be used.
    """
    predictor = Predictor(cfg)
    predictor.model.deadline = deadline
    rows: list[dict[str, Any]] = []
    stems = distinct_stems(paths)
    for path, stem in zip(tqdm(paths, unit="image", disable=None), stems):  # silent where stderr is no terminal
        image = _read(path)
        prediction = predictor(image[:, :, ::-1])
        options = {"per_block": per_block, "overlay": overlay, "photographs": photographs}
        picture = detector_panel(image, prediction, cfg, style=folder.style, **options)
        ponder_map = folder.style.spread(block_costs(prediction.ponder).values(), image.shape[:2])
        cost, shown = prediction.numbers["mean_ponder_cost"], image if photographs else None
        file = folder.save(stem, cost, picture, path.name, shown, ponder_map, _marks(prediction, cfg))
        rows.append({"file": str(path), "picture": file, **prediction.numbers})
    return rows


def detector_at_budgets(
    cfg: CfgNode, photographs: bool = True, style: Style = ON_SCREEN
) -> tuple[Any, Callable[[Path], AtBudget]]:
    """A detector, and what it makes of a file. Arguments: those of `detector_panel`."""
    predictor = Predictor(cfg)

    def look(path: Path) -> AtBudget:
        image = _read(path)
        prediction, scale = predictor(image[:, :, ::-1]), display_scale(*image.shape[:2])
        costs = block_costs(prediction.ponder)
        ground = image if photographs else pale(style.spread(costs.values(), image.shape[:2]))
        shown = draw_found(ground, prediction, cfg, scale, style)
        return AtBudget(shown, image, costs, "detections", prediction.numbers, _marks(prediction, cfg))

    return predictor.model, look


def pale(ponder_map: np.ndarray) -> np.ndarray:
    """A ponder map [H, W] in light grey, the costlier the darker, uint8 [H, W, 3]: a ground for boxes."""
    return 255 - colorize(ponder_map, colormap="gray") // 3


def _marks(prediction: Prediction, cfg: CfgNode) -> list[Mark]:
    return instance_marks(prediction.instances, class_names(cfg)) if prediction.segments is None else []


def _read(path: Path) -> np.ndarray:
    image = read_checked(path, "RGB")
    check_drawable(path, image.shape[:2])
    return image
