"""The feature extractor: stem and blocks 1-3 of the pre-activation ResNet, as a Detectron2 backbone."""

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
from sact_det.network.block import AdaptiveBlock
from sact_det.network.freeze import freeze
from sact_det.network.norm import frozen_norm
from sact_det.network.resnet_v2 import Stem
from sact_det.network.spec import NetworkSpec
from sact_det.rule.padding import Sizes, check_batch, own_sizes, strided_sizes, valid_mask
from sact_det.rule.ponder import PonderRecord

EXTRACTOR_BLOCKS = (1, 2, 3)
STRIDE = 16
FEATURES = ("res4", "res4_relu")

logger = logging.getLogger(__name__)


def is_read(cfg: CfgNode, feature: str) -> bool:
    """Whether a key IN_FEATURES, whosever it is, names a feature."""
    return any(
        is_read(value, feature) if isinstance(value, CfgNode) else key == "IN_FEATURES" and feature in value
        for key, value in cfg.items()
    )


class SACTBackbone(Backbone):
    """Blocks 1-3 under a halting rule.

    Features, both of stride 16:
        res4: the raw output of block 3, which block 4 takes (its first unit normalises it itself);
        res4_relu: the same normalised and rectified, for consumers that do not, such as the RPN. The norm starts as
            the first pre-activation of block 4, where the weights have one.

    Args:
        spec: the network; blocks 1-3 are built.
        freeze_at: as of `freeze`.
        execution: how stem and blocks compute.
        out_features: those that are read, of the two. Where "res4_relu" is not, its norm is there, as files have it,
            and rests.

    Raises:
        ValueError: there is no such execution or feature, or freeze_at is negative.
    """

    @configurable
    def __init__(
        self,
        spec: NetworkSpec,
        freeze_at: int = 0,
        execution: str = "dense",
        out_features: Sequence[str] = FEATURES,
    ):
        super().__init__()
        for name in out_features:
            check_choice("out_features", name, FEATURES)
        self._out_features = tuple(out_features)
        self._warned = False
        self.spec = spec
        self.stem: Stem = spec.build_stem()  # type: ignore[assignment]  # a detector has no CIFAR network
        self.block1, self.block2, self.block3 = (spec.build_block(index) for index in EXTRACTOR_BLOCKS)
        self.res4_norm = spec.make_norm(spec.out_channels(3))
        if "res4_relu" not in self._out_features:
            self._freeze_norm()
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
        }

    @property
    def blocks(self) -> dict[str, AdaptiveBlock]:
        """The extractor's blocks by name."""
        return {"block1": self.block1, "block2": self.block2, "block3": self.block3}

    def set_execution(self, execution: str) -> None:
        """How stem and blocks compute (sact_det/network/block.py: EXECUTIONS); the results do not depend on it."""
        self.stem.set_execution(execution)
        for block in self.blocks.values():
            block.set_execution(execution)

    def freeze(self, freeze_at: int = 0) -> "SACTBackbone":
        """Freezes the first parts in place, as Detectron2's ResNet.freeze does, and returns the backbone.

        A frozen part keeps weights and norms; its halting branches still learn, because they must answer to the ponder
        cost.

        Args:
            freeze_at: 0: nothing; 1: the stem; 2: also block 1, and so on; from 4 on also the norm of "res4_relu".

        Raises:
            ValueError: freeze_at is negative.
        """
        freeze([self.stem, *self.blocks.values()], freeze_at)
        if freeze_at > len(self.blocks):
            self._freeze_norm()
        return self

    def _freeze_norm(self) -> None:
        self.res4_norm = frozen_norm(self.res4_norm)

    def extract(self, images: Tensor, sizes: Optional[Sizes] = None) -> tuple[dict[str, Tensor], PonderRecord]:
        """Features and the account of the computation.

        Args:
            images: float32 [N, 3, H, W], normalised, zero at padding.
            sizes: (height, width) of each image, or None if every image fills the batch.
        """
        check_batch("images", images, sizes)
        image_size = (images.shape[2], images.shape[3])
        sizes = own_sizes(sizes, image_size)
        root_flops = self.stem.flops(sizes, image_size, images.shape[0], images.device)
        x, sizes = self.stem(images, sizes), strided_sizes(sizes, self.stem.stride)
        record = PonderRecord({}, root_flops)
        for name, block in self.blocks.items():
            x, record.blocks[name] = block(x, sizes)
            sizes = strided_sizes(sizes, block.units[0].stride)
        if x.device.type == "cpu":  # the kernels leave rows; RoIAlign would copy them, the RPN's convolution be slower
            x = x.contiguous()
        features = {"res4": x}
        if "res4_relu" in self._out_features:
            valid = valid_mask(sizes, (x.shape[2], x.shape[3]), x.device)
            rectified = F.relu(self.res4_norm(x, valid))
            features["res4_relu"] = rectified if valid is None else rectified * valid
        return {name: features[name] for name in self._out_features}, record

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Detectron2's interface: images of one size -> features by name; what they took is not said."""
        learns = self.training and torch.is_grad_enabled() and not is_recording()
        if learns and self.spec.halting != "none" and not self._warned:
            self._warned = True
            logger.warning(
                "A SACTBackbone trains without a price on its computation: this meta-architecture asks for its "
                "features alone. MODEL.META_ARCHITECTURE SACTGeneralizedRCNN adds loss_ponder."
            )
        return self.extract(images)[0]

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature."""
        shape = ShapeSpec(channels=self.spec.out_channels(3), stride=STRIDE)
        return dict.fromkeys(self._out_features, shape)


@BACKBONE_REGISTRY.register()
def build_sact_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SACTBackbone:
    """MODEL.BACKBONE.NAME "build_sact_resnet_backbone"; reads MODEL.SACT and MODEL.BACKBONE.FREEZE_AT."""
    return SACTBackbone(cfg, input_shape)
