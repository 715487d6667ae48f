"""The head of an RPN, which computes by a plan and may pass over the positions that halted early."""

import re
from typing import Any, Iterable, Optional, Sequence, Union

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling.proposal_generator import RPN_HEAD_REGISTRY
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.network.halting_rule import halting_rule
from sact_det.network.plan import Planned
from sact_det.rule import ledger
from sact_det.rule.flops import conv_flops, count, dilate
from sact_det.rule.ponder import PonderRecord

_KEY = "MODEL.SACT.RPN_POSITIONS"


def deciding_blocks(cfg: CfgNode) -> Optional[list[str]]:
    """For each of MODEL.RPN.IN_FEATURES the block that it comes from, whose positions decide where anchors are.

    None: they are everywhere (MODEL.SACT.RPN_POSITIONS "all").

    Raises:
        InputError: nothing can halt there, or a feature comes from no block.
    """
    sact, blocks = cfg.MODEL.SACT, []
    if sact.RPN_POSITIONS == "all":
        return None
    if not halting_rule(sact.HALTING).by_position:
        raise InputError(f"{_KEY} active needs MODEL.SACT.HALTING sact: positions that halt; got {sact.HALTING!r}")
    for name in cfg.MODEL.RPN.IN_FEATURES:
        level = re.fullmatch(r"res([2-5])(_relu)?", name)
        if level is None:
            raise InputError(f"{_KEY} active needs MODEL.RPN.IN_FEATURES of blocks, such as 'res4_relu'; got {name!r}")
        index = int(level[1]) - 1
        if sact.UNITS[index - 1] < 2:
            raise InputError(f"{_KEY} active needs a second unit in block {index}; got MODEL.SACT.UNITS {sact.UNITS}")
        blocks.append(f"block{index}")
    return blocks


@RPN_HEAD_REGISTRY.register()
class SACTRPNHead(Planned, StandardRPNHead):
    """Detectron2's StandardRPNHead, parameters and their names included; it computes by a plan.

    In evaluation it may have anchors at the active positions alone: those of each feature that did not halt behind the
    first unit of the block that it comes from, as the open ledger has them (sact_det/rule/ledger.py). Elsewhere its
    logits are -inf, which Detectron2's RPN never proposes, and nothing is computed. What it takes is then entered as
    "proposal_generator".

    Args:
        blocks: of each feature, the block that it comes from; None: anchors are at all positions.
        **kwargs: of StandardRPNHead.
    """

    conv: Union[Conv2d, nn.Sequential]
    objectness_logits: nn.Conv2d
    anchor_deltas: nn.Conv2d

    @configurable
    def __init__(self, *, blocks: Optional[Sequence[str]] = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.blocks = blocks

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        """Arguments of the constructor. Raises InputError as deciding_blocks does."""
        return {**super().from_config(cfg, input_shape), "blocks": deciding_blocks(cfg)}

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """See StandardRPNHead.forward.

        Raises:
            ValueError: where anchors depend on the backbone's halting, and no open ledger has it.
        """
        plan, logits, deltas = self.present_plan, [], []
        active: Iterable[Optional[Tensor]] = [None] * len(features)
        # A training has anchors everywhere: an object whose positions have all halted pulls at their halting scores
        # through the RPN's losses, and could never come back without them.
        if self.blocks is not None and not self.training:
            active = self._active(features)
        for x, own in zip(features, active):
            reaches = [None] * len(self._layers) if own is None else self._reaches(own)
            for layer, where in zip(self._layers, reaches):
                x = plan.convolve(layer, x, where)
            logits.append(plan.predict(self.objectness_logits, x, own, float("-inf")))
            deltas.append(plan.predict(self.anchor_deltas, x, own, 0.0))
        return logits, deltas

    @property
    def _layers(self) -> Sequence[Any]:
        return [self.conv] if isinstance(self.conv, Conv2d) else list(self.conv)

    def _reaches(self, active: Tensor) -> list[Tensor]:
        """Where each 3x3 convolution is read: the last one at the active positions, those before it around them."""
        reaches = [active]
        for _ in self._layers[1:]:
            reaches.insert(0, dilate(reaches[0]))
        return reaches

    def _active(self, features: Sequence[Tensor]) -> list[Tensor]:
        """bool [N, H, W] of each feature; enters what it takes to evaluate them."""
        record = ledger.latest("backbone")
        if record is None:
            raise ValueError(
                f"{_KEY} active needs what the backbone spent: an open ledger, as of SACTGeneralizedRCNN or any Priced "
                "meta-architecture, and a SACTBackbone"
            )
        masks, flops = [], record.dense_flops.new_zeros(len(record.dense_flops))
        for name in self.blocks or ():
            units = record.blocks[name].num_units
            masks.append(units > 1)
            for layer, where in zip(self._layers, self._reaches(masks[-1])):
                flops = flops + conv_flops(layer) * count(where & (units > 0))
            for layer in (self.objectness_logits, self.anchor_deltas):
                flops = flops + conv_flops(layer) * count(masks[-1])
        ledger.enter("proposal_generator", PonderRecord({}, flops))
        return masks
