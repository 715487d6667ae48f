"""What holds for a whole measurement: device, precision, threads, and who takes part."""

import contextlib
import sys
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, Optional, Sequence, Union

import torch
from torch import Tensor
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.base.precision import float32_switches, switched
from sact_det.benchmark.timing import Candidate, interleaved_times

Outputs = Union[Tensor, Sequence[Tensor]]  # of a network

CPU = torch.device("cpu")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Largest difference between outputs, relative to the largest output, in what still counts as the same computation.
TOLERANCES = {"fp32": 1e-4, "tf32": 2e-2, "bf16": 1e-1, "fp16": 2e-2}


@dataclass(frozen=True)
class Setting:
    """How a measurement is made: the device, the precision, who takes part and how often.

    Attributes:
        device: where everything runs.
        precision: one of PRECISIONS.
        rounds, warmup: timed and untimed rounds.
        seed: of weights, inputs and masks.
        rivals: keys of RIVALS (rivals.py).
        executions: as of sact_det.execution.set_execution.
        progress: whether stderr shows what is going on, with a bar where it is a terminal.
    """

    device: torch.device = CPU
    precision: str = "fp32"
    rounds: int = 7
    warmup: int = 1
    seed: int = 0
    rivals: Sequence[str] = ()
    executions: Sequence[str] = ("dense", "perforated", "auto")
    progress: bool = False

    @property
    def half(self) -> Optional[torch.dtype]:
        """The 16-bit type of the precision, or None."""
        return _HALF.get(self.precision)

    @property
    def tolerance(self) -> float:
        """The largest relative difference (TOLERANCES) between outputs that count as equal."""
        return TOLERANCES[self.precision]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """What networks of ours run under: they keep float32 weights."""
        if self.half is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.half)

    @contextlib.contextmanager
    def activated(self) -> Iterator[None]:
        """float32 products as the precision says: TF32 on CUDA or not, whatever the defaults are."""
        if self.device.type != "cuda":
            yield
            return
        wanted = "tf32" if self.precision == "tf32" else "ieee"
        switches = [
            (owner, name, wanted if name == "fp32_precision" else wanted == "tf32")
            for owner, name in float32_switches("cuda").values()
        ]
        with switched([*switches, (torch.backends.cudnn, "benchmark", True)]):
            yield

    def random(self, *shape: int) -> Tensor:
        """Gaussian noise of the seed, float32, channels last, on the device."""
        noise = torch.randn(*shape, generator=torch.Generator().manual_seed(self.seed))
        return noise.to(self.device).contiguous(memory_format=torch.channels_last)

    def note(self, line: str) -> None:
        """Writes a line on progress to stderr, if progress is shown."""
        if self.progress:
            sys.stderr.write(f"{line}\n")

    def bar(self, steps: Optional[Iterable[Any]] = None, total: Optional[int] = None) -> Any:
        """tqdm's progress bar, where progress is shown on a terminal."""
        return tqdm(steps, total=total, leave=False, disable=not (self.progress and sys.stderr.isatty()))

    def times(self, candidates: Sequence[Candidate], title: str) -> dict[str, list[float]]:
        """Runs the candidates in turns (timing.py). Returns name -> seconds, one number for each timed round."""
        total = (self.rounds + self.warmup) * len(candidates)
        self.note(f"{title}: {len(candidates)} candidates, {self.warmup} + {self.rounds} rounds")
        with self.bar(total=total) as bar:
            tick: Callable[[], Any] = bar.update
            return interleaved_times(candidates, self.rounds, self.warmup, self.device, tick)


def device_of(text: str) -> torch.device:
    """The device that an option --device names. Raises InputError if there is none."""
    try:
        device = torch.device(text)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device must be cpu, cuda or cuda:N; got {text!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {text}: this machine has {torch.cuda.device_count()} GPUs")
    return device


def relative_difference(x: Outputs, reference: Outputs) -> float:
    """The largest absolute difference, relative to the largest absolute value of the reference; of pairs, the most."""
    if not isinstance(x, Tensor):
        assert not isinstance(reference, Tensor)
        return max(relative_difference(*pair) for pair in zip(x, reference, strict=True))
    assert isinstance(reference, Tensor)
    x, reference = x.detach().float(), reference.detach().float()
    return float((x - reference).abs().max() / reference.abs().max().clamp(min=torch.finfo(torch.float32).tiny))
