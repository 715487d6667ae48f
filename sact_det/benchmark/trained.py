"""Networks of configs, with their weights, and photographs of one size for them."""

from typing import Any, Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.benchmark.networks import AdaptivePart
from sact_det.budget.image_scale import check_whole_images
from sact_det.classification.predictor import load_classifier
from sact_det.data.image_files import find_images, read_checked
from sact_det.data.subsets import evenly
from sact_det.detection.config_kinds import check_detector
from sact_det.detection.predictor import load_detector
from sact_det.detection.pyramid import extractor_of
from sact_det.network.block import AdaptiveBlock
from sact_det.network.resnet_v2 import Stem
from sact_det.network.spec import NetworkSpec


def detector_part(detector: Any) -> AdaptivePart:
    """The detector's extractor. From now on its execution and its masks are set through this part.

    Raises:
        InputError: its halting cannot be prescribed, or its budget makes images smaller.
    """
    check_whole_images(detector, "this measurement")
    extractor = extractor_of(detector.backbone)
    _check_halting(extractor.spec)
    part = AdaptivePart(list(extractor.blocks.values()), extractor.stem).eval()
    for name, block in zip(extractor.blocks, part.blocks, strict=True):
        setattr(extractor, name, block)
    return part


def trained_extractor(cfg: CfgNode) -> AdaptivePart:
    """The extractor of a config's trained detector, or stem and blocks 1-3 of a classifier.

    Raises:
        InputError: there are no weights, they cannot be used, or the network is not a SACT bottleneck ResNet.
    """
    if not cfg.MODEL.WEIGHTS:
        raise InputError("MODEL.WEIGHTS is empty: masks of a trained network need its weights")
    if cfg.MODEL.META_ARCHITECTURE != "SACTClassifier":
        check_detector(cfg)
        return detector_part(load_detector(cfg))
    model = load_classifier(cfg)
    check_whole_images(model, "this measurement")
    if not isinstance(model.stem, Stem):
        raise InputError(f"MODEL.CLASSIFIER.FAMILY must be imagenet; got {cfg.MODEL.CLASSIFIER.FAMILY}")
    _check_halting(model.spec)
    blocks: list[AdaptiveBlock] = [model.get_submodule(name) for name in model.block_names[:3]]  # type: ignore[misc]
    return AdaptivePart(blocks, model.stem).eval()


def _check_halting(spec: NetworkSpec) -> None:
    if not spec.rule.by_position or spec.tile != 1:
        raise InputError(f"MODEL.SACT.HALTING must be sact, with TILE 1; got {spec.halting} with {spec.tile}")


def photographs(inputs: Sequence[str], size: tuple[int, int], channels: str, most: int) -> list[Tensor]:
    """Image files, folders and globs as pictures of one size: scaled to cover it, cut in the middle.

    Args:
        inputs: what find_images finds files in.
        size: height and width.
        channels: order, "RGB" or "BGR".
        most: so many of the files, evenly spread.

    Returns:
        float32 [3, H, W] each, in [0, 255].

    Raises:
        InputError: an input cannot be used.
    """
    files = evenly(find_images(inputs), most)
    return [_covering(torch.tensor(read_checked(file, channels)).permute(2, 0, 1).float(), size) for file in files]


def _covering(image: Tensor, size: tuple[int, int]) -> Tensor:
    factor = max(wanted / side for wanted, side in zip(size, image.shape[1:]))
    scaled = [max(wanted, round(side * factor)) for wanted, side in zip(size, image.shape[1:])]
    image = F.interpolate(image[None], scaled, mode="bilinear", antialias=True)[0]
    top, left = ((side - wanted) // 2 for side, wanted in zip(scaled, size))
    return image[:, top : top + size[0], left : left + size[1]].contiguous()


def normalised(image: Tensor, cfg: CfgNode, device: torch.device) -> Tensor:
    """An image [3, H, W] in [0, 255] as the config's network sees it: [1, 3, H, W], channels last."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    return ((image - mean) / std)[None].to(device).contiguous(memory_format=torch.channels_last)
