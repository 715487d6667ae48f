"""The 3x3 convolution of an RPN's head on the map of an image."""

from functools import partial
from typing import Any, cast

import torch
from detectron2.layers import Conv2d
from torch import Tensor

from sact_det.benchmark.executions import Executions
from sact_det.benchmark.parts import check_features
from sact_det.benchmark.report import Entry, Table
from sact_det.benchmark.setting import Setting, relative_difference
from sact_det.benchmark.timing import Candidate
from sact_det.detection.rpn_head import SACTRPNHead
from sact_det.rule.flops import conv_flops

LAYOUTS = {"PyTorch, NCHW": torch.contiguous_format, "PyTorch, NHWC": torch.channels_last}


def measure_rpn(title: str, shape: tuple[int, ...], width: int, setting: Setting) -> Table:
    """The convolution under its executions beside PyTorch in either memory format.

    Maps are NCHW for all but the rival that wants rows, as an extractor leaves them for its RPN.

    Args:
        title: of the table.
        shape: [N, C, H, W] of the map.
        width: output channels.
        setting: device, precision, rounds; executions.

    Raises:
        Disagreement: an execution computes something else than PyTorch.
    """
    torch.manual_seed(setting.seed)
    head = SACTRPNHead(in_channels=shape[1], num_anchors=1, conv_dims=[width]).to(setting.device).eval()
    conv, executions = cast(Conv2d, head.conv), Executions(head)
    x = setting.random(*shape).contiguous()
    candidates, entries = [], []

    def take_part(name: str, x: Tensor, execution: str, expected: Tensor) -> None:
        def run(_: Any) -> Tensor:
            with setting.autocast():
                return head.plan.convolve(conv, x)

        executions.choose(execution)
        difference = relative_difference(run(None), expected)
        check_features(name, difference, setting)
        candidates.append(Candidate(name, run, partial(executions.choose, execution)))
        rival = name in LAYOUTS
        entries.append(Entry(name, rival, difference=difference, execution=None if rival else execution))

    with torch.no_grad(), setting.activated():
        expected = conv(x)
        for name, layout in LAYOUTS.items():
            take_part(name, x.contiguous(memory_format=layout), "dense", expected)
        for execution in setting.executions:
            take_part(f"RPN, {execution}", x, execution, expected)
        times = setting.times(candidates, title)
    flops = conv_flops(conv) * shape[0] * shape[2] * shape[3]
    return Table(title, shape, flops, entries, times)
