"""Rejection: a region of a detector's box head may halt before the first unit, and is then background.

Shape shorthand in this module:
    N: images; C: channels; H, W: feature map, padding included; R: regions of all images, in order; K: those of them
    that run through block 4; L: its residual units; P: bins on a side of a region.
"""

from dataclasses import dataclass
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.structures import Instances, pairwise_iou
from torch import Tensor, nn
from torchvision.ops import ps_roi_align

from sact_det.base.precision import exact_float32, widened
from sact_det.network.branch import HALTING_BIAS
from sact_det.network.norm import Norm, learns_from_batch, norm_affine
from sact_det.network.unit import ScoringBranch
from sact_det.rule import ledger
from sact_det.rule.flops import conv_flops
from sact_det.rule.padding import Mask, own_sizes, positions, strided_sizes, valid_mask
from sact_det.rule.ponder import BlockPonder, PonderRecord

_OBJECTNESS = "rpn_objectness"  # field of proposals and, in training, of ground truth
_SAMPLES = 2  # on a side of a bin, whatever the region's size: one without area has samples, too


def with_objectness(
    proposals: Sequence[Instances], targets: Sequence[Instances]
) -> tuple[list[Instances], list[Instances]]:
    """Copies of proposals and ground truth that say what the RPN thinks of each box, for `RegionRejection`.

    Detectron2 trains the box head on ground-truth boxes, too, and gives them the logit of certainty (23). A branch that
    reads it would learn to tell these boxes by their logit, which no box has later. So a ground-truth box has the logit
    of the proposal that overlaps it most: what the RPN said of that place. Where none does, it has the least of its
    image; without proposals, 0.
    """
    marked_proposals, marked_targets = [], []
    for found, truth in zip(proposals, targets):
        logits = found.objectness_logits
        own = logits.new_zeros(len(truth))
        if len(found) and len(truth):
            overlap, nearest = pairwise_iou(truth.gt_boxes, found.proposal_boxes).max(1)
            own = torch.where(overlap > 0, logits[nearest], logits.min())
        marked_proposals.append(Instances(found.image_size, **found.get_fields(), **{_OBJECTNESS: logits}))
        marked_targets.append(Instances(truth.image_size, **truth.get_fields(), **{_OBJECTNESS: own}))
    return marked_proposals, marked_targets


@dataclass(frozen=True)
class Verdict:
    """What becomes of regions.

    Attributes:
        logits: of h^0, [R].
        rejected: bool [R], whether an evaluation rejects them.
        by_image: how many regions each image has.
        runs: bool [R], which of them run through block 4; None: all, as in training.
    """

    logits: Tensor
    rejected: Tensor
    by_image: Sequence[int]
    runs: Optional[Tensor]

    def running(self, proposals: Sequence[Instances]) -> list[Instances]:
        """Of the proposals of each image, those that run through block 4."""
        if self.runs is None:
            return list(proposals)
        return [own[runs] for own, runs in zip(proposals, self.runs.split(list(self.by_image)))]

    def mixture(self, scores: Tensor) -> Tensor:
        """Log-probabilities of the classes, background last: P(c) = (1 - h^0) P_4(c), and background has h^0 more.

        They stand in the place of logits, for their softmax is what they are logarithms of.

        Args:
            scores: logits of P_4, what block 4 and the box predictor say, [K, classes + 1].
        """
        logits = self.logits if self.runs is None else self.logits[self.runs]
        goes_on = F.logsigmoid(-logits)[:, None] + F.log_softmax(widened(scores), 1)
        background = torch.logaddexp(F.logsigmoid(logits), goes_on[:, -1])
        return torch.cat([goes_on[:, :-1], background[:, None]], 1)

    def account(self, ponder: BlockPonder) -> BlockPonder:
        """The halting outcome of all R regions, from block 4's of those that ran.

        The ponder cost is the expected one, (1 - h^0) rho, and so are the weights of the units; what an evaluation
        rejects evaluates no unit, in training neither.
        """
        values = ponder.tensors() if self.runs is None else [self._all(own) for own in ponder.tensors()]
        cost, units, flops, distribution = values
        goes_on = torch.sigmoid(-self.logits)[:, None, None].to(cost.dtype)
        runs = ~self.rejected
        return BlockPonder(
            ponder_cost=goes_on * cost,
            num_units=runs[:, None, None] * units,
            flops=runs * flops,
            halting_distribution=goes_on[..., None].detach() * distribution,
        )

    def _all(self, values: Tensor) -> Tensor:
        """[K, ...] -> [R, ...], 0 for regions that did not run."""
        assert self.runs is not None
        everywhere = values.new_zeros(len(self.runs), *values.shape[1:])
        everywhere[self.runs] = values
        return everywhere


class RegionRejection(ScoringBranch):
    """H^0: scores regions before they are pooled, so that a rejected one costs nothing but its score.

    h^0 = sigma(s + w BN(o) + b), and ScoringBranch's shift beside b. s is the sum over P x P bins of position-sensitive
    scores, as in R-FCN (Dai et al., 2016): a 1x1 convolution of the normalised features has a channel for each bin, and
    RoIAlign reads each bin from its own channel. It is divided by P, the deviation of a sum of P x P scores: their
    mean, R-FCN's, would learn too slowly for a short training, their sum too fast to be stable. o is the logit of the
    RPN (`with_objectness` says which one ground-truth boxes have). Both are computed on the map or before, whatever the
    number of regions. At first s = 0,
    w = -1 and b = -3: little is rejected, and rather where the RPN believes least.

    In training every region runs through block 4, so that none is lost, and h^0 learns from the classification loss,
    by `Verdict.mixture`, and from the ponder cost, (1 - h^0) rho. In evaluation a region is rejected where h^0 >= 1 -
    `least`. No detection of a region scores more than 1 - h^0: where `least` is the score above which a detection
    counts, rejecting a region loses none.

    What the convolution takes is entered as "box_head" (sact_det/rule/ledger.py), a record of images without blocks.

    Args:
        channels: C.
        stride: of the feature map.
        norm: makes a norm of so many channels (sact_det/network/norm.py).
        least: in (0, 1).
        bins: P.
    """

    def __init__(self, channels: int, stride: int, norm: Norm, least: float, bins: int = 3):
        super().__init__()
        self.stride = stride
        self.least = least
        self.bins = bins
        self.norm = norm(channels)
        self.conv = nn.Conv2d(channels, bins * bins, 1, bias=False)
        nn.init.zeros_(self.conv.weight)
        self.objectness_norm = norm(1)
        self.objectness_weight = nn.Parameter(torch.tensor([-1.0]))
        self.bias = nn.Parameter(torch.tensor([HALTING_BIAS]))

    def forward(self, features: Tensor, proposals: Sequence[Instances]) -> Verdict:
        """Judges the proposals of each image.

        Args:
            features: [N, C, H, W], zero at padding.
            proposals: of each image, with `proposal_boxes` and `objectness_logits`; in training, as `with_objectness`
                and sampling leave them.
        """
        sizes = strided_sizes([own.image_size for own in proposals], self.stride)
        map_size = (features.shape[2], features.shape[3])
        sizes = own_sizes(sizes, map_size)
        flops = conv_flops(self.conv) * positions(sizes, map_size, len(features), features.device)
        ledger.enter("box_head", PonderRecord({}, flops))
        with exact_float32(features.device):
            x = widened(features)
            valid = valid_mask(sizes, map_size, x.device)
            scores = self._scores(x, valid)
            logits = self._position_sensitive(scores if valid is None else scores * valid, proposals)
            logits = logits + self.objectness_weight * self._objectness(proposals).to(x.dtype) + self.bias + self.shift
        by_image = [len(own) for own in proposals]
        if self.fixed:
            logits = logits.detach()
        rejected = torch.sigmoid(-logits.detach()) <= self.least
        return Verdict(logits, rejected, by_image, None if self.training else ~rejected)

    def _scores(self, x: Tensor, valid: Mask) -> Tensor:
        """[N, C, H, W] -> [N, P * P, H, W]; a norm that does not learn is folded into the convolution."""
        if learns_from_batch(self.norm):
            return self.conv(self.norm(x, valid))
        weight = self.conv.weight
        scale, shift = norm_affine(self.norm, x.dtype)
        return F.conv2d(x, weight * scale[:, None, None], (weight[:, :, 0, 0] * shift).sum(1))

    def _position_sensitive(self, scores: Tensor, proposals: Sequence[Instances]) -> Tensor:
        """s: [N, P * P, H, W] -> [R]."""
        boxes = convert_boxes_to_pooler_format([own.proposal_boxes for own in proposals]).to(scores.dtype)
        return ps_roi_align(scores, boxes, self.bins, 1 / self.stride, _SAMPLES).sum((1, 2, 3)) / self.bins

    def _objectness(self, proposals: Sequence[Instances]) -> Tensor:
        """[R], normalised."""
        logits = [own.get(_OBJECTNESS if own.has(_OBJECTNESS) else "objectness_logits") for own in proposals]
        return self.objectness_norm(widened(torch.cat(logits))[:, None, None, None]).flatten()
