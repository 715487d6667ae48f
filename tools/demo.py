#!/usr/bin/env python
"""The whole of it in minutes: makes a data set, trains a plain and a SACT detector, evaluates and times both, draws
pictures, and scores ponder maps against made-up fixations.

    python tools/demo.py        (or: make demo)

Everything goes to output/demo/. An interrupted demo goes on where it stopped; `rm -r output/demo` starts it anew.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

from tabulate import tabulate

from sact_det.base.errors import InputError
from sact_det.base.files import write_json, write_text
from sact_det.base.processes import command_line
from sact_det.base.text_files import read_json
from sact_det.data.demo import make_demo_dataset
from sact_det.data.synthetic_fixations import make_synthetic_fixations

REPOSITORY = Path(__file__).resolve().parents[1]
OUTPUT = Path("output/demo")  # as in configs/demo
IMAGE_SIZE = (144, 176)
MODELS = ("plain", "sact")
PICTURES = 24
FEWER_PROPOSALS = 25  # half of the config's: the plain detector's cheapest way to be fast
RIVALS = ("channels-last", "folded")  # what PyTorch alone can be
SECONDS = OUTPUT / "seconds.json"
FIXATIONS = OUTPUT / "synthetic_fixations"
SALIENCY = {"centre baseline": "stretched", "ponder map": "ponder map", "blurred and with centre": "with centre"}
SYNTHETIC = "SYNTHETIC fixations (nobody looked)"
PROGRESS = re.compile(r"eta: (\S+)\s+iter: (\d+)\s+total_loss: (\S+)")
COLUMNS = {
    "AP": "{AP:.1f}",
    "AP50": "{AP50:.1f}",
    "FLOPs (%)": "{flops_percent:.1f} ± {flops_percent_std:.1f}",
    "of the whole detector": "{detector_flops_percent:.1f} ± {detector_flops_percent_std:.1f}",
    "ms an image, whole detector": "{ms:.1f}",
    "of the plain one's time (%)": "{time_percent:.1f}",
    "units in block 1, 2, 3": "{block1_units:.2f}, {block2_units:.2f}, {block3_units:.2f}",
    "ponder cost inside boxes": "{cost_inside:.2f}",
    "outside": "{cost_outside:.2f}",
    "inside / outside": "{inside_ratio:.3f}",
}


def commands() -> list[tuple[str, list[str]]]:
    """(what it does, arguments of python) of every step after the data set."""

    def train(name: str) -> list[str]:
        return ["tools/train_net.py", "--config-file", f"configs/demo/{name}.yaml", "--resume"]

    images = [str(OUTPUT / f"data/images/val/{number:05d}.png") for number in range(PICTURES)]
    plain, weights = (str(OUTPUT / name / "model_final.pth") for name in MODELS)
    draw = ["tools/visualize.py", "--config-file", "configs/demo/sact.yaml", "--per-block"]
    return [
        ("a plain network learns to detect", train("start")),
        ("the plain network goes on", train("plain")),
        ("from the same start, SACT learns where to stop", train("sact")),
        (
            "whole detectors take turns, image by image",
            [
                *("tools/benchmark.py", "--config-file", "configs/demo/sact.yaml", "--dataset", "demo_val"),
                *("--plain", "configs/demo/plain.yaml", plain, "plain", "--scales", "1"),
                *("--proposals", str(FEWER_PROPOSALS), "--rivals", *RIVALS, "--rounds", "5"),
                *("--json", str(SECONDS), "--quiet", "detector", "MODEL.WEIGHTS", weights),
            ],
        ),
        (
            "detections beside ponder maps",
            [*draw, "--input", *images, "--output", str(OUTPUT / "pictures"), "MODEL.WEIGHTS", weights],
        ),
        (
            "ponder maps against synthetic fixations",
            [
                *("tools/evaluate_saliency.py", "--config-file", "configs/demo/sact.yaml", "--title", SYNTHETIC),
                *("--dataset", str(FIXATIONS), "--output", str(OUTPUT / "synthetic_saliency")),
                *("--image-size", str(max(IMAGE_SIZE)), "--sigmas", "0", "2", "4", "8", "16", "--density-sigma", "4"),
                *("--processes", "1", "MODEL.WEIGHTS", weights),
            ],
        ),
    ]


def make_data() -> None:
    demo_set = make_demo_dataset(OUTPUT / "data", image_size=IMAGE_SIZE)
    make_synthetic_fixations(FIXATIONS, demo_set)


def run(arguments: Sequence[str]) -> None:
    """Runs one step and shows its progress, or, if it fails, all it said."""
    said: list[str] = []
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said.append(line)
                progress = PROGRESS.search(line)
                if progress:
                    eta, iteration, loss = progress.groups()
                    print(f"\r    iteration {int(iteration) + 1:4}, loss {loss}, ETA {eta}   ", end="", flush=True)
        except BaseException:
            process.terminate()
            raise
    print()
    if process.returncode:
        raise InputError(f"{shlex.join(arguments)} failed: {''.join(said[-20:])}")


def read_results(model: str) -> dict[str, Any]:
    results = read_json(OUTPUT / model / "inference/results.json")["demo_val"]
    numbers = {**results["bbox"], **results["ponder"], **seconds(timed()[model])}
    return {**numbers, "inside_ratio": numbers["cost_inside"] / numbers["cost_outside"]}


def timed() -> dict[str, dict[str, Any]]:
    """The benchmark's rows: "plain", plain with "fewer" proposals, and "sact"."""
    (table,) = read_json(SECONDS)["tables"]
    return dict(zip(("plain", "fewer", "sact"), table["rows"]))


def seconds(row: dict[str, Any]) -> dict[str, float]:
    return {"ms": 1e3 * row["s"]["median"], "time_percent": 100 * row["time_ratio"]["median"]}


def rival_line() -> str:
    """The plain detector with fewer proposals, in one line."""
    row = timed()["fewer"]
    numbers = {**row, **seconds(row)}
    return (
        "The plain detector with {proposals} proposals: AP {AP:.1f}, {flops_percent:.1f}% of the whole's FLOPs, "
        "{ms:.1f} ms an image, {time_percent:.1f}% of its time."
    ).format(**numbers)


def saliency_line() -> str:
    """What the saliency step found, in one line."""
    results = read_json(OUTPUT / "synthetic_saliency/results.json")
    found = {row["map"]: row["overall"]["auc_judd"]["mean"] for row in results["rows"]}
    scores = ", ".join(f"{name} {found[stage]:.3f}" for name, stage in SALIENCY.items())
    return (
        f"AUC-Judd on {results['scored_images']} images with SYNTHETIC fixations: {scores}.\n"
        "The fixations were drawn around the digits: this shows that the pipeline works, and nothing about people."
    )


def table(results: dict[str, dict[str, Any]]) -> str:
    rows = [["", *results], *([name, *(form.format(**r) for r in results.values())] for name, form in COLUMNS.items())]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def demo() -> None:
    steps = commands()
    print("[0] digits on photographs", flush=True)
    make_data()
    by_hand = [["tools/demo.py", "--data-only"], *(arguments for _, arguments in steps)]
    write_text(OUTPUT / "commands.sh", "".join(f"python {shlex.join(line)}\n" for line in by_hand))
    for number, (what, arguments) in enumerate(steps, 1):
        print(f"[{number}/{len(steps)}] {what}: {arguments[0]} {arguments[2]}", flush=True)
        run(arguments)
    results = {model: read_results(model) for model in MODELS}
    write_json(OUTPUT / "table.json", results)
    print(f"\n{table(results)}\n\n{results['plain']['images']} validation images; 100% is the plain network.")
    print(rival_line())
    print(saliency_line())
    print(f"Pictures, table.json and commands.sh (the same by hand) are in {OUTPUT}.")


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-only", action="store_true", help="makes the data set and stops")
    args = parser.parse_args(argv)
    os.chdir(REPOSITORY)
    (make_data if args.data_only else demo)()


if __name__ == "__main__":
    main()
