"""What was spent on a batch, written down where it is spent.

    with ledger.open(sizes) as spent:
        features = backbone(images)
    spent["backbone"]                      # PonderRecords, in the order of the calls

A part of a network that runs blocks enters the record of every call: "backbone" a feature extractor, "box_head" blocks
that run on regions. Where no ledger is open nothing is kept. An inner ledger takes what is entered while it is open.

A backward pass that recomputes activations (torch.utils.checkpoint) repeats calls that have been entered before: it
sees the sizes that the forward pass saw, whether or not the ledger is still open, and enters nothing.
"""

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import reduce
from typing import Iterator, Mapping, Optional, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from sact_det.base.recording import is_recomputing, is_recording
from sact_det.rule.padding import Geometry, Sizes, own_sizes
from sact_det.rule.ponder import PonderRecord


@dataclass(frozen=True)
class _Call:
    """What one call of a part entered, and whether autograd recorded it."""

    record: PonderRecord
    regions: Optional[Sequence[int]]
    has_gradient: bool


class Ledger(Mapping[str, list[PonderRecord]]):
    """Part -> its PonderRecords, in the order of the calls. `open` makes one.

    Args:
        sizes: (height, width) of each image of the batch, or None: the images fill it.

    Attributes:
        proposals: how many each image has; None: nobody has said so (`enter_proposals`).
        detections: how many of each image mask and keypoint heads looked at, likewise (`enter_detections`).
    """

    def __init__(self, sizes: Optional[Sizes] = None):
        self.sizes = None if sizes is None else Geometry.of(sizes)
        self.backward_pass = torch._C._current_graph_task_id()
        self.proposals: Optional[Sequence[int]] = None
        self.detections: Optional[Sequence[int]] = None
        self._calls: dict[str, list[_Call]] = {}

    def __getitem__(self, part: str) -> list[PonderRecord]:
        return [call.record for call in self._calls[part]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, part: str, call: _Call) -> None:
        """Enters a call. Raises ValueError if it does not account for each of the images."""
        found, regions = call.record.dense_flops.shape[0], call.regions
        if regions is not None and sum(regions) != found:
            raise ValueError(f"`regions`: {part!r} ran on {found} regions; got {list(regions)}")
        images = found if regions is None else len(regions)
        if self.sizes is not None and images != len(self.sizes):
            raise ValueError(f"the ledger is open for {len(self.sizes)} images; {part!r} ran on {images}")
        self._calls.setdefault(part, []).append(call)

    def cost(self, part: str, weights: Optional[Tensor] = None) -> Tensor:
        """A part's ponder cost (eq. 13), a differentiable scalar: the mean over a call's images or regions.

        Several calls are summed; a call without regions costs nothing.

        Args:
            part: that entered.
            weights: [N], what the cost of each image and its regions is multiplied by; None: 1.

        Raises:
            ValueError: the part entered nothing.
            RuntimeError: gradients are enabled now, but were not when the part ran, as in reentrant checkpointing; the
                cost could not be learned from.
        """
        if part not in self._calls:
            raise ValueError(f"no part of the network entered what {part!r} spent; entered: {list(self)}")
        calls = self._calls[part]
        if torch.is_grad_enabled() and not all(call.has_gradient for call in calls):
            raise RuntimeError(
                f"what {part!r} spent has no gradient: it ran without, under torch.no_grad or in a "
                "torch.utils.checkpoint that is reentrant (use_reentrant=False is not)"
            )
        costs = [call.record.mean_cost() for call in calls]
        if weights is not None:
            costs = [cost * _of_rows(weights, call.regions) for cost, call in zip(costs, calls)]
        return torch.stack([cost.mean() if len(cost) else cost.sum() for cost in costs]).sum()

    def regions(self, part: str) -> Optional[list[int]]:
        """How many regions of each image a part met, in all its calls on regions; None: it runs on images alone."""
        counts = [call.regions for call in self._calls[part] if call.regions is not None]
        return [sum(own) for own in zip(*counts)] if counts else None

    def rejected(self, part: str) -> Tensor:
        """int64 [N]: how many of the regions of `regions` evaluated no unit.

        Raises:
            ValueError: the part runs on images alone.
        """
        calls = [call for call in self._calls[part] if call.regions is not None]
        if not calls:
            raise ValueError(f"{part!r} ran on no regions")
        return reduce(torch.add, [_by_image((call.record.units() == 0).long(), call.regions) for call in calls])

    def units(self, part: str) -> Tensor:
        """float32 [N]: the mean units (PonderRecord.mean_units) of each image's regions and calls, summed."""
        return reduce(torch.add, [_by_image(call.record.mean_units(), call.regions) for call in self._calls[part]])

    def flops(self, part: str) -> Tensor:
        """int64 [N]: what each image took in a part, in all its regions and calls."""
        return reduce(torch.add, [_by_image(call.record.flops, call.regions) for call in self._calls[part]])


_open: ContextVar[Optional[Ledger]] = ContextVar("ledger", default=None)
# Storage of a batch -> (offset, shape) -> where its images end. A recomputation gets the batch itself or an alias.
_seen: WeakKeyDictionary = WeakKeyDictionary()


@contextmanager
def open(sizes: Optional[Sizes] = None) -> Iterator[Ledger]:
    """A ledger for one batch, in this thread.

    Args:
        sizes: (height, width) of each image, top left in the batch, or None: the images fill it.
    """
    ledger = Ledger(sizes)
    token = _open.set(ledger)
    try:
        yield ledger
    finally:
        _open.reset(token)


def enter(part: str, record: PonderRecord, regions: Optional[Sequence[int]] = None) -> None:
    """Enters what a call of a part spent into the open ledger, if there is one.

    Args:
        part: "backbone", "box_head".
        record: of the call, N images; with `regions`, N regions.
        regions: how many regions each image has.

    Raises:
        ValueError: the record is not one of the ledger's images, or not one of so many regions.
    """
    ledger = _current()
    if ledger is not None:
        ledger.add(part, _Call(record, regions, torch.is_grad_enabled()))


def latest(part: str) -> Optional[PonderRecord]:
    """What a part's last call spent, in the open ledger: for parts that run where earlier ones did not halt.

    None: no ledger is open, or the part has entered nothing.
    """
    ledger = _current()
    return ledger[part][-1] if ledger is not None and part in ledger else None


def enter_proposals(counts: Sequence[int]) -> None:
    """Says how many proposals each image of the open ledger has, if there is one: what a box head looks at."""
    ledger = _current()
    if ledger is not None:
        ledger.proposals = list(counts)


def enter_detections(counts: Sequence[int]) -> None:
    """Says how many detections of each image of the open ledger a mask or keypoint head looks at, if there is one."""
    ledger = _current()
    if ledger is not None:
        ledger.detections = list(counts)


def is_read() -> bool:
    """Whether somebody reads what this call spends, or did when a backward pass repeats it."""
    return _current() is not None or is_recomputing()


def sizes_of(batch: Tensor) -> Optional[Geometry]:
    """Where each image of a batch [N, C, H, W] ends; None: they fill it, and so they do where no ledger is open.

    Raises:
        ValueError: the open ledger is one of other images.
    """
    ledger = _current()
    if is_recording():  # which has no backward pass, and may have no storages
        return None if ledger is None else _fitting(ledger, batch)
    key = (batch.storage_offset(), batch.shape)
    if ledger is None:
        return _seen.get(batch.untyped_storage(), {}).get(key) if is_recomputing() else None
    sizes = _fitting(ledger, batch)
    _seen.setdefault(batch.untyped_storage(), {})[key] = sizes
    return sizes


def _current() -> Optional[Ledger]:
    """The open ledger, unless a backward pass repeats what it was opened for."""
    ledger = _open.get()
    if ledger is None or ledger.backward_pass != torch._C._current_graph_task_id():
        return None
    return ledger


def _fitting(ledger: Ledger, batch: Tensor) -> Optional[Geometry]:
    sizes, shape = ledger.sizes, tuple(batch.shape)
    if sizes is None:
        return None
    if not is_recording() and (len(sizes) != shape[0] or any(h > shape[2] or w > shape[3] for h, w in sizes)):
        raise ValueError(f"the ledger is open for images of {list(sizes)}; a batch {list(shape)} needs one of its own")
    return own_sizes(sizes, (batch.shape[2], batch.shape[3]))


def _of_rows(values: Tensor, regions: Optional[Sequence[int]]) -> Tensor:
    """[N] -> [regions], each its image's."""
    return values if regions is None else values.repeat_interleave(torch.tensor(regions, device=values.device))


def _by_image(values: Tensor, regions: Optional[Sequence[int]]) -> Tensor:
    """[regions] -> [N], sums."""
    if regions is None:
        return values
    if len(regions) == 1:
        return values.sum(0, keepdim=True)
    sums = [own.sum() for own in values.split(list(regions))] if len(regions) else []
    return torch.stack(sums) if sums else values.new_zeros(0)
