"""What was found, on its image: boxes (pictures/boxes.py); masks, keypoints and segments by Detectron2's Visualizer."""

from typing import Any, Optional, Sequence

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import Instances
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import Visualizer
from torch import Tensor

from sact_det.detection.class_names import SegmentNames, class_names, segment_names
from sact_det.detection.predictor import Prediction
from sact_det.pictures.boxes import Mark, draw_marks
from sact_det.pictures.style import ON_SCREEN, Style


def bright_colors() -> np.ndarray:
    """Detectron2's palette as bright as its colours can be, for dark photographs, too: float [colors, 3] in [0, 1]."""
    palette = colormap(rgb=True, maximum=1)
    brightest = palette.max(1, keepdims=True)
    return np.where(brightest > 0, palette / np.maximum(brightest, 1e-6), 1.0)


def draw_segments(
    image: np.ndarray,
    ids: Tensor,
    segments: Sequence[dict[str, Any]],
    names: Optional[SegmentNames] = None,
    scale: float = 1,
) -> np.ndarray:
    """The image under its panoptic segments, each with its class; a thing's score stands behind it.

    A class always has the same colour.

    Args:
        image: uint8 RGB [H, W, 3].
        ids: int [H, W], the number of every pixel's segment.
        segments: as Detectron2 has them, with "id", "category_id", "isthing" and, of things, "score".
        names: of the classes; their numbers are written if None.
        scale: enlarges the image under the segments.

    Returns:
        uint8 RGB [scale * H, scale * W, 3].
    """
    palette, visualizer = bright_colors(), Visualizer(image, scale=scale)
    for one in segments:
        isthing, number = one["isthing"], one["category_id"]
        kind = "class" if isthing else "stuff"
        text = f"{kind} {number}" if names is None else (names.things if isthing else names.stuff)[number]
        if isthing:
            text += f" {one['score']:.0%}"
        color = palette[(number if isthing else -1 - number) % len(palette)]
        visualizer.draw_binary_mask((ids == one["id"]).numpy(), color=color, text=text, alpha=0.5)
    return np.asarray(visualizer.get_output().get_image())


def instance_marks(instances: Instances, names: Optional[Sequence[str]] = None) -> list[Mark]:
    """A box for every instance, in the order of their scores, with its class and score; a class has one colour.

    Args:
        instances: with pred_boxes in pixels of the image, scores and pred_classes.
        names: of the classes; their numbers are written if None.
    """
    palette = np.rint(255 * bright_colors()).astype(int).tolist()
    order = instances.scores.argsort(descending=True, stable=True).tolist()
    boxes, classes = instances.pred_boxes.tensor.tolist(), instances.pred_classes.tolist()
    marks = []
    for index in order:
        number, score = classes[index], float(instances.scores[index])
        label = f"{names[number] if names else f'class {number}'} {score:.0%}"
        marks.append(Mark(tuple(boxes[index]), tuple(palette[number % len(palette)]), label))
    return marks


def draw_detections(
    image: np.ndarray,
    instances: Instances,
    names: Optional[Sequence[str]] = None,
    scale: int = 1,
    style: Style = ON_SCREEN,
) -> np.ndarray:
    """The image with a box, a class and a score for every instance; with its mask and keypoints where it has them.

    A class always has the same colour. Unlike Visualizer.draw_instance_predictions, which draws colours at random, the
    same input gives the same picture.

    Args:
        image: uint8 RGB [H, W, 3].
        instances: with pred_boxes in pixels of the image, scores and pred_classes, and pred_masks and pred_keypoints if
            there are such.
        names: of the classes; their numbers are written if None.
        scale: enlarges the image under the boxes, whose lines and labels stay as they are.
        style: its density enlarges everything; it may have a font size.

    Returns:
        uint8 RGB [scale * H, scale * W, 3], times the density.
    """
    enlarged = style.enlarged(image, scale)
    factor = scale * style.density
    masks = list(instances.pred_masks.numpy()) if instances.has("pred_masks") else None
    keypoints = instances.pred_keypoints if instances.has("pred_keypoints") else None
    if len(instances) and (masks is not None or keypoints is not None):
        palette = bright_colors()
        colors = [palette[index % len(palette)] for index in instances.pred_classes.tolist()]
        visualizer = Visualizer(image, scale=factor)
        shapes = visualizer.overlay_instances(masks=masks, keypoints=keypoints, assigned_colors=colors)
        enlarged = _of_size(np.asarray(shapes.get_image()), enlarged.shape)
    marks = [mark.scaled(factor, factor) for mark in instance_marks(instances, names)]
    return draw_marks(enlarged, marks, style.font_pixels, style.density)


def _of_size(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The Visualizer's picture may lack a row or column where its scale is no whole number."""
    same = image.shape == tuple(shape)
    return image if same else cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST_EXACT)


def draw_found(
    image: np.ndarray, prediction: Prediction, cfg: CfgNode, scale: int, style: Style = ON_SCREEN
) -> np.ndarray:
    """What a detector found in an RGB image: its segments if it is a panoptic one, else its detections.

    Arguments and result: those of `draw_detections`.
    """
    if prediction.segments is not None:
        drawn = draw_segments(image, *prediction.segments, segment_names(cfg), scale * style.density)
        return _of_size(drawn, style.enlarged(image, scale).shape)
    return draw_detections(image, prediction.instances, class_names(cfg), scale, style)
