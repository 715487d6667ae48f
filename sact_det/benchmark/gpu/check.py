"""Runs stages, each in a process of its own with a time limit, and sums up what they found."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional, Sequence

from tabulate import tabulate
from tqdm import tqdm

from sact_det.base.files import write_json, write_text
from sact_det.benchmark.gpu.stage import Machine, Report, Stage

GRACE = 20.0  # seconds beyond its limit in which a stage may still end by itself
LAST_LINES = 5

_FORM = "    |{bar:20}| {n} of at most {total} s"
_MOMENT = 0.5  # seconds between two looks at a stage


def plan(stages: Sequence[Stage], minutes: Optional[float]) -> float:
    """Seconds in all for the stages: the minutes, or, without any, the sum of the limits."""
    return sum(stage.limit for stage in stages) if minutes is None else 60 * minutes


def run_stages(
    stages: Sequence[Stage], command: Sequence[str], output: Path, seconds: float, measured: bool
) -> list[dict[str, Any]]:
    """Runs the stages one after the other as long as there is time.

    Args:
        stages: in order of worth.
        command: of a process that runs one of them; "--stage NAME --seconds S" is added.
        output: the folder for NAME.json and NAME.log.
        seconds: for all of them.
        measured: whether stages that need more time than is left are left out; False: all of them are tiny.

    Returns:
        the stages' reports; summary.json and summary.md in `output` have them, too.
    """
    deadline = time.monotonic() + seconds
    reports: list[dict[str, Any]] = []
    for stage in stages:
        left = deadline - time.monotonic()
        if measured and left < stage.least:
            reason = f"{left:.0f} s were left, it takes {stage.least:.0f}"
            reports.append({"stage": stage.name, "ended": False, "seconds": 0.0, "faults": [], "skipped": [reason]})
        else:
            print(f"{stage.name}: {stage.question}", flush=True)
            reports.append(_run_stage(stage, command, output, min(stage.limit, left) if measured else stage.limit))
            print(f"    {_outcome(reports[-1])}", flush=True)
        write_json(output / "summary.json", {"command": " ".join(command), "stages": reports})
        write_text(output / "summary.md", summary(reports))
    return reports


def _run_stage(stage: Stage, command: Sequence[str], output: Path, seconds: float) -> dict[str, Any]:
    path, log = output / f"{stage.name}.json", output / f"{stage.name}.log"
    path.unlink(missing_ok=True)
    arguments = [*command, "--stage", stage.name, "--seconds", f"{seconds:.0f}"]
    start = time.monotonic()
    with (
        open(log, "wb") as file,
        subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            code = _wait(process, seconds + GRACE)
        finally:  # also when this process is interrupted: nothing of a stage outlives it
            _end_group(process.pid)
    report = _read(path, stage.name)
    if code is None:
        report["faults"].append(f"did not end within {seconds + GRACE:.0f} s")
    elif code != 0 or not report["ended"]:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        report["faults"].append(f"ended with exit code {code}: {' | '.join(lines)}")
    report["seconds"] = round(time.monotonic() - start, 1)
    write_json(path, report)
    return report


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> Optional[int]:
    """The exit code, or None if it has not ended after so long; a bar shows how much of it has passed."""
    start = time.monotonic()
    with tqdm(total=round(seconds), bar_format=_FORM, leave=False, disable=None) as bar:  # silent but on a terminal
        while (passed := time.monotonic() - start) < seconds:
            bar.n = round(passed)
            bar.refresh()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(min(_MOMENT, seconds - passed))
    return None


def _end_group(pid: int) -> None:
    """Ends a process that leads a group, and whatever it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"stage": name, "ended": False, "seconds": 0.0, "faults": [], "skipped": []}


def _outcome(report: dict[str, Any]) -> str:
    faults, skipped = report["faults"], report["skipped"]
    parts = [f"{report['seconds']:.0f} s", f"{len(faults)} faults" if faults else "no fault"]
    return ", ".join(parts + ([f"{len(skipped)} left out"] if skipped else []))


def summary(reports: Sequence[dict[str, Any]]) -> str:
    """All reports in markdown: a table of the stages, then each one's tables, faults and what was left out."""
    rows = [
        [
            report["stage"],
            f"{report['seconds']:.0f}",
            sum(counts["passed"] for counts in report.get("checks", {}).values()),
            len(report["faults"]),
            "yes" if report["ended"] else "no",
        ]
        for report in reports
    ]
    sections = [tabulate(rows, ["stage", "seconds", "checks passed", "faults", "ended"], tablefmt="pipe")]
    for report in reports:
        lines = [f"## {report['stage']}"]
        lines += [f"- fault: {fault}" for fault in report["faults"]]
        lines += [f"- left out: {line}" for line in report["skipped"]]
        lines += [f"- {name}: {value}" for name, value in report.get("facts", {}).items()]
        lines += report.get("tables", [])
        sections.append("\n".join(lines))
    return "\n\n".join(sections) + "\n"


def this_script(*arguments: str) -> list[str]:
    """The command of this program with other arguments."""
    return [sys.executable, str(Path(sys.argv[0]).resolve()), *arguments]


def run_here(stage: Stage, machine: Machine, seconds: float) -> int:
    """Runs a stage in this process and writes its report. Returns 0: what it found is in there."""
    if not stage.tuned:
        os.environ.setdefault("SACT_DET_TUNING", "0")
    report = Report(machine.output / f"{stage.name}.json", stage.name, seconds)
    stage.run(machine, report)
    report.end()
    return 0
