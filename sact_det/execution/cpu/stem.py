"""The stem on a CPU in inference: root convolution and pooling in one pass over the image."""

from typing import Optional

import torch
from torch import Tensor

from sact_det.base.precision import compute_type
from sact_det.execution.cpu import calls
from sact_det.execution.cpu.buffers import Buffers
from sact_det.execution.cpu.memory import address, empty
from sact_det.execution.cpu.packed import factor_type, pack_stem
from sact_det.execution.packing import WeightCache
from sact_det.network.plan import PlannedStem
from sact_det.rule.padding import Sizes, strided_size


def evaluate_stem(stem: PlannedStem, cache: WeightCache, x: Tensor, sizes: Optional[Sizes]) -> Tensor:
    """The output of a stem, in compute_type(x) and channels last.

    Args:
        stem: for which why_not_here is None.
        cache: keeps what is packed from its weights.
        x: [N, 3, H, W], zero at padding.
        sizes: (height, width) of each image's own part of x, or None.

    Returns:
        [N, channels, ceil(H / 4), ceil(W / 4)], zero at padding.
    """
    kernels, threads = calls.kernels(), torch.get_num_threads()
    dtype = compute_type(x)
    packed = cache.get(stem, pack_stem, factor_type(dtype))
    pixels = x.float().resolve_neg()
    number, _, height, width = x.shape
    own = torch.tensor(sizes or [(height, width)] * number, dtype=torch.int64, device="cpu")
    shape = number, *strided_size((height, width), stem.stride), packed.struct.channels
    with Buffers() as buffers:
        rows = empty(*shape) if dtype == torch.float32 else buffers.take("pooled", *shape)
        images = calls.Images(
            number,
            height,
            width,
            address(pixels, strided=True),
            *pixels.stride(),
            address(own, torch.int64),
            buffers.room("colours", number * (height + 6) * (width + 6) * 3 + 1),
            address(rows),
            buffers.room("scratch", threads, kernels.stem_scratch_size(packed.struct, width)),
        )
        kernels.evaluate_stem(packed.struct, images, threads)
        return rows.permute(0, 3, 1, 2).to(dtype)
