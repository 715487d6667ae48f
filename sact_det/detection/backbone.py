"""The feature extractor: stem and first blocks of the pre-activation ResNet, as a Detectron2 backbone."""

import logging
from typing import Any, Optional, Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor

from sact_det.base.checks import check_choice
from sact_det.base.recording import is_recording
from sact_det.engine.spec import spec_from_config
from sact_det.execution import Executable
from sact_det.network.allowance import blocks_within
from sact_det.network.block import AdaptiveBlock
from sact_det.network.freeze import freeze
from sact_det.network.norm import frozen_norm
from sact_det.network.resnet_v2 import Stem
from sact_det.network.spec import NetworkSpec
from sact_det.rule import ledger
from sact_det.rule.padding import Sizes, check_batch, strided_size, strided_sizes, valid_mask
from sact_det.rule.ponder import PonderRecord

RECTIFIED = "_relu"
FEATURES = ("res4", "res4" + RECTIFIED)  # of Faster R-CNN C4

logger = logging.getLogger(__name__)


def is_read(cfg: CfgNode, feature: str) -> bool:
    """Whether a key IN_FEATURES, whosever it is, names a feature."""
    return any(
        is_read(value, feature) if isinstance(value, CfgNode) else key == "IN_FEATURES" and feature in value
        for key, value in cfg.items()
    )


def top_left(images: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, C, H, W] -> the part of (height, width) that begins at the top left."""
    return images[:, :, : size[0], : size[1]]


class SACTBackbone(Executable, Backbone):
    """Stem and first blocks of the pre-activation ResNet under a halting rule.

    What it spends is entered as "backbone" (sact_det/rule/ledger.py); the open ledger says where each image ends.

    Features, of stride 2 ** K, K = 2 to 5:
        "resK": the raw output of block K - 1, which the next block takes (its first unit normalises it itself);
        "resK_relu": the same normalised and rectified, for consumers that do not, such as an RPN or an FPN. The norm,
            `resK_norm`, starts as the first pre-activation of the next block, where the weights have one.

    Args:
        spec: the network; as many blocks are built as the features need.
        freeze_at: as of `freeze`.
        execution: how stem and blocks compute.
        out_features: those that are read. The last block's norm is there in any case, as files have it, and rests if
            nothing reads it.
        flops_limit: in evaluation no image takes more than this share of the plain extractor's FLOPs
            (sact_det/network/allowance.py); None: there is no limit.

    Raises:
        ValueError: there is no such execution or feature, no feature is named, or freeze_at is negative.
    """

    @configurable
    def __init__(
        self,
        spec: NetworkSpec,
        freeze_at: int = 0,
        execution: str = "auto",
        out_features: Sequence[str] = FEATURES,
        flops_limit: Optional[float] = None,
    ):
        super().__init__()
        self.flops_limit = flops_limit
        levels = [f"res{index + 1}" for index in range(1, len(spec.units) + 1)]
        for name in out_features or [""]:
            check_choice("out_features", name, [level + end for level in levels for end in ("", RECTIFIED)])
        self._out_features = tuple(out_features)
        self._levels = levels[: 1 + max(levels.index(name.removesuffix(RECTIFIED)) for name in out_features)]
        self._warned = False
        self.spec = spec
        self.stem: Stem = spec.build_stem()  # type: ignore[assignment]  # a detector has no CIFAR network
        for index in range(1, len(self._levels) + 1):
            self.add_module(f"block{index}", spec.build_block(index))
        for index, level in enumerate(self._levels, 1):
            if level == self._levels[-1] or level + RECTIFIED in out_features:
                self.add_module(f"{level}_norm", spec.make_norm(spec.out_channels(index)))
        if self._levels[-1] + RECTIFIED not in out_features:
            self._freeze_norm(self._levels[-1])
        self.set_execution(execution)
        self.freeze(freeze_at)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {
            "spec": spec_from_config(cfg),
            "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
            "execution": cfg.MODEL.SACT.EXECUTION,
            "out_features": [name for name in FEATURES if is_read(cfg, name)],
            "flops_limit": cfg.MODEL.SACT.FLOPS_LIMIT or None,
        }

    @property
    def blocks(self) -> dict[str, AdaptiveBlock]:
        """The extractor's blocks by name."""
        names = [f"block{index}" for index in range(1, len(self._levels) + 1)]
        return {name: self.get_submodule(name) for name in names}

    def freeze(self, freeze_at: int = 0) -> "SACTBackbone":
        """Freezes the first parts in place, as Detectron2's ResNet.freeze does, and returns the backbone.

        A frozen part keeps weights and norms; its halting branches still learn, because they must answer to the ponder
        cost.

        Args:
            freeze_at: 0: nothing; 1: the stem; 2: also block 1, and so on; beyond the last block also the norms of the
                features.

        Raises:
            ValueError: freeze_at is negative.
        """
        freeze([self.stem, *self.blocks.values()], freeze_at)
        if freeze_at > len(self._levels):
            for level in self._levels:
                self._freeze_norm(level)
        return self

    def _freeze_norm(self, level: str) -> None:
        name = f"{level}_norm"
        if hasattr(self, name):
            self.add_module(name, frozen_norm(self.get_submodule(name)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Detectron2's interface.

        Args:
            images: float32 [N, 3, H, W], normalised, zero at padding.

        Returns:
            feature name -> [N, C, ceil(H / stride), ceil(W / stride)], zero at padding.

        Raises:
            ValueError: it is no batch, or the open ledger is one of other images.
        """
        check_batch("images", images)
        self._warn()
        sizes, padded = ledger.sizes_of(images), None
        if sizes is not None and len(sizes) == 1:  # nothing needs its padding, which every layer would have to mask
            padded, ((height, width),), sizes = (images.shape[2], images.shape[3]), sizes, None
            images = top_left(images, (height, width))
        image_size = (images.shape[2], images.shape[3])
        root_flops = self.stem.flops(sizes, image_size, images.shape[0], images.device)
        x, sizes = self.stem(images, sizes), strided_sizes(sizes, self.stem.stride)
        share = None if self.training else self.flops_limit
        run = blocks_within(share, list(self.blocks.values()), root_flops, (x.shape[2], x.shape[3]), sizes)
        record, features = PonderRecord({}, root_flops), {}
        for level, (name, block) in zip(self._levels, self.blocks.items()):
            x, record.blocks[name] = run(block, x, sizes)
            sizes = strided_sizes(sizes, block.units[0].stride)
            read = self._read(level, x, sizes)
            features.update(read if padded is None else self._padded(read, level, padded))
        ledger.enter("backbone", record)
        return {name: features[name] for name in self._out_features}

    def _read(self, level: str, x: Tensor, sizes: Optional[Sizes]) -> dict[str, Tensor]:
        """The features of a block's output that are read; no other is made or kept.

        In memory they are as the block leaves them, in rows where kernels do: so convolutions and poolers read them.
        """
        read = {level, level + RECTIFIED}.intersection(self._out_features)
        features = {level: x}
        if level + RECTIFIED in read:
            valid = valid_mask(sizes, (x.shape[2], x.shape[3]), x.device)
            if x.device.type == "cpu" and torch.is_grad_enabled():  # backward passes of convolutions like maps better
                x = x.contiguous()
            rectified = F.relu(self.get_submodule(f"{level}_norm")(x, valid), inplace=True)
            features[level + RECTIFIED] = rectified if valid is None else rectified * valid
        return {name: features[name] for name in read}

    def _padded(self, features: dict[str, Tensor], level: str, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """A level's features with zeros at the end, as large as those of an image of (height, width)."""
        height, width = strided_size(image_size, 2 ** (self._levels.index(level) + 2))
        return {name: F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2])) for name, x in features.items()}

    def _warn(self) -> None:
        """Says once that the training does not pay for the computation."""
        learns = self.training and torch.is_grad_enabled() and not is_recording()
        if learns and self.spec.rule.adaptive and not self._warned and not ledger.is_read():
            self._warned = True
            logger.warning(
                "A SACTBackbone trains without a price on its computation: this meta-architecture asks for its "
                "features alone. MODEL.META_ARCHITECTURE SACTGeneralizedRCNN adds loss_ponder."
            )

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature."""
        indices = {name: self._levels.index(name.removesuffix(RECTIFIED)) + 1 for name in self._out_features}
        return {
            name: ShapeSpec(channels=self.spec.out_channels(index), stride=2 ** (index + 1))
            for name, index in indices.items()
        }


@BACKBONE_REGISTRY.register()
def build_sact_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SACTBackbone:
    """MODEL.BACKBONE.NAME "build_sact_resnet_backbone"; reads MODEL.SACT and MODEL.BACKBONE.FREEZE_AT."""
    return SACTBackbone(cfg, input_shape)
