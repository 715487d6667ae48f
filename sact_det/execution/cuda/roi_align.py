"""RoIAlign on an NVIDIA GPU in inference, from rows to rows: what block 4 reads first is what is written."""

from typing import Optional

import torch
from torch import Tensor

from sact_det.execution.cuda.packed import DTYPES
from sact_det.execution.cuda.run import why_no_triton
from sact_det.network.plan import PlannedPooler

CHANNELS = 256  # of a program


def why_not_pooled_by_triton(x: Tensor, boxes: Tensor) -> Optional[str]:
    """Why the kernel cannot pool regions of the feature map x, or None if it can."""
    if boxes.device != x.device:
        return f"boxes are on {boxes.device} and features on {x.device}"
    if x.dtype not in DTYPES:
        return f"they pool float32, float16 and bfloat16, not {x.dtype}"
    if x.dim() != 4 or 0 in x.shape:
        return f"they read maps [N, C, H, W], not {list(x.shape)}"
    if torch.is_grad_enabled() and (x.requires_grad or boxes.requires_grad):
        return "they carry no gradients"
    return why_no_triton(x.device)


def pool_by_triton(pooler: PlannedPooler, x: Tensor, boxes: Tensor) -> Tensor:
    """The regions of PlannedPooler.compute, channels last; where why_not_pooled_by_triton is None.

    Sums are float32, whatever the type of x. There is memory for the regions of `boxes` alone: of rejected ones, which
    are none of them, nothing is written.
    """
    from sact_det.execution.cuda.roi_align_kernel import roi_align_kernel  # late: Triton may be missing

    (_, channels, height, width), (out_height, out_width) = x.shape, pooler.output_size
    rows = x.permute(0, 2, 3, 1).contiguous()
    pooled = x.new_empty(len(boxes), out_height, out_width, channels)
    if len(boxes):
        side = 2 if pooler.max_pool else 1
        block = min(CHANNELS, 1 << (channels - 1).bit_length())
        with torch.cuda.device_of(x):
            roi_align_kernel[(len(boxes) * out_height * out_width * -(-channels // block),)](
                *(rows, boxes.float().contiguous(), pooled, height, width, pooler.spatial_scale),
                **{"RATIO": max(pooler.sampling_ratio, 0), "ALIGNED": pooler.aligned},
                **{"BINS_H": pooler.bins[0], "BINS_W": pooler.bins[1], "OUT_H": out_height, "OUT_W": out_width},
                **{"STEP": 2 if pooler.max_pool else pooler.step, "SIDE": side, "C": channels, "BLOCK_C": block},
            )
    return pooled.permute(0, 3, 1, 2)
