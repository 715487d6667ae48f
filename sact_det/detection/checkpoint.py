"""What the weights of a detector may come from: a detector's checkpoint, or a classifier's weights."""

import logging
import re
from typing import Any, Sequence

import torch

from sact_det.base.errors import InputError
from sact_det.detection.backbone import SACTBackbone
from sact_det.detection.pooler import RegionPooler
from sact_det.detection.pyramid import extractor_of
from sact_det.engine.checkpoint import SACTCheckpointer, StateDict
from sact_det.weights.values import COUNTER

logger = logging.getLogger(__name__)

_BOX_HEAD_BRANCH = re.compile(r"roi_heads\.res5\.block4\.units\.\d+\.halting\.")

# Where the parts of a classifier's state dict live in a detector; a part may serve two places.
_CLASSIFIER_TO_C4 = (
    (r"(stem|block[123])\.", ("backbone.{0}",)),
    (r"block4\.units\.0\.preact\.", ("roi_heads.res5.{0}", "backbone.res4_norm.{1}")),
    (r"(block4|postnorm)\.", ("roi_heads.res5.{0}",)),
    (r"logits\.", ()),
)
# Block N reads level N, which has the norm resN_norm for those who do not normalise.
_CLASSIFIER_TO_PYRAMID = (
    (r"block([234])\.units\.0\.preact\.", ("backbone.bottom_up.{0}", "backbone.bottom_up.res{2}_norm.{1}")),
    (r"(stem|block[1234])\.", ("backbone.bottom_up.{0}",)),
    (r"postnorm\.", ("backbone.bottom_up.res5_norm.{1}",)),
    (r"logits\.", ()),
)
# What of a C4 detector is a classifier's.
_C4_TO_CLASSIFIER = (
    (r"backbone\.(stem|block[123])\.", ("{2}.{1}",)),
    (r"roi_heads\.res5\.(block4|postnorm)\.", ("{2}.{1}",)),
    (r"(backbone\.res4_norm|proposal_generator|roi_heads)\.", ()),
)
_Table = Sequence[tuple[str, tuple[str, ...]]]


def is_classifier(state_dict: StateDict) -> bool:
    """Whether a state dict is that of a classifier (sact_det/classification) rather than of a detector."""
    return any(key.startswith("stem.") for key in state_dict)


def is_c4(state_dict: StateDict) -> bool:
    """Whether a state dict is that of a detector with block 4 in its box head."""
    return any(key.startswith("backbone.stem.") for key in state_dict)


def to_detector(state_dict: StateDict, table: _Table = _CLASSIFIER_TO_C4) -> StateDict:
    """A classifier's weights under a detector's names, by default a C4 detector's; the logits are dropped.

    The norm of a feature that is read by others than the next block takes the values of that block's first
    pre-activation, which has the same input.

    Raises:
        InputError: a name that belongs to no part of the classifier.
    """
    detector: StateDict = {}
    for name, value in state_dict.items():
        for pattern, targets in table:
            match = re.match(pattern, name)
            if match:
                rest = name[match.end() :]
                detector.update({target.format(name, rest, *match.groups()): value for target in targets})
                break
        else:
            raise InputError(f"weights: {name!r} belongs to no part of a classifier (stem, block1-4, postnorm, logits)")
    return detector


class DetectorCheckpointer(SACTCheckpointer):
    """SACTCheckpointer of a detector, which may start from a classifier's weights.

    What a classifier cannot provide (RPN, box predictor, further heads; on a pyramid its convolutions and all
    heads) starts fresh. A detector of boxes starts one with further heads likewise. So
    does what predicts other classes. In training, a box head leaves out what another rule's halting branches of block 4
    have learned; its own start fresh. A detector on a pyramid may also start from a C4 detector, whose extractor and
    block 4 it takes.
    """

    source_lacks = (
        "proposal_generator.",
        "roi_heads.box_predictor.",
        *("roi_heads.mask_head.", "roi_heads.keypoint_head.", "sem_seg_head."),
        *("roi_heads.box_head.", "backbone.fpn_", "backbone.top_block.", "head.", "loss_normalizer"),  # on a pyramid
    )
    per_class = (
        *("roi_heads.box_predictor.", "roi_heads.mask_head.predictor.", "sem_seg_head.predictor."),
        "head.cls_score.",
    )

    def description(self) -> dict[str, Any]:
        """The network of backbone and box head; `num_classes` counts those of the boxes."""
        heads: Any = getattr(self.model, "roi_heads", self.model)  # RetinaNet is its own
        found = {**extractor_of(self.model.backbone).spec.describe(), "num_classes": heads.num_classes}
        if not self._has_block_4():
            return found
        pooler = getattr(heads, "pooler", None)  # of one feature map
        return {
            **found,
            "box_head_max_pool": isinstance(pooler, RegionPooler) and pooler.max_pool,
            "box_head_map_products": getattr(heads, "shortcut_pooler", None) is not None,
        }

    def _has_block_4(self) -> bool:
        """Whether block 4 is in the box head."""
        return isinstance(self.model.backbone, SACTBackbone)

    def adapt(self, state_dict: StateDict, missing: tuple[str, ...]) -> tuple[StateDict, tuple[str, ...]]:
        """A classifier's weights go where the detector has them; so do those of a C4 detector on a pyramid."""
        on_pyramid = not self._has_block_4()
        if on_pyramid and is_c4(state_dict):
            state_dict = to_detector(state_dict, _C4_TO_CLASSIFIER)
        if is_classifier(state_dict):
            table = _CLASSIFIER_TO_PYRAMID if on_pyramid else _CLASSIFIER_TO_C4
            missing = tuple(self._built(to_detector(dict.fromkeys(missing, torch.empty(0)), table)))
            state_dict = self._built(to_detector(state_dict, table))
        if self._evaluate or on_pyramid:
            return state_dict, missing
        return self._without_branches_of_another_rule(state_dict), missing

    def _built(self, state_dict: StateDict) -> StateDict:
        """Without blocks above the features that a pyramid reads, and without norms of features that nobody does."""
        if self._has_block_4():
            return state_dict
        parts = {name for name, _ in self.model.backbone.bottom_up.named_children()}
        return {name: value for name, value in state_dict.items() if name.split(".")[2] in parts}

    def _without_branches_of_another_rule(self, state_dict: StateDict) -> StateDict:
        branches = {name for name in state_dict if _BOX_HEAD_BRANCH.match(name) and not name.endswith(COUNTER)}
        if branches <= set(self.model.state_dict()):
            return state_dict
        rule = self.model.roi_heads.res5.block4.rule.name
        logger.info("Left out: block 4's halting branches in %s, for the box head halts by %r", self.loaded, rule)
        return {name: value for name, value in state_dict.items() if not _BOX_HEAD_BRANCH.match(name)}
