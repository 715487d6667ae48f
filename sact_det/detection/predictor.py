"""One image in, detections and an account of the computation out."""

from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.structures import Instances
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.detection.augmentation import build_augmentation
from sact_det.detection.checkpoint import DetectorCheckpointer
from sact_det.engine.config_checks import check_ranges
from sact_det.engine.config_table import DETECTION
from sact_det.engine.evaluator import ponder_row
from sact_det.engine.failures import build_model
from sact_det.engine.priced import Priced
from sact_det.rule.ponder import PonderRecord

_SPENT = ("seen_size", "flops", "regions", "rejected_regions", "detections", "units_per_region")


@dataclass(frozen=True)
class Prediction:
    """What the network found in an image and what that took.

    Attributes:
        instances: pred_boxes (in pixels of the given image), scores and pred_classes, on the CPU; with the heads for
            them pred_masks, bool [R, H, W] of the given image, and pred_keypoints, [R, K, 3] (x, y, score).
        ponder: of the extractor, N = 1, on the CPU.
        segments: of a panoptic detector, as Detectron2 has them: ids, int32 [H, W] of the given image (0: none), on the
            CPU, and what is known of each; None: the detector is none.
        numbers: as PonderEvaluator's per-image rows (sact_det/detection/evaluator.py), with box_head_flops.
        spent: "flops" of the adaptive parts, and how many regions took them, as `Priced` has it (engine/priced.py).
    """

    instances: Instances
    ponder: PonderRecord
    numbers: dict[str, Any]
    segments: Optional[tuple[Tensor, list[dict[str, Any]]]] = None
    spent: dict[str, Any] = field(default_factory=dict)

    def box_costs(self) -> np.ndarray:
        """float32 [R]: the mean ponder cost of the pixels that each box of `instances` touches, one at least."""
        height, width = self.instances.image_size
        ponder_map = self.ponder.map((height, width))[0].double().numpy()
        sums = np.pad(ponder_map.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # of everything above and left of a corner
        boxes, sides = self.instances.pred_boxes.tensor.double().numpy(), np.array([width, height])
        start = np.clip(np.floor(boxes[:, :2]), 0, sides - 1).astype(int)
        end = np.maximum(np.clip(np.ceil(boxes[:, 2:]), 0, sides).astype(int), start + 1)
        (left, top), (right, bottom) = start.T, end.T
        inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return (inside / (end - start).prod(1)).astype(np.float32)


class Predictor:
    """The trained detector of a config, for single images: Detectron2's DefaultPredictor with the ponder record.

    Images are resized as in evaluation (INPUT.MIN_SIZE_TEST, INPUT.MAX_SIZE_TEST).

    Args:
        cfg: MODEL.WEIGHTS names a file with the whole detector.

    Raises:
        InputError: the model is no detector of this package or sees neither RGB nor BGR, or its weights are missing,
            broken or do not fit.
    """

    def __init__(self, cfg: CfgNode):
        check_ranges(cfg, {"INPUT.FORMAT": DETECTION["INPUT.FORMAT"]})
        self.input_format: str = cfg.INPUT.FORMAT
        self._resize = T.AugmentationList(build_augmentation(cfg, is_train=False))
        self.model = load_detector(cfg)

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> Prediction:
        """Runs the network on an image as cv2.imread gives it: uint8 BGR [H, W, 3], whatever INPUT.FORMAT is.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(image, np.ndarray):
            raise ValueError(f"`image` must be uint8 BGR [H, W, 3] in numpy; got a {type(image).__name__}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"`image` must be uint8 BGR [H, W, 3]; got {image.dtype} {list(image.shape)}")
        tensor = self.prepare(image)
        output = self.model([{"image": tensor, "height": image.shape[0], "width": image.shape[1]}])[0]
        assert self.model.reference is not None  # a model of a config has one
        row = ponder_row(output["ponder"], (tensor.shape[1], tensor.shape[2]), self.model.reference)
        return Prediction(
            instances=output["instances"].to("cpu"),
            ponder=output["ponder"],
            numbers={**row, "box_head_flops": output["box_head_flops"]},
            segments=_on_cpu(output["panoptic_seg"]) if "panoptic_seg" in output else None,
            spent={key: output[key] for key in _SPENT},
        )

    def prepare(self, image: np.ndarray) -> torch.Tensor:
        """What the model gets: a uint8 BGR image [H, W, 3] as uint8 [3, h, w], resized, of INPUT.FORMAT."""
        augmented = T.AugInput(image[:, :, ::-1] if self.input_format == "RGB" else image)
        self._resize(augmented)
        return torch.from_numpy(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))


def _on_cpu(segments: tuple[Tensor, list[dict[str, Any]]]) -> tuple[Tensor, list[dict[str, Any]]]:
    return segments[0].cpu(), segments[1]


def load_detector(cfg: CfgNode, fresh: bool = False) -> Any:
    """The trained detector of a config, in evaluation mode; MODEL.WEIGHTS names a file with all of it.

    Args:
        cfg: its config.
        fresh: where MODEL.WEIGHTS is empty, weights are random, by SEED.

    Raises:
        InputError: the model is another one, or its weights are missing, broken or do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(max(cfg.SEED, 0))
        model = build_model(cfg)
    if not isinstance(model, Priced):
        raise InputError(f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} keeps no account of its computation")
    if cfg.MODEL.WEIGHTS or not fresh:
        DetectorCheckpointer(model, evaluate=True).load(cfg.MODEL.WEIGHTS)
    elif cfg.MODEL.SACT.BUDGET:
        raise InputError(f"MODEL.SACT.BUDGET {cfg.MODEL.SACT.BUDGET:g} needs MODEL.WEIGHTS that it is calibrated for")
    return model.eval()
