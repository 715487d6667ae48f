"""Peak memory of a run, in a process of its own for each candidate.

On a CPU it is the resident set, which the kernel keeps the peak of, less what Python and the libraries take; the peak
is reset once weights and input are there. On a GPU it is what PyTorch's allocator held.
"""

import dataclasses
import importlib
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import torch

from sact_det.base.errors import InputError
from sact_det.benchmark.networks import PartSettings, dense_part
from sact_det.benchmark.parts import own_name
from sact_det.benchmark.report import MemoryTable
from sact_det.benchmark.rivals import EXPORTED, FOR_CUDA, RIVALS, Unavailable, export_onnx
from sact_det.benchmark.setting import Setting
from sact_det.benchmark.training import RIVALS as TRAINING_RIVALS
from sact_det.benchmark.training import adaptive_step, rival_step, training_part
from sact_det.execution.cpu.library import why_unavailable
from sact_det.execution.release import release_weights
from sact_det.network.resnet_v2 import ResNetV2Spec

RUNS = 2  # what is allocated once, in the first run, counts as well


@dataclass(frozen=True)
class Job:
    """A run whose memory a process of its own measures, as plain values.

    Attributes:
        spec: fields of a ResNetV2Spec.
        size, batch: of the images.
        training: a step of fine-tuning instead of inference.
        rival: key of RIVALS, or None.
        execution, ratio: of ours.
        released: whether ours has let go of the weights that the kernels hold packed (release_weights).
        onnx: path of the exported network, for rivals that read one.
        device, precision, seed: as of Setting.
        threads: of PyTorch.
    """

    spec: dict[str, Any]
    size: tuple[int, int]
    batch: int
    training: bool
    rival: Optional[str] = None
    execution: Optional[str] = None
    ratio: Optional[float] = None
    released: bool = False
    onnx: Optional[str] = None
    device: str = "cpu"
    precision: str = "fp32"
    seed: int = 0
    threads: int = 1


def measure_memory(
    title: str,
    settings: PartSettings,
    size: tuple[int, int],
    batch: int,
    ratios: Sequence[float],
    setting: Setting,
    training: bool = False,
) -> MemoryTable:
    """Peaks of inference, or of a training step, of the extractor and of its dense rivals.

    Args: as of measure_training.
    """
    part = settings.build()
    x = setting.random(*settings.input_shape(batch, size)).cpu()
    for ratio in ratios:
        part.depths_for_ratio(x.shape, ratio, setting.seed)  # out of reach? Better known here than in a child
    peaks: dict[str, dict[str, int]] = {}
    absent: dict[str, str] = {}
    common = Job(
        spec=dataclasses.asdict(settings.spec),
        size=size,
        batch=batch,
        training=training,
        device=str(setting.device),
        precision=setting.precision,
        seed=setting.seed,
        threads=torch.get_num_threads(),
    )
    known = TRAINING_RIVALS if training else tuple(RIVALS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.onnx"
        for name in [name for name in setting.rivals if name in known]:
            job = replace(common, rival=name)
            try:
                if name in EXPORTED:
                    EXPORTED[name].check(setting)
                    if not path.exists():
                        export_onnx(dense_part(part), x, path)
                    job = replace(job, onnx=str(path))
                if name in FOR_CUDA and setting.device.type != "cuda":
                    raise Unavailable("for CUDA only")
            except Unavailable as reason:
                absent[name] = str(reason)
                continue
            peaks[name] = run_child(name, job, setting)
        rivals = list(peaks)
        kernels = setting.device.type == "cpu" and setting.half is None and why_unavailable() is None
        for ratio in ratios:
            for execution in setting.executions:
                name, job = own_name(ratio, execution), replace(common, ratio=ratio, execution=execution)
                peaks[name] = run_child(name, job, setting)
                if execution != "dense" and not training and kernels:
                    name = f"{name}, weights released"
                    peaks[name] = run_child(name, replace(job, released=True), setting)
    return MemoryTable(title, x.shape, peaks, rivals, absent)


def run_child(name: str, job: Job, setting: Setting) -> dict[str, int]:
    """Runs a job in a process of its own.

    Args:
        name: of the candidate, for messages.
        job: what to run.
        setting: shows progress, or does not.

    Returns:
        "empty", "before" and "peak", in bytes, as MemoryTable has them.

    Raises:
        RuntimeError: the process failed; the message ends with what it wrote to stderr.
    """
    setting.note(f"Memory of {name}")
    child = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(dataclasses.asdict(job)),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        raise RuntimeError(f"{name}: the process that was to measure its memory failed:\n{child.stderr}")
    return json.loads(child.stdout.splitlines()[-1])


def build(job: Job, setting: Setting) -> Callable[[], Any]:
    """The run of a job as a function, with everything it needs in memory."""
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in job.spec.items()}
    spec = ResNetV2Spec(**fields)
    settings = PartSettings(spec, seed=job.seed)
    x = setting.random(*settings.input_shape(job.batch, tuple(job.size)))  # type: ignore[arg-type]
    if job.rival is not None and job.onnx is not None:
        rival = EXPORTED[job.rival].load(job.onnx, setting)
        converted = rival.convert(x)
        return lambda: rival.forward(converted)
    part = training_part(settings) if job.training else settings.build()
    if job.rival is not None:
        if job.training:
            return rival_step(job.rival, part.to(setting.device), x, setting)[0]
        rival = RIVALS[job.rival](dense_part(part), x, setting)
        converted = rival.convert(x)
        del part, x
        return lambda: rival.forward(converted)
    assert job.ratio is not None and job.execution is not None
    depths = part.depths_for_ratio(x.shape, job.ratio, job.seed)[0]
    part.to(setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    part.set_up(job.execution, depths)
    if job.released:
        release_weights(part.eval())

    def run() -> None:
        if job.training:
            adaptive_step(part, x, setting)
        else:
            with setting.autocast():
                part(x)

    return run


def measure(job: Job) -> dict[str, int]:
    """Runs a job in this process. Returns its "empty", "before" and "peak", in bytes, as MemoryTable has them."""
    torch.set_num_threads(job.threads)
    setting = Setting(device=torch.device(job.device), precision=job.precision, seed=job.seed)
    with setting.activated(), torch.set_grad_enabled(job.training):
        if job.rival in EXPORTED:
            importlib.import_module(job.rival)
        empty = reset_peak(setting.device)
        run = build(job, setting)
        before = reset_peak(setting.device)
        for _ in range(RUNS):
            run()
        return {"empty": empty, "before": before, "peak": peak(setting.device)}


def reset_peak(device: torch.device) -> int:
    """Starts the count of `peak` anew. Returns the bytes in use.

    Raises:
        InputError: this system does not tell.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError as error:
        raise InputError(f"the peak of the resident set can be measured on Linux only: {error}") from error
    return _status("VmRSS")


def peak(device: torch.device) -> int:
    """The most bytes in use since `reset_peak`: on a GPU of PyTorch's allocations, else of the resident set."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(key: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(rf"^{key}:\s+(\d+) kB", text, re.M)[0]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure(Job(**json.load(sys.stdin)))))
