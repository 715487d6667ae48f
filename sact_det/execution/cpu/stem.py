"""The stem on a CPU in inference: root convolution and pooling in one pass over the image."""

from typing import Optional

import torch
from torch import Tensor

from sact_det.base.precision import compute_type
from sact_det.execution.cpu import calls
from sact_det.execution.cpu.memory import address, empty
from sact_det.execution.cpu.packed import factor_type, pack_stem
from sact_det.execution.cpu.workspace import workspace
from sact_det.network.resnet_v2 import Stem
from sact_det.rule.padding import Sizes


def evaluate_stem(stem: Stem, x: Tensor, sizes: Optional[Sizes]) -> Tensor:
    """See Stem.forward; the result is channels last."""
    kernels, threads = calls.kernels(), torch.get_num_threads()
    dtype = compute_type(x)
    packed = stem.weight_cache.get(stem, pack_stem[factor_type(dtype)])
    pixels = x.float().resolve_neg()
    number, _, height, width = x.shape
    own = torch.tensor(sizes or [(height, width)] * number, dtype=torch.int64, device="cpu")
    shape = number, -(-height // stem.stride), -(-width // stem.stride), packed.struct.channels
    rows = empty(*shape) if dtype == torch.float32 else workspace.take("pooled", *shape)
    colours = workspace.take("colours", number * (height + 6) * (width + 6) * 3 + 1)
    scratch = workspace.take("scratch", threads, kernels.stem_scratch_size(packed.struct, width))
    images = calls.Images(
        number,
        height,
        width,
        address(pixels, strided=True),
        *pixels.stride(),
        address(own, torch.int64),
        address(colours),
        address(rows),
        address(scratch),
    )
    kernels.evaluate_stem(packed.struct, images, threads)
    workspace.give_back("colours", colours)
    workspace.give_back("scratch", scratch)
    features = rows.permute(0, 3, 1, 2)
    if dtype != torch.float32:
        features = features.to(dtype)
        workspace.give_back("pooled", rows)
    return features
