"""RoIAlign and block 4 on the regions of an image: the costly part of a C4 detector's box head."""

import time
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, Callable, Optional, Sequence

import torch
from detectron2.layers import ROIAlign
from detectron2.structures import Boxes
from torch import Tensor, nn

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
from sact_det.network.unit import SplitUnit
from sact_det.rule.ponder import BlockPonder

BINS = 14  # of a region, along either axis
ON_MAP = "products on the map"  # BOX_HEAD_MAP_PRODUCTS


class BoxHead:
    """Crops regions and runs a network on them, and measures how long either takes.

    Args:
        x: the feature map, [1, C, H, W].
        boxes: in pixels.
        stride: of the map.
        device: waited for at the end of every part.
        unit: whose products are made on the map, and pooled in its place; None: the map itself is pooled.
    """

    def __init__(self, x: Tensor, boxes: Boxes, stride: int, device: torch.device, unit: Optional[SplitUnit] = None):
        steps = (1,) if unit is None else (1, unit.stride)
        self.poolers = nn.ModuleList([RegionPooler(ROIAlign((BINS, BINS), 1 / stride, 0, True), step=n) for n in steps])
        self._x, self._boxes, self._device, self._unit = x, boxes, device, unit

    def pooled(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The regions of each map: [R, C, BINS, BINS], or those that a block reads and adds to its first unit."""
        return [pooler([x], [self._boxes]) for pooler, x in zip(self.poolers, maps)]

    def regions(self) -> list[Tensor]:
        """What the network reads."""
        return self.pooled([self._x] if self._unit is None else self._unit.products(self._x))

    def run(self, network: Callable[..., Tensor], laps: list[dict[str, float]]) -> Tensor:
        """The network's output of the regions; appends the seconds of the products, RoIAlign and block 4."""
        seconds: dict[str, float] = {}

        def timed(name: str, stage: Callable[..., Any], *inputs: Any) -> Any:
            start = time.perf_counter()
            found = stage(*inputs)
            synchronize(self._device)
            seconds[name] = time.perf_counter() - start
            return found

        maps = [self._x] if self._unit is None else timed(ON_MAP, self._unit.products, self._x)
        y = timed("block 4", network, *timed("RoIAlign", self.pooled, maps))
        laps.append(seconds)
        return y


def measure_box_head(
    title: str,
    settings: PartSettings,
    size: tuple[int, int],
    number: int,
    ratios: Sequence[float],
    setting: Setting,
    map_products: bool = False,
) -> Table:
    """RoIAlign and block 4 under its executions beside torchvision's RoIAlign and dense rivals.

    Args:
        title: of the table.
        settings: of block 4, whose FLOPs are counted.
        size: of the image, (height, width) in pixels.
        number: of regions, drawn at random.
        ratios: FLOP ratios to prescribe masks for.
        setting: device, precision, rounds and who takes part.
        map_products: whether block 4 with its first products made on the map takes part, too, with the same masks; its
            FLOP ratio has them.

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
        (regions,) = dense.regions()
        names = [name for name in HEADS if name.partition(",")[0] in setting.rivals]
        rivals, differences, absent = build_rivals(dense_part(part), regions, setting, names, HEADS)
        for rival in rivals:
            entry = Entry(rival.name, True, difference=differences[rival.name])
            take_part(entry, partial(dense.run, partial(_of_rival, rival)))
        part.to(setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        dense_flops, masks = part.dense_flops(regions.shape), part.masks(regions.shape, ratios, setting.seed)
        adaptive = [("", part, dense, own, 0)]
        if map_products:
            part, unit, on_map = _reading_products(settings, maps[0])
            part.to(setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            dense, own = (BoxHead(x, boxes, settings.stride, setting.device, unit) for x in maps)
            adaptive.append((f", {ON_MAP}", part, dense, own, on_map))
        for (ratio, depths), (suffix, part, dense, own, on_map) in product(masks.items(), adaptive):
            part.set_up("dense", depths)
            expected = _features(part, *dense.regions())[0]
            for execution in setting.executions:
                prepare = partial(_set_up, own, part, execution, depths)
                prepare()
                with setting.autocast():
                    y, ponder = _features(part, *own.regions())
                name = own_name(ratio, execution) + suffix
                entry = Entry(name, False, (int(ponder.flops.sum()) + on_map) / dense_flops)
                difference = relative_difference(y, expected)
                check_features(entry.name, difference, setting)
                run = partial(own.run, partial(_of_part, part, setting))
                take_part(replace(entry, difference=difference, wanted_ratio=ratio, execution=execution), run, prepare)
        times = setting.times(candidates, title)
    entries = [with_parts(entry, laps[entry.name][-setting.rounds :]) for entry in entries]
    return Table(title, regions.shape, dense_flops, entries, times, absent)


def _set_up(head: BoxHead, part: AdaptivePart, execution: str, depths: Sequence[Tensor]) -> None:
    set_execution(head.poolers, execution)
    part.set_up(execution, depths)


def _of_rival(rival: Rival, regions: Tensor) -> Any:
    return rival.forward(rival.convert(regions))


def _of_part(part: AdaptivePart, setting: Setting, regions: Tensor, shortcut: Optional[Tensor] = None) -> Tensor:
    with setting.autocast():
        return _features(part, regions, shortcut)[0]


def _features(part: AdaptivePart, regions: Tensor, shortcut: Optional[Tensor] = None) -> tuple[Tensor, BlockPonder]:
    return part.blocks[0](regions, shortcut=shortcut)


def _reading_products(settings: PartSettings, x: Tensor) -> tuple[AdaptivePart, SplitUnit, int]:
    """Block 4 with the same weights that reads products, its first unit, and what the products take on the map x."""
    part = settings.build()
    part.blocks[0].reads_products = True
    unit, number = part.blocks[0].units[0], torch.tensor(x.shape[2] * x.shape[3])
    assert isinstance(unit, SplitUnit)
    return part, unit, int(unit.product_flops(number, number))
