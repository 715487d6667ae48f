"""Execution "compile": dense, and a block is one program that torch.compile has made for the shape of its input."""

import logging
from collections import OrderedDict
from types import FunctionType
from typing import Any, Callable, Hashable, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from sact_det.network.plan import BlockInputs, ExportPlan, PlannedBlock
from sact_det.rule.ponder import BlockPonder

logger = logging.getLogger(__name__)

BACKEND = "inductor"  # of torch.compile
MAX_PROGRAMS = 8  # of a block

Compute = Callable[..., Sequence[Tensor]]


def _compute(block: PlannedBlock, *inputs: object) -> Sequence[Tensor]:
    features, ponder = block.compute(*inputs)  # type: ignore[arg-type]
    return [features, *ponder.tensors()]


def _new_program() -> Compute:
    """A compiled `_compute` of its own: PyTorch limits the programs of one code object, whoever compiles it."""
    own = FunctionType(_compute.__code__.replace(), _compute.__globals__, "compute")
    return torch.compile(own, dynamic=False, backend=BACKEND)


class CompiledPlan(ExportPlan):
    """Dense blocks through torch.compile, in training and inference; none ends early, so that nothing breaks a graph.

    A shape is compiled when it comes for the second time: one that never comes again is not worth the time. A block
    keeps the programs of MAX_PROGRAMS shapes, those used last. Copies and pickles start without any.
    """

    def __init__(self) -> None:
        super().__init__()
        self._programs: OrderedDict[Hashable, Compute] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()

    @override
    def block(self, block: PlannedBlock, inputs: BlockInputs) -> tuple[Tensor, BlockPonder]:
        key = tuple(None if one is None else (one.shape, one.dtype, one.device) for one in inputs)
        if key not in self._programs and not self._comes_again(key):
            return super().block(block, inputs)
        if key not in self._programs:
            self._programs[key] = _new_program()
            x = inputs[0]
            logger.info("torch.compile takes a block at %s", None if x is None else list(x.shape))
            if len(self._programs) > MAX_PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        features, cost, units, flops, distribution = self._programs[key](block, *inputs)
        return features, BlockPonder(cost, units, flops, distribution)

    def _comes_again(self, key: Hashable) -> bool:
        known = key in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > MAX_PROGRAMS:
            self._seen.popitem(last=False)
        return known

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": OrderedDict(), "_seen": OrderedDict()}
