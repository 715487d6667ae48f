"""Stage "waits": how often the host waits for the device in an inference and in a training step."""

import warnings
from collections import Counter
from typing import Any, Callable

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sact_det import build_classifier
from sact_det.benchmark.gpu.stage import Machine, Report
from sact_det.benchmark.random_networks import noise, randomize

# Operations that read a value of a tensor, or a number of values, into the host's memory.
READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "bincount")
# Functions that do so without an operation where the tensor is on a CPU, or that make tensors of Python numbers.
CALLS = ("tolist", "numpy", "__array__", "tensor", "as_tensor")


class HostReads(TorchDispatchMode):
    """Counts what would wait for a GPU, on any device: values read by the host, tensors made of Python numbers.

    Attributes:
        counts: name of the operation or function -> how often.
        operations: all operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.operations = 0
        self._calls = _Calls(self.counts)

    def __enter__(self) -> "HostReads":
        self._calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._calls.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        name = function.overloadpacket.__name__
        if name in READS or (name.startswith("index") and _by_mask(args)):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Counts the calls of functions in CALLS by name."""

    def __init__(self, counts: Counter[str]):
        super().__init__()
        self._counts = counts

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in CALLS:
            self._counts[name] += 1
        return function(*args, **(kwargs or {}))


def _by_mask(args: Any) -> bool:
    """Whether an indexing operation's second argument holds a mask, whose length is a matter of values."""
    index = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
    return any(isinstance(part, torch.Tensor) and part.dtype in (torch.bool, torch.uint8) for part in index)


def count_waits(action: Callable[[], Any], device: torch.device) -> dict[str, int]:
    """How often `action` waits, by what it waited for: as CUDA tells, on a CPU as HostReads does.

    Args:
        action: run once before, so that nothing is made for the first time.
        device: where its tensors are.
    """
    action()
    if device.type != "cuda":
        with HostReads() as reads:
            action()
        return dict(reads.counts)
    torch.cuda.synchronize(device)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            action()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    where = Counter(f"{warning.filename.rsplit('/', 1)[-1]}:{warning.lineno}" for warning in caught)
    return dict(where)


def run(machine: Machine, report: Report) -> None:
    """Inference and a training step of a classifier, dense and under the kernels."""
    units, width, size = ((1, 2, 2), 4, (24, 20)) if machine.tiny else ((3, 4, 23), 64, (224, 224))
    model = build_classifier(units=units, base_channels=width, num_classes=7)
    model = randomize(model, noise(2, *size), halting_bias=-1.0).to(machine.device)
    x = noise(2, *size, seed=1).to(machine.device)
    for execution in ("dense", "perforated"):
        with report.part(f"inference, {execution}"), torch.no_grad():
            model.set_execution(execution)
            waits = count_waits(lambda: model.eval()(x), machine.device)
            report.values.setdefault("inference", {})[execution] = waits
    with report.part("a training step"):
        model.set_execution("dense")

        def step() -> None:
            output = model.train()(x)
            (output.logits.mean() + output.ponder.mean_cost().mean()).backward()

        report.note("training", count_waits(step, machine.device))
    if not machine.tiny:
        total = sum(report.values["inference"]["perforated"].values())
        report.check("inference under the kernels does not wait", total == 0, f"{total} waits")
