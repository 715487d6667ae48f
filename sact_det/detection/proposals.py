"""As many proposals as an image needs: by score, up to a share of all their objectness."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, Instances
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.base.recording import is_recording
from sact_det.detection.first_proposals import find_first_proposals
from sact_det.execution import set_execution
from sact_det.rule import ledger

LEAST_PROPOSALS = 10  # an image keeps so many, if it has them, however sure the RPN is of the first
_ROUNDING = 1e-9  # relative, of a sum of objectness in float64


def carry_mass(objectness_logits: Tensor, mass: float) -> Tensor:
    """The proposals of an image that carry a share of its objectness: the shortest prefix that does.

    Args:
        objectness_logits: [P], falling, as Detectron2's RPN gives them.
        mass: the share, in (0, 1], of the sum of sigmoid(logit) over all P. It counts as reached to rounding.

    Returns:
        bool [P], true for the prefix, which has at least `LEAST_PROPOSALS` (all where there are fewer); all at 1.
    """
    objectness = objectness_logits.double().sigmoid()
    before = objectness.cumsum(0) - objectness  # of the better ones: it is only kept if they do not suffice
    kept = before < mass * (1 - _ROUNDING) * objectness.sum()
    kept[: None if mass == 1 else LEAST_PROPOSALS] = True
    return kept


@PROPOSAL_GENERATOR_REGISTRY.register()
class SACTRPN(RPN):
    """Detectron2's RPN, which in evaluation keeps of each image's proposals only those that `carry_mass`.

    Those are the proposals behind NMS, MODEL.RPN.POST_NMS_TOPK_TEST at most; in training all of them are kept.

    Args:
        mass: MODEL.SACT.PROPOSAL_MASS, in (0, 1]. At 1 this is Detectron2's RPN.
        **kwargs: of Detectron2's RPN.

    Raises:
        InputError: `mass` is out of range.
    """

    @configurable
    def __init__(self, *, mass: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 < mass <= 1:
            raise InputError(f"MODEL.SACT.PROPOSAL_MASS must lie in (0, 1]; got {mass}")
        self.mass = mass

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments of the constructor."""
        arguments = super().from_config(cfg, input_shape)
        set_execution(arguments["head"], cfg.MODEL.SACT.EXECUTION)
        return {**arguments, "mass": cfg.MODEL.SACT.PROPOSAL_MASS}

    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Detectron2's, pruned in evaluation; sorted by their score."""
        logits = pred_objectness_logits[0]
        proposals = None
        if not self.training and len(anchors) == 1 and logits.is_cpu and not is_recording():
            with torch.no_grad():
                proposals = find_first_proposals(
                    anchors[0].tensor,
                    logits,
                    pred_anchor_deltas[0],
                    self.box2box_transform.apply_deltas,
                    image_sizes,
                    nms_thresh=self.nms_thresh,
                    pre_nms_topk=self.pre_nms_topk[False],
                    post_nms_topk=self.post_nms_topk[False],
                    min_box_size=self.min_box_size,
                )
        if proposals is None:
            proposals = super().predict_proposals(anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes)
        if not self.training and self.mass != 1:
            proposals = [own[carry_mass(own.objectness_logits, self.mass)] for own in proposals]
        ledger.enter_proposals([len(own) for own in proposals])
        return proposals
