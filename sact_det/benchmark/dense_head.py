"""Block 4 in the box head of a rival: a plain one, in whatever runs it fastest."""

import copy
from typing import Callable, Hashable, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sact_det.benchmark.fastest import FastestProgram
from sact_det.benchmark.networks import DensePart
from sact_det.benchmark.rivals import RIVALS, Maker, TorchRival
from sact_det.benchmark.setting import Setting
from sact_det.detection.roi_heads import Block4Head

HEADS: dict[str, Maker] = {
    # Faster than channels last where regions are small.
    "folded, NCHW": TorchRival("folded, NCHW", torch.contiguous_format),
    **{name: RIVALS[name] for name in ("folded", "onnxruntime", "openvino")},
}


class DenseHead(nn.Module):
    """Block 4 of a box head as a plain one.

    Which of HEADS is fastest depends on the regions; the first call with regions of a shape finds out.

    Args:
        head: whose weights these are.
        setting: device and precision.
        alike: as of `FastestProgram`.
    """

    def __init__(
        self, head: Block4Head, setting: Setting, alike: Callable[[torch.Size], Hashable] = lambda shape: shape
    ):
        super().__init__()
        self.program = FastestProgram("block 4", DensePart(head.block4.units), setting, list(HEADS), HEADS, alike)
        self.postnorm = copy.deepcopy(head.postnorm)

    @property
    def remarks(self) -> list[str]:
        """What ran regions of a shape, and in what time, a line for each."""
        return self.program.remarks

    def forward(self, regions: Tensor, by_image: Optional[Sequence[int]] = None) -> Tensor:
        """Block4Head.forward, but nothing is entered into a ledger."""
        run = self.program if len(regions) else self.program.part
        return F.relu(self.postnorm(run(regions)))
