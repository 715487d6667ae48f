"""Block 4 in the box head of a rival: a plain one, in whatever runs it fastest."""

import copy
from functools import partial
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sact_det.benchmark.networks import DensePart
from sact_det.benchmark.rivals import RIVALS, Maker, Rival, TorchRival, build_rivals
from sact_det.benchmark.setting import Setting
from sact_det.benchmark.timing import Candidate, Spread, interleaved_times
from sact_det.detection.roi_heads import Block4Head

_TRIALS = 5


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

    Attributes:
        remarks: what ran regions of a shape, and in what time, a line for each shape.
    """

    def __init__(self, head: Block4Head, setting: Setting):
        super().__init__()
        self.part = DensePart(head.block4.units)
        self.postnorm = copy.deepcopy(head.postnorm)
        self._setting = setting
        self._chosen: dict[torch.Size, Rival] = {}
        self.remarks: list[str] = []

    def forward(self, regions: Tensor, by_image: Optional[Sequence[int]] = None) -> Tensor:
        """Block4Head.forward, but nothing is entered into a ledger."""
        if len(regions) == 0:
            return F.relu(self.postnorm(self.part(regions)))
        if regions.shape not in self._chosen:
            self._chosen[regions.shape] = self._fastest(regions)
        return F.relu(self.postnorm(_run(self._chosen[regions.shape], regions)))

    def _fastest(self, regions: Tensor) -> Rival:
        rivals, _, _ = build_rivals(self.part, regions, self._setting, list(HEADS), HEADS)
        candidates = [Candidate(rival.name, partial(_run, rival), lambda: regions) for rival in rivals]
        times = interleaved_times(candidates, _TRIALS, device=regions.device)
        medians = {name: Spread.of(seconds).median for name, seconds in times.items()}
        rivals.sort(key=lambda rival: medians[rival.name])
        in_order = ", ".join(f"{rival.name} ({1e3 * medians[rival.name]:.1f} ms)" for rival in rivals)
        self.remarks.append(f"Rivals' block 4 at {'x'.join(map(str, regions.shape))}, fastest first: {in_order}")
        return rivals[0]


def _run(rival: Rival, regions: Tensor) -> Tensor:
    return rival.forward(rival.convert(regions)).to(regions.device, torch.float32)
