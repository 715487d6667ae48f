"""What a plain detector computes on a whole image, as one network for rivals: extractor, pyramid, RetinaNet's head."""

import copy
from typing import Any, Callable, Optional, Sequence

import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from sact_det.benchmark.networks import DensePart
from sact_det.detection.backbone import RECTIFIED, SACTBackbone
from sact_det.detection.pyramid import extractor_of
from sact_det.execution import set_execution


class DenseExtractor(Backbone):
    """The features of a SACTBackbone for images without padding; nothing halts, nothing is recorded.

    Args:
        extractor: copied without its halting branches.
    """

    def __init__(self, extractor: SACTBackbone):
        super().__init__()
        self._shapes = extractor.output_shape()
        self.parts, self.norms = nn.ModuleDict(), nn.ModuleDict()
        for index, block in enumerate(extractor.blocks.values(), 1):
            self.parts[f"res{index + 1}"] = DensePart(list(block.units), extractor.stem if index == 1 else None)
        for name in extractor.output_shape():
            if name.endswith(RECTIFIED):
                self.norms[name] = copy.deepcopy(extractor.get_submodule(name.removesuffix(RECTIFIED) + "_norm"))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """SACTBackbone.forward."""
        features = {}
        for level, part in self.parts.items():
            features[level] = x = part(x)
            if level + RECTIFIED in self.norms:
                features[level + RECTIFIED] = F.relu(self.norms[level + RECTIFIED](x))
        return {name: features[name] for name in self._shapes}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """SACTBackbone.output_shape."""
        return self._shapes


class ImagePart(nn.Module):
    """Images -> features of the backbone or, of a detector whose head is dense, too, its predictions.

    Args:
        detector: copied, its extractor as a plain one.
    """

    def __init__(self, detector: Any):
        super().__init__()
        extractor = DenseExtractor(extractor_of(detector.backbone))
        self.backbone: Any = extractor
        if not is_c4(detector):
            without = {id(detector.backbone.bottom_up): extractor}  # in its place, and not copied
            self.backbone = copy.deepcopy(detector.backbone, without)
        self.head = copy.deepcopy(detector.head) if has_dense_head(detector) else None
        self._read = detector.head_in_features if has_dense_head(detector) else []
        set_execution(self, "dense")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[N, 3, H, W], normalised -> the features, in the order of `output_shape`, or logits and deltas of levels."""
        features = self.backbone(images)
        if self.head is None:
            return tuple(features.values())
        logits, deltas = self.head([features[name] for name in self._read])
        return (*logits, *deltas)


def has_dense_head(detector: Any) -> bool:
    """Whether a detector predicts at every position of its features, as RetinaNet does, and has no proposals."""
    return not hasattr(detector, "proposal_generator")


def is_c4(detector: Any) -> bool:
    """Whether a detector has block 4 in its box head, which reads the extractor itself; others have a pyramid."""
    return hasattr(detector, "roi_heads") and hasattr(detector.roi_heads, "res5")


class RivalBackbone(Backbone):
    """A rival's image part in the place of a backbone; nothing is entered into a ledger.

    Args:
        run: as ImagePart.forward.
        detector: whose backbone's place it takes.

    Attributes:
        predictions: logits and deltas of the last images, if the image part has a head. The features are then the
            logits: nothing but their sizes is read.
    """

    def __init__(self, run: Callable[[Tensor], Sequence[Tensor]], detector: Any):
        super().__init__()
        self._run = run
        backbone = detector.backbone
        self._divisibility, self._constraints = backbone.size_divisibility, backbone.padding_constraints
        self._names = detector.head_in_features if has_dense_head(detector) else list(backbone.output_shape())
        self.predictions: Optional[tuple[list[Tensor], list[Tensor]]] = None

    @property
    def size_divisibility(self) -> int:
        """That of the backbone."""
        return self._divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Those of the backbone."""
        return self._constraints

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The backbone's features, or what stands in their place."""
        outputs, number = list(self._run(images)), len(self._names)
        if len(outputs) > number:
            self.predictions = outputs[:number], outputs[number:]
        return dict(zip(self._names, outputs))


class RivalHead(nn.Module):
    """The predictions that a RivalBackbone has made, in the place of the head behind it."""

    def __init__(self, backbone: RivalBackbone):
        super().__init__()
        self._backbone = [backbone]  # which is a part of the detector already

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits and deltas, level by level."""
        predictions = self._backbone[0].predictions
        assert predictions is not None
        return predictions


ImageParts = tuple[nn.Module, Optional[nn.Module]]  # a backbone and, where the head is dense, that


def take_over(detector: Any, run: Callable[[Tensor], Sequence[Tensor]]) -> ImageParts:
    """What stands in the place of a detector's backbone and, if it is a part of what `run` computes, of its head."""
    backbone = RivalBackbone(run, detector)
    return backbone, RivalHead(backbone) if has_dense_head(detector) else None


def own_image_part(detector: Any) -> ImageParts:
    """What a detector has there."""
    return detector.backbone, detector.head if has_dense_head(detector) else None


def install_image_part(detector: Any, backbone: nn.Module, head: Optional[nn.Module]) -> None:
    """Gives a detector another backbone and, where its head is dense, another head."""
    detector.backbone = backbone
    if head is not None:
        detector.head = head
