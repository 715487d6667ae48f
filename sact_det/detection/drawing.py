"""Boxes on images, drawn by Detectron2's Visualizer."""

from typing import Optional, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import Visualizer


def class_names(cfg: CfgNode) -> Optional[list[str]]:
    """Names of the classes of DATASETS.TEST[0], or None if they are unknown or not as many as the model's classes."""
    if not cfg.DATASETS.TEST:
        return None
    names = MetadataCatalog.get(cfg.DATASETS.TEST[0]).get("thing_classes")
    return list(names) if names is not None and len(names) == cfg.MODEL.ROI_HEADS.NUM_CLASSES else None


def draw_detections(
    image: np.ndarray, instances: Instances, names: Optional[Sequence[str]] = None, scale: int = 1
) -> np.ndarray:
    """The image with a box, a class and a score for every instance.

    A class always has the same colour. Unlike Visualizer.draw_instance_predictions, which draws colours at random, the
    same input gives the same picture.

    Args:
        image: uint8 RGB [H, W, 3].
        instances: with pred_boxes in pixels of the image, scores and pred_classes.
        names: of the classes; their numbers are written if None.
        scale: enlarges the image under the boxes, whose lines and labels stay as they are.

    Returns:
        uint8 RGB [scale * H, scale * W, 3].
    """
    palette = colormap(rgb=True, maximum=1)
    classes = instances.pred_classes.tolist()
    labels = [
        f"{names[index] if names else f'class {index}'} {score:.0%}"
        for index, score in zip(classes, instances.scores.tolist())
    ]
    picture = Visualizer(image, scale=scale).overlay_instances(
        boxes=instances.pred_boxes, labels=labels, assigned_colors=[palette[index % len(palette)] for index in classes]
    )
    return np.asarray(picture.get_image())
