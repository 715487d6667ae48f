"""What the weights of a detector may come from: a detector's checkpoint, or a classifier's weights."""

import logging
import re
from typing import Any

import torch
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.detection.pooler import RegionPooler
from sact_det.engine.checkpoint import SACTCheckpointer, StateDict
from sact_det.weights.values import COUNTER

logger = logging.getLogger(__name__)

_BOX_HEAD_BRANCH = re.compile(r"roi_heads\.res5\.block4\.units\.\d+\.halting\.")

# Where the parts of a classifier's state dict live in the detector; a part may serve two places.
_CLASSIFIER_TO_DETECTOR = (
    (r"(stem|block[123])\.", ("backbone.{0}",)),
    (r"block4\.units\.0\.preact\.", ("roi_heads.res5.{0}", "backbone.res4_norm.{1}")),
    (r"(block4|postnorm)\.", ("roi_heads.res5.{0}",)),
    (r"logits\.", ()),
)


def is_classifier(state_dict: dict[str, Tensor]) -> bool:
    """Whether a state dict is that of a classifier (sact_det/classification) rather than of a detector."""
    return any(key.startswith("stem.") for key in state_dict)


def to_detector(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's weights under the detector's names: blocks 1-3, block 4 and postnorm; the logits are dropped.

    The norm before the RPN takes the values of block 4's first pre-activation, which has the same input.

    Raises:
        InputError: a name that belongs to no part of the classifier.
    """
    detector: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        for pattern, targets in _CLASSIFIER_TO_DETECTOR:
            match = re.match(pattern, name)
            if match:
                detector.update({target.format(name, name[match.end() :]): value for target in targets})
                break
        else:
            raise InputError(f"weights: {name!r} belongs to no part of a classifier (stem, block1-4, postnorm, logits)")
    return detector


class DetectorCheckpointer(SACTCheckpointer):
    """SACTCheckpointer of a detector, which may start from a classifier's weights.

    What a classifier cannot provide (RPN, box predictor) starts fresh. So does a box predictor for other classes. In
    training, a box head leaves out what another rule's halting branches of block 4 have learned; its own start fresh.
    """

    source_lacks = ("proposal_generator.", "roi_heads.box_predictor.")
    per_class = ("roi_heads.box_predictor.",)

    def description(self) -> dict[str, Any]:
        """The network of backbone and box head; `num_classes` counts those of the boxes."""
        heads = self.model.roi_heads
        pooler = getattr(heads, "pooler", None)  # of one feature map
        return {
            **self.model.backbone.spec.describe(),
            "num_classes": heads.num_classes,
            "box_head_max_pool": isinstance(pooler, RegionPooler) and pooler.max_pool,
            "box_head_map_products": getattr(heads, "shortcut_pooler", None) is not None,
        }

    def adapt(self, state_dict: StateDict, missing: tuple[str, ...]) -> tuple[StateDict, tuple[str, ...]]:
        """A classifier's weights go where the detector has them."""
        if is_classifier(state_dict):
            missing = tuple(to_detector(dict.fromkeys(missing, torch.empty(0))))
            state_dict = to_detector(state_dict)
        return (state_dict if self._evaluate else self._without_branches_of_another_rule(state_dict)), missing

    def _without_branches_of_another_rule(self, state_dict: StateDict) -> StateDict:
        branches = {name for name in state_dict if _BOX_HEAD_BRANCH.match(name) and not name.endswith(COUNTER)}
        if branches <= set(self.model.state_dict()):
            return state_dict
        rule = self.model.roi_heads.res5.block4.rule.name
        logger.info("Left out: block 4's halting branches in %s, for the box head halts by %r", self._path, rule)
        return {name: value for name, value in state_dict.items() if not _BOX_HEAD_BRANCH.match(name)}
