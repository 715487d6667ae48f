#!/usr/bin/env python
r"""Gathers finished trainings into one json and prints their table: means and
deviations over seeds.

    python tools/collect_results.py --output docs/results/bccd.json \
        --title "BCCD, 72 test photographs" \
        --row "ResNet-50" output/bccd_plain_R_50_C4/seed_* \
        --row "SACT, tau 0.005" output/bccd_sact_R_50_C4_tau_0.005/seed_*

Every row is a network, every folder after its name the OUTPUT_DIR of one
training of it. `--classes cat dog` adds the mean AP of these classes of a
detector's data set. tools/plot_results.py draws what is in the json.
"""

import argparse
import os
from pathlib import Path
from typing import Any, Optional, Sequence

import torch
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.base.files import write_json
from sact_det.base.processes import command_line
from sact_det.benchmark.machine import describe_machine
from sact_det.detection.class_ap import KEY, mean_over_classes
from sact_det.experiments.results_file import check_rows, check_run
from sact_det.experiments.runs import read_run
from sact_det.experiments.table import results_table
from sact_det.pictures.canvas import printable


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="JSON", help="file to write; replaced if it exists")
    parser.add_argument("--title", required=True, help="what the results are of")
    parser.add_argument(
        "--row",
        nargs="+",
        action="append",
        required=True,
        metavar=("NAME", "DIR"),
        help="a network and the folders of its trainings; once for every row",
    )
    parser.add_argument("--classes", nargs="+", metavar="NAME", default=[], help="whose mean AP is told, too")
    return parser.parse_args(argv)


def collect(title: str, rows: Sequence[Sequence[str]], classes: Sequence[str] = ()) -> dict[str, Any]:
    """The content of the json: title, data set, machine and rows of runs. Raises InputError."""
    for name, *folders in rows:
        if not folders:
            raise InputError(f"--row {name!r}: names no folder")
        if len({os.path.realpath(folder) for folder in folders}) < len(folders):
            raise InputError(f"--row {name!r}: names a folder twice; every folder is a training of its own")
    every = tqdm([folder for _, *folders in rows for folder in folders], unit="run", disable=None)
    found = {folder: _checked_run(folder, classes) for folder in every}  # with a bar where stderr is a terminal
    gathered: list[dict[str, Any]] = []
    for name, *folders in rows:
        runs = [{"folder": folder, **found[folder]} for folder in folders]
        gathered.append({"name": printable(name), "runs": sorted(runs, key=lambda run: run["seed"])})
    datasets = {run["dataset"] for row in gathered for run in row["runs"]}
    if len(datasets) > 1:
        raise InputError(f"--row: evaluated on different data sets ({', '.join(sorted(datasets))})")
    results = {
        "title": printable(title),
        "dataset": datasets.pop(),
        **({"classes": list(classes)} if classes else {}),
        "machine": describe_machine(torch.device("cpu")),
        "rows": gathered,
    }
    check_rows(results)
    return results


def _checked_run(folder: str, classes: Sequence[str]) -> dict[str, Any]:
    run = read_run(folder)
    if classes:
        if "bbox" not in run["results"]:
            raise InputError(f"--classes: {folder} is no detector's")
        run["results"]["bbox"][KEY] = mean_over_classes(run["results"]["bbox"], classes)
    check_run(folder, run)
    return run


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    results = collect(args.title, args.row, args.classes)
    table = results_table(results["rows"])
    write_json(Path(args.output), results)
    print(table)


if __name__ == "__main__":
    main()
