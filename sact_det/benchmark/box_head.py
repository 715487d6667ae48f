"""RoIAlign and block 4 on the regions of an image: the costly part of a C4 detector's box head."""

import time
from dataclasses import replace
from functools import partial
from typing import Callable, Sequence

import torch
from detectron2.layers import ROIAlign
from detectron2.structures import Boxes
from torch import Tensor

from sact_det.benchmark.dense_head import HEADS
from sact_det.benchmark.networks import AdaptivePart, PartSettings, dense_part
from sact_det.benchmark.parts import check_features, own_name
from sact_det.benchmark.regions import random_boxes
from sact_det.benchmark.report import Entry, Table, with_parts
from sact_det.benchmark.rivals import Rival, build_rivals
from sact_det.benchmark.setting import Setting, relative_difference
from sact_det.benchmark.timing import Candidate, synchronize
from sact_det.detection.pooler import RegionPooler
from sact_det.execution import set_execution

BINS = 14  # of a region, along either axis
PARTS = ("RoIAlign", "block 4")


class BoxHead:
    """Crops regions and runs a network on them, and measures how long either takes.

    Args:
        x: the feature map, [1, C, H, W].
        boxes: in pixels.
        stride: of the map.
        device: waited for at the end of every part.
    """

    def __init__(self, x: Tensor, boxes: Boxes, stride: int, device: torch.device):
        self.pooler = RegionPooler(ROIAlign((BINS, BINS), 1 / stride, 0, True))
        self._x, self._boxes, self._device = x, boxes, device

    def regions(self) -> Tensor:
        """What the network reads, [R, C, BINS, BINS]."""
        return self.pooler([self._x], [self._boxes])

    def run(self, network: Callable[[Tensor], Tensor], laps: list[dict[str, float]]) -> Tensor:
        """The network's output; appends the seconds of each of PARTS."""
        start = time.perf_counter()
        regions = self.regions()
        synchronize(self._device)
        between = time.perf_counter()
        y = network(regions)
        synchronize(self._device)
        laps.append(dict(zip(PARTS, (between - start, time.perf_counter() - between))))
        return y


def measure_box_head(
    title: str, settings: PartSettings, size: tuple[int, int], number: int, ratios: Sequence[float], setting: Setting
) -> Table:
    """RoIAlign and block 4 under its executions beside torchvision's RoIAlign and dense rivals.

    Args:
        title: of the table.
        settings: of block 4, whose FLOPs are counted.
        size: of the image, (height, width) in pixels.
        number: of regions, drawn at random.
        ratios: FLOP ratios to prescribe masks for.
        setting: device, precision, rounds and who takes part.

    Raises:
        InputError: a FLOP ratio is out of reach.
        Disagreement: an execution computes something else than the masked dense one.
    """
    part, boxes = settings.build(), Boxes(random_boxes(number, size, setting.seed).to(setting.device))
    rows = setting.random(*settings.input_shape(1, size))
    maps = rows.contiguous(), rows.to(setting.half or torch.float32)  # as extractors leave them
    dense, own = (BoxHead(x, boxes, settings.stride, setting.device) for x in maps)
    laps: dict[str, list[dict[str, float]]] = {}
    entries, candidates = [], []

    def take_part(entry: Entry, run: Callable[..., Tensor], prepare: Callable[[], None] = lambda: None) -> None:
        laps[entry.name] = []
        entries.append(entry)
        candidates.append(Candidate(entry.name, lambda _: run(laps[entry.name]), prepare))

    with torch.no_grad(), setting.activated():
        regions = dense.regions()
        names = [name for name in HEADS if name.partition(",")[0] in setting.rivals]
        rivals, differences, absent = build_rivals(dense_part(part), regions, setting, names, HEADS)
        for rival in rivals:
            entry = Entry(rival.name, True, difference=differences[rival.name])
            take_part(entry, partial(dense.run, partial(_of_rival, rival)))
        part.to(setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        dense_flops = part.dense_flops(regions.shape)
        for ratio, depths in part.masks(regions.shape, ratios, setting.seed).items():
            part.set_up("dense", depths)
            expected = part(regions)[0]
            for execution in setting.executions:
                prepare = partial(_set_up, own, part, execution, depths)
                prepare()
                with setting.autocast():
                    y, (ponder,) = part(own.regions())
                entry = Entry(own_name(ratio, execution), False, int(ponder.flops.sum()) / dense_flops)
                difference = relative_difference(y, expected)
                check_features(entry.name, difference, setting)
                run = partial(own.run, partial(_of_part, part, setting))
                take_part(replace(entry, difference=difference, wanted_ratio=ratio, execution=execution), run, prepare)
        times = setting.times(candidates, title)
    entries = [with_parts(entry, laps[entry.name][-setting.rounds :]) for entry in entries]
    return Table(title, regions.shape, dense_flops, entries, times, absent)


def _set_up(head: BoxHead, part: AdaptivePart, execution: str, depths: Sequence[Tensor]) -> None:
    set_execution(head.pooler, execution)
    part.set_up(execution, depths)


def _of_rival(rival: Rival, regions: Tensor) -> Tensor:
    return rival.forward(rival.convert(regions))


def _of_part(part: AdaptivePart, setting: Setting, regions: Tensor) -> Tensor:
    with setting.autocast():
        return part(regions)[0]
