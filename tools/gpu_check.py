#!/usr/bin/env python
"""Everything that needs a GPU, in one go: is it exact there, does it train,
does it wait, how fast is it.

    python tools/gpu_check.py --minutes 8       # what fits, in order of worth
    python tools/gpu_check.py --only exactness  # one stage, or several
    python tools/gpu_check.py --device cpu      # a try: Triton's interpreter

Every stage runs in a process of its own and writes STAGE.json as it goes;
summary.md and summary.json come last. The exit code is 0 if no stage found a
fault.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Optional, Sequence

import torch

from sact_det.base.errors import InputError
from sact_det.base.files import writable_folder
from sact_det.base.processes import command_line
from sact_det.benchmark.setting import device_of


def stages():
    """All stages, in order of worth."""
    from sact_det.benchmark.gpu import density, detectors, exactness, facts, gradients, speed, steps, table, waits
    from sact_det.benchmark.gpu.stage import Stage

    return [
        Stage("facts", "which card, which versions, what do the kernels take", 10, 90, facts.run),
        Stage("exactness", "does every execution compute what the CPU does", 20, 100, exactness.run),
        Stage("speed", "how fast are extractor, box head and a training step", 60, 300, speed.run, tuned=True),
        Stage("gradients", "are gradients and regions those of dense execution", 15, 120, gradients.run),
        Stage("training", "do steps stay finite and agree in every precision", 20, 120, steps.run),
        Stage("waits", "how often does the host wait for the device", 15, 60, waits.run),
        Stage("table", "where should execution auto leave dense", 60, 300, table.run, tuned=True),
        Stage("density", "from which density should convolutions be dense", 40, 200, density.run, tuned=True),
        Stage("rivals", "how fast beside what compiles for minutes", 120, 900, speed.run_others, tuned=True),
        Stage("detectors", "does a detector learn there", 90, 420, detectors.run),
    ]


def parse_arguments(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="for all stages together; default: what their limits allow")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="these stages")
    parser.add_argument("--device", default="cuda", help="a GPU, as PyTorch names it, or cpu (default: %(default)s)")
    parser.add_argument("--output", default="output/gpu", help="folder of the reports (default: %(default)s)")
    parser.add_argument("--data", help="folder with voc2012_animals and weights, for the stage that trains detectors")
    parser.add_argument("--stage", help=argparse.SUPPRESS)  # runs in this process
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)  # that it may take
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> torch.device:
    """Returns the device. Raises InputError, naming the option, if a value cannot be used."""
    if args.minutes is not None and not 0 < args.minutes < 24 * 60:
        raise InputError(f"--minutes must be a positive number, less than a day; got {args.minutes:g}")
    known = [stage.name for stage in stages()]
    for name in args.only or []:
        if name not in known:
            raise InputError(f"--only must name stages ({', '.join(known)}); got {name!r}")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch sees no GPU here; --device cpu tries the script itself")
    device = device_of(args.device)
    if args.data is not None and not Path(args.data).is_dir():
        raise InputError(f"--data {args.data}: no such folder")
    return device


def run(args: argparse.Namespace) -> int:
    if args.device == "cpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton
    device = check_arguments(args)
    output = writable_folder(args.output)
    if args.stage:
        from sact_det.benchmark.gpu.check import run_here
        from sact_det.benchmark.gpu.stage import Machine

        machine = Machine(device, output.resolve(), None if args.data is None else Path(args.data).resolve())
        return run_here(next(stage for stage in stages() if stage.name == args.stage), machine, args.seconds)
    from sact_det.benchmark.gpu.check import plan, run_stages, this_script

    chosen = [stage for stage in stages() if not args.only or stage.name in args.only]
    options = ["--device", args.device, "--output", args.output, *(["--data", args.data] if args.data else [])]
    reports = run_stages(chosen, this_script(*options), output, plan(chosen, args.minutes), device.type == "cuda")
    print(f"\n{(output / 'summary.md').read_text(encoding='utf-8')}")
    return int(any(report["faults"] for report in reports))


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    sys.exit(run(parse_arguments(argv)))


if __name__ == "__main__":
    main()
