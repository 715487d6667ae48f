"""Image files under a trained detector: what it finds beside its ponder map."""

from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from sact_det.data.image_files import distinct_stems, read_checked
from sact_det.detection.drawing import draw_found
from sact_det.detection.predictor import Prediction, Predictor
from sact_det.pictures.at_budgets import AtBudget
from sact_det.pictures.folder import PictureFolder
from sact_det.pictures.image_sets import block_costs, check_drawable, titled, without_photograph
from sact_det.pictures.panels import display_scale, draw_panel


def draw_detector_picture(
    image: np.ndarray, prediction: Prediction, cfg: CfgNode, *, per_block: bool, overlay: bool
) -> np.ndarray:
    """The picture of an RGB image's detections and ponder map, at its own size or, where that is small, a multiple."""
    scale = display_scale(*image.shape[:2])
    return draw_panel(
        draw_found(image, prediction, cfg, scale),
        prediction.ponder.map((scale * image.shape[0], scale * image.shape[1]))[0].numpy(),
        mean_cost=float(prediction.ponder.mean_cost()),
        block_maps=titled(block_costs(prediction.ponder)) if per_block else None,
        overlay=image.repeat(scale, 0).repeat(scale, 1) if overlay else None,
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
        photographs: whether the images are shown, or white in their place; boxes stay.

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
        if not photographs:
            image = without_photograph(image)
        pixels = draw_detector_picture(image, prediction, cfg, per_block=per_block, overlay=overlay)
        ponder_map = prediction.ponder.map(image.shape[:2])[0].numpy()
        file = folder.save(stem, prediction.numbers["mean_ponder_cost"], pixels, path.name, image, ponder_map)
        rows.append({"file": str(path), "picture": file, **prediction.numbers})
    return rows


def detector_at_budgets(cfg: CfgNode) -> tuple[Any, Callable[[Path], AtBudget]]:
    """A detector, and what it makes of a file."""
    predictor = Predictor(cfg)

    def look(path: Path) -> AtBudget:
        image = _read(path)
        prediction = predictor(image[:, :, ::-1])
        shown = draw_found(image, prediction, cfg, display_scale(*image.shape[:2]))
        ponder_map = prediction.ponder.map((shown.shape[0], shown.shape[1]))[0].numpy()
        return AtBudget(shown, "detections", ponder_map, prediction.numbers)

    return predictor.model, look


def _read(path: Path) -> np.ndarray:
    image = read_checked(path, "RGB")
    check_drawable(path, image.shape[:2])
    return image
