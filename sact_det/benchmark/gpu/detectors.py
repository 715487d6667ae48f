"""Stage "detectors": the demo on the device, and detectors on voc2012_animals where it is there."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tabulate import tabulate

from sact_det.base.text_files import read_json
from sact_det.benchmark.gpu.stage import Machine, Report, output_of

REPOSITORY = Path(__file__).parents[3]
DEMO_SECONDS = 60.0
STEPS_A_SECOND = 4.0  # of a ResNet-50 detector at 240 pixels: what is planned with
NUMBERS = ("AP", "AP50", "flops_percent")


def run(machine: Machine, report: Report) -> None:
    """Trains, in a folder of its own; notes tables of AP and FLOPs."""
    folder = Path(tempfile.mkdtemp(prefix="detectors-", dir=machine.output))
    report.note("tables", [])
    with report.part("demo", 0 if machine.tiny else DEMO_SECONDS) as enough:
        if enough:
            _demo(folder, machine, report)
    if machine.data is None:
        report.skip("voc2012_animals: --data names no folder")
        return
    with report.part("voc2012_animals", 90) as enough:
        if enough:
            _animals(folder, machine, machine.data, report)


def _tool(folder: Path, report: Report, name: str, *arguments: str) -> None:
    """Runs a tool of the repository in a folder. Raises RuntimeError with its last line if it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    try:
        output_of([sys.executable, str(REPOSITORY / "tools" / name), *arguments], report.left, environment, folder)
    except RuntimeError as error:
        raise RuntimeError(f"{name}: {error}") from error


def _demo(folder: Path, machine: Machine, report: Report) -> None:
    """The demo's three trainings; as a trial of this script, two steps of the first, without an evaluation."""
    from sact_det.data.demo import make_demo_dataset

    counts = {"num_train": 4, "num_val": 2} if machine.tiny else {}
    make_demo_dataset(folder / "output/demo/data", image_size=(144, 176), **counts)
    rows = {}
    few = ["SOLVER.MAX_ITER", "2", "DATASETS.TEST", "()"] if machine.tiny else []
    for name in ("start",) if machine.tiny else ("start", "plain", "sact"):
        config = str(REPOSITORY / f"configs/demo/{name}.yaml")
        _tool(folder, report, "train_net.py", "--config-file", config, "MODEL.DEVICE", str(machine.device), *few)
        rows[name] = _results(folder / "output/demo" / name, "demo_val")
        report.note("demo", rows)
    report.values["tables"].append(_table("demo", rows))


def _animals(folder: Path, machine: Machine, data: Path, report: Report) -> None:
    """Plain and SACT ResNet-50 from ImageNet's blocks 1-3, as many steps as there is time for."""
    weights = folder / "resnet_v2_50.pth"
    source = next(iter(sorted((data / "weights").glob("*50*.npz"))), None)
    if source is None:
        report.skip(f"voc2012_animals: {data / 'weights'} holds no ResNet-50")
        return
    _tool(folder, report, "convert_weights.py", "tf-slim", str(source), str(weights))
    steps = max(100, int(STEPS_A_SECOND * (report.left - 60) / 2))
    annotations = data / "voc2012_animals/annotations"
    sets = [(f"animals_{part}", str(annotations / f"instances_{part}.json"), str(data / "voc2012_animals/images"))
            for part in ("train", "val")]  # fmt: skip
    common = ["DATASETS.COCO_FORMAT", repr(sets), "DATASETS.TRAIN", "('animals_train',)"]
    common += ["DATASETS.TEST", "('animals_val',)", "MODEL.DEVICE", str(machine.device), "MODEL.WEIGHTS", str(weights)]
    common += ["SOLVER.MAX_ITER", str(steps), "SOLVER.STEPS", f"({steps * 3 // 4},)"]
    common += ["MODEL.ROI_HEADS.NUM_CLASSES", "20", "DATALOADER.NUM_WORKERS", "4"]
    rows: dict[str, Any] = {"steps": {"AP": steps}}
    for name, halting in (("plain", "none"), ("SACT, tau 0.005", "sact")):
        config = str(REPOSITORY / "configs/BCCD/Base-BCCD.yaml")
        own = ["MODEL.SACT.HALTING", halting, "OUTPUT_DIR", f"animals_{halting}"]
        own += ["MODEL.SACT.HALTING_NORM", "MovingBN", "MODEL.SACT.EXECUTION", "dense"]
        _tool(folder, report, "train_net.py", "--config-file", config, *common, *own)
        rows[name] = _results(folder / f"animals_{halting}", "animals_val")
        report.note("animals", rows)
    report.values["tables"].append(_table(f"voc2012_animals, {steps} steps", rows))


def _results(folder: Path, dataset: str) -> dict[str, Any]:
    path = folder / "inference/results.json"
    if not path.is_file():
        return {}
    found = read_json(path)[dataset]
    return {**found.get("bbox", {}), **found.get("ponder", {})}


def _table(title: str, rows: dict[str, Any]) -> str:
    cells = [[name, *(row.get(number) for number in NUMBERS)] for name, row in rows.items()]
    return f"\n{title}\n\n{tabulate(cells, ['', *NUMBERS], tablefmt='pipe', floatfmt='.2f')}\n"
