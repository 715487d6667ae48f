"""Halting branches: their parts add up to their scores, and so do the parts with the norms folded in."""

from typing import Optional

import pytest
import torch
import torch.nn.functional as F
from small_networks import images
from torch import Tensor

from sact_det.execution.folded import fold_halting
from sact_det.network.branch import SpatialHalting, mean_of_images
from sact_det.network.convolution import TAPS
from sact_det.network.norm import BatchNorm2d

CHANNELS = 6


def branch() -> SpatialHalting:
    torch.manual_seed(0)
    made = SpatialHalting(CHANNELS, BatchNorm2d)
    for norm in (made.local_norm, made.global_norm):
        for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            values.uniform_(0.5, 1.5)
    return made.eval()


def valid_of(padded: bool) -> Optional[Tensor]:
    if not padded:
        return None
    valid = torch.zeros(2, 1, 5, 7, dtype=torch.bool)
    valid[0, :, :3, :6] = valid[1] = True
    return valid


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_a_score_is_of_the_local_convolution_plus_what_all_positions_share(padded: bool):
    halting, x, valid = branch(), images(2, 5, 7, CHANNELS), valid_of(padded)
    own = torch.ones(2, 1, 5, 7) if valid is None else valid
    pooled = torch.stack([image[:, mask[0].bool()].mean(1) for image, mask in zip(x, own)])[:, :, None, None]
    torch.testing.assert_close(mean_of_images(x, valid), pooled)
    local = F.conv2d(halting.local_norm(x) * own, halting.local_conv.weight, padding=1)[:, 0]
    expected = torch.sigmoid(local + halting.offset(pooled)[:, None, None])
    torch.testing.assert_close(halting(x, valid), expected)


@torch.no_grad()
def test_a_folded_branch_has_the_scores_of_the_branch():
    halting, x = branch(), images(2, 5, 7, CHANNELS)
    folded = fold_halting(halting)
    products = torch.einsum("tc,nchw->nthw", folded.taps, x) + folded.bias[:, None, None]
    local = F.conv2d(products, torch.eye(TAPS).view(1, TAPS, 3, 3), padding=1)[:, 0]
    image = x.mean((2, 3)) @ folded.mean_weights + folded.constant
    torch.testing.assert_close(torch.sigmoid(local + image[:, None, None]), halting(x))
    torch.testing.assert_close(image, halting.offset(mean_of_images(x, None)))
