"""What the folder of a finished training says: settings, results, and the units of every block as it went on."""

import math
import statistics
from pathlib import Path
from typing import Any, Sequence, Union

from sact_det.base.errors import InputError
from sact_det.base.files import file_sha256
from sact_det.base.metrics_file import read_course
from sact_det.base.text_files import read_json, read_yaml

_KEYS = {
    "halting": "MODEL.SACT.HALTING",
    "tau": "MODEL.SACT.TAU",
    "units": "MODEL.SACT.UNITS",
    "start": "MODEL.WEIGHTS",
    "seed": "SEED",
    "steps": "SOLVER.MAX_ITER",
    "images_per_step": "SOLVER.IMS_PER_BATCH",
}
_MISSING = "no such file; expected the OUTPUT_DIR of a finished training"


def read_run(folder: Union[str, Path]) -> dict[str, Any]:
    """A run in plain data, from what tools/train_net.py left in its OUTPUT_DIR.

    Returns:
        halting, tau, units, start, seed, steps, images_per_step: of its config;
        seconds_per_step: median over the log's lines;
        memory_mb: the most that the training took (sact_det/engine/peak_memory.py); None: its log does not say;
        dataset, results: of its evaluation, by evaluator, e.g. {"bbox": {...}, "ponder": {...}};
        course: [{"step": 19, "loss": 1.2, "flops_percent": 98.1, "block1": 3.0, ...}, ...], units per block and FLOPs
            over training images;
        weights_sha256: of model_final.pth.

    Raises:
        InputError: the folder lacks a file, or the training or its evaluation is not finished.
    """
    folder = Path(folder)
    config = read_yaml(folder / "config.yaml", _MISSING)
    run = {name: _value(config, key, folder) for name, key in _KEYS.items()}
    evaluated = read_json(folder / "inference" / "results.json", _MISSING)
    if not isinstance(evaluated, dict) or len(evaluated) != 1:
        raise InputError(f"{folder}/inference/results.json: expected the results of one data set")
    ((dataset, results),) = evaluated.items()
    steps = read_course(folder / "metrics.json")
    if not (folder / "model_final.pth").is_file() or not steps:
        raise InputError(f"{folder}: the training is not finished; go on with tools/train_net.py --resume")
    times = [line["time"] for line in steps if "time" in line]
    memory = [line["max_memory_mb"] for line in steps if "max_memory_mb" in line]
    return {
        **run,
        "memory_mb": max(memory, default=None),
        "seconds_per_step": statistics.median(times) if times else None,
        "dataset": dataset,
        "results": results,
        "course": [_course(line) for line in steps],
        "weights_sha256": file_sha256(folder / "model_final.pth"),
    }


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation over runs; of one run, or with a NaN, the deviation is NaN.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("`values`: a mean needs at least one")
    if len(values) < 2 or any(map(math.isnan, values)):
        return statistics.fmean(values), math.nan
    return statistics.fmean(values), statistics.stdev(values)


def mean_text(values: Sequence[float], digits: int) -> str:
    """Mean ± sample standard deviation over runs; of one run the mean alone. Raises ValueError: there are no values."""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.{digits}f}" + ("" if math.isnan(deviation) else f" ± {deviation:.{digits}f}")


def _course(line: dict[str, Any]) -> dict[str, Any]:
    blocks = {
        key.removeprefix("sact/").removesuffix("_units"): value for key, value in line.items() if key.endswith("_units")
    }
    return {
        "step": line["iteration"],
        "loss": line["total_loss"],
        "flops_percent": line.get("sact/flops_percent"),
        **dict(sorted(blocks.items())),
    }


def _value(config: Any, key: str, folder: Path) -> Any:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            raise InputError(f"{folder}/config.yaml: has no {key}")
        config = config[part]
    return config
