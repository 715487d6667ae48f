"""CUDA graphs of blocks: what a run launches is recorded once per shape of its input, and then launched as one.

A run under the kernels launches the same kernels whatever halts where: lengths of lists stay on the device. Inputs are
copied to where the recording read them, results copied from where it wrote them. A recording holds for the weights that
it was made with, by their addresses.

Shape shorthand in this module:
    N: images, or regions.
"""

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Callable, Hashable, NamedTuple, Optional, Sequence

import torch
from torch import Tensor

from sact_det.base.errors import one_line

logger = logging.getLogger(__name__)

MAX_GRAPHS = 8  # of a block
FEW = 8  # images of a batch up to which a number has graphs of its own
STEPS = 8  # steps from one power of 2 to the next to which other numbers, of regions, are rounded up

Function = Callable[..., Sequence[Tensor]]


class Recording(NamedTuple):
    """What capturing gives.

    Attributes:
        replay: does again what was recorded, with the present values of its inputs.
        outputs: where its results lie afterwards.
        memory: bytes that it holds.
    """

    replay: Callable[[], None]
    outputs: Sequence[Tensor]
    memory: int


Capture = Callable[[Function, Sequence[Optional[Tensor]], torch.device], Recording]


def capture_graph(function: Function, inputs: Sequence[Optional[Tensor]], device: torch.device) -> Recording:
    """Records function(*inputs) in a CUDA graph.

    All graphs of a stream share their memory but for what lies in `inputs` and outputs: they run one after the other.

    Raises:
        RuntimeError: it does what cannot be recorded, such as waiting for the device.
    """
    with torch.cuda.device(device):
        pool = _POOLS.setdefault(torch.cuda.current_stream(), torch.cuda.graph_pool_handle())
        torch.cuda.empty_cache()  # as torch.cuda.graph is about to do
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.memory_reserved()
        with torch.cuda.graph(graph, pool, capture_error_mode="thread_local"):
            outputs = function(*inputs)
        memory = torch.cuda.memory_reserved() - before

    def replay() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return Recording(replay, outputs, memory)


_POOLS: dict[torch.cuda.Stream, Any] = {}


@dataclass
class _Graph:
    inputs: Sequence[Optional[Tensor]]
    recording: Recording
    weights: object  # kept alive: the recording has their addresses


class Graphs:
    """The recordings of one function, by the shapes of its inputs; of more than a few, the least recently used leaves.

    A shape is recorded when it comes for the second time: at first kernels are compiled and tuned, and a shape that
    never comes again is not worth a recording.

    Args:
        capture: records.
        size: how many recordings are kept.
    """

    def __init__(self, capture: Capture = capture_graph, size: int = MAX_GRAPHS):
        self._capture, self._size = capture, size
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._refused: set[Hashable] = set()

    def __call__(
        self, function: Function, inputs: Sequence[Optional[Tensor]], settings: Hashable, weights: object
    ) -> Sequence[Tensor]:
        """function(*inputs), from a recording where there is one; the results are the caller's.

        Args:
            function: of tensors alone, whose inputs and results all begin with N, or are None.
            inputs: the first one decides over the device.
            settings: whatever else decides over what is computed, by value.
            weights: likewise, by identity.
        """
        x = inputs[0]
        assert x is not None
        number, room = len(x), padded_number(len(x))
        kinds = [None if one is None else (one.shape[1:], one.dtype) for one in inputs]
        key = (x.device, room, tuple(kinds), settings)
        graph = self._graphs.get(key)
        if graph is None and (key in self._refused or not self._comes_again(key)):
            return function(*inputs)
        if graph is None or graph.weights is not weights:
            graph = self._record(key, function, inputs, room, weights)
            if graph is None:
                return function(*inputs)
        self._graphs.move_to_end(key)
        _fill(graph.inputs, inputs)
        graph.recording.replay()
        return [output[:number].clone() for output in graph.recording.outputs]

    def clear(self) -> None:
        """Forgets everything."""
        self._graphs.clear()
        self._seen.clear()
        self._refused.clear()

    def __deepcopy__(self, memo: Any) -> "Graphs":
        return Graphs(self._capture, self._size)

    def __reduce__(self) -> Any:
        return Graphs, (self._capture, self._size)

    def _comes_again(self, key: Hashable) -> bool:
        known = key in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > self._size:
            self._seen.popitem(last=False)
        return known

    def _record(
        self, key: Hashable, function: Function, inputs: Sequence[Optional[Tensor]], room: int, weights: object
    ) -> Optional[_Graph]:
        """Records, and lets go of the recording of other weights and of the one that is too many; None: it failed."""
        self._graphs.pop(key, None)
        while len(self._graphs) >= self._size:
            self._graphs.popitem(last=False)
        x = inputs[0]
        assert x is not None
        shape = [room, *x.shape[1:]]
        with torch.inference_mode(False):  # else they could be written in inference mode only
            own = [None if one is None else _room_for(one, room) for one in inputs]
        _fill(own, inputs)
        cached = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(
            False
        )  # it would lend the recording tensors that leave with the caller's block
        try:
            recording = self._capture(function, own, x.device)
        except RuntimeError as error:
            logger.warning("A block at %s runs without a CUDA graph: %s", shape, one_line(error))
            self._refused.add(key)
            return None
        finally:
            torch.set_autocast_cache_enabled(cached)
        graph = self._graphs[key] = _Graph(own, recording, weights)
        logger.info(
            "A block at %s runs as a CUDA graph, which takes %.0f MiB; it has %d, and at most %d",
            *(shape, recording.memory / 2**20, len(self._graphs), self._size),
        )
        return graph


def padded_number(number: int) -> int:
    """To which number a batch is filled up: itself where it is small; regions come in any number."""
    if number <= FEW:
        return number
    step = 2 ** (number - 1).bit_length() // (2 * STEPS)
    return -(-number // step) * step


def _room_for(tensor: Tensor, room: int) -> Tensor:
    """Zeros like a tensor, with place for `room` images; as many images as it has lie in memory as they do there."""
    if len(tensor) == room:
        return torch.zeros_like(tensor)
    return tensor.new_zeros(room, *tensor.shape[1:])


def _fill(own: Sequence[Optional[Tensor]], inputs: Sequence[Optional[Tensor]]) -> None:
    """Copies inputs, and marks what is behind them as nothing; real numbers there are left from another call."""
    for to, one in zip(own, inputs):
        if to is not None and one is not None:
            to[: len(one)].copy_(one)
            if len(one) < len(to) and not to.is_floating_point():
                to[len(one) :].zero_()
