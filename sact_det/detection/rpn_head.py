"""The head of an RPN, whose 3x3 convolution runs in kernels where the execution has some."""

from typing import Any, Iterable, Union

from detectron2.layers import Conv2d
from detectron2.modeling.proposal_generator import RPN_HEAD_REGISTRY
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from torch import Tensor, nn

from sact_det.network.plan import Planned


@RPN_HEAD_REGISTRY.register()
class SACTRPNHead(Planned, StandardRPNHead):
    """Detectron2's StandardRPNHead, parameters and their names included; it computes by a plan."""

    conv: Union[Conv2d, nn.Sequential]
    objectness_logits: nn.Conv2d
    anchor_deltas: nn.Conv2d

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """See StandardRPNHead.forward."""
        layers: Iterable[Any] = [self.conv] if isinstance(self.conv, Conv2d) else self.conv
        logits, deltas = [], []
        for x in features:
            for layer in layers:
                x = self.present_plan.convolve(layer, x)
            logits.append(self.objectness_logits(x))
            deltas.append(self.anchor_deltas(x))
        return logits, deltas
