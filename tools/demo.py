#!/usr/bin/env python
"""The whole of it in minutes: makes a data set, trains a plain and a SACT
detector, evaluates and times both, draws pictures, scores ponder maps against
made-up fixations, and puts all of it on one HTML page, whose address it ends
with.

    python tools/demo.py    # or: make demo

Everything goes to output/demo/. An interrupted demo goes on where it stopped;
`rm -r output/demo` starts it anew.
"""

import argparse
import os
import shlex
from pathlib import Path
from typing import Any, Optional, Sequence

from tabulate import tabulate

from sact_det.base.files import write_json, write_text
from sact_det.base.processes import command_line
from sact_det.base.text_files import read_json, read_yaml
from sact_det.data.demo import make_demo_dataset
from sact_det.data.synthetic_fixations import make_synthetic_fixations
from sact_det.experiments.stage import run_stage

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
REPORT = OUTPUT / "report.html"
SHOWN = 100  # images of the report
LOGS = OUTPUT / "logs"
SYNTHETIC = "SYNTHETIC fixations (nobody looked)"
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


def report_command() -> list[str]:
    """Arguments of python that put all of it on one page."""
    title = ["--title", "Where a detector computes: digits on photographs"]
    return ["tools/report.py", str(OUTPUT), "--max-images", str(SHOWN), *title, "--output", str(REPORT)]


def steps_of(arguments: Sequence[str]) -> Optional[int]:
    """How many steps a command trains for; None: it is no training."""
    is_training = arguments[0] == "tools/train_net.py"
    return read_yaml(arguments[2])["SOLVER"]["MAX_ITER"] if is_training else None


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
    steps = [
        ("digits on photographs", ["tools/demo.py", "--data-only"]),
        *commands(),
        ("all of it on one page", report_command()),
    ]
    OUTPUT.mkdir(parents=True, exist_ok=True)
    write_text(OUTPUT / "commands.sh", "".join(f"python {shlex.join(arguments)}\n" for _, arguments in steps))
    print(f"What each of {len(steps)} stages says goes to {LOGS}/.", flush=True)
    for number, (what, arguments) in enumerate(steps, 1):
        run_stage(f"[{number}/{len(steps)}] {what}", arguments, LOGS / f"{number}.txt", steps_of(arguments))
    results = {model: read_results(model) for model in MODELS}
    write_json(OUTPUT / "table.json", results)
    print(f"\n{table(results)}\n\n{results['plain']['images']} validation images; 100% is the plain network.")
    print(rival_line())
    print(saliency_line())
    print(f"Pictures, table.json and commands.sh (the same by hand) are in {OUTPUT}.")
    print(f"Open the report in a browser: {REPORT.resolve().as_uri()}")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-only", action="store_true", help="makes the data set and stops")
    return parser.parse_args(argv)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    os.chdir(REPOSITORY)
    (make_data if args.data_only else demo)()


if __name__ == "__main__":
    main()
