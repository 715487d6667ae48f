"""The check for GPUs runs: its stages on the CPU, small, and what becomes of a stage that fails."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sact_det.benchmark.gpu.check import run_here, run_stages, summary
from sact_det.benchmark.gpu.stage import Machine, Report, Stage

pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "tools/gpu_check.py"
STAGES = (
    *("facts", "exactness", "speed", "gradients", "training", "waits", "table", "density", "rivals", "detectors"),
)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="tries the script where there is no GPU")
@pytest.mark.parametrize("name", STAGES)
def test_every_stage_runs_to_its_end_and_finds_no_fault(script, name: str, tmp_path: Path):
    stages = {stage.name: stage for stage in script.stages()}
    assert tuple(stages) == STAGES
    run_here(stages[name], Machine(torch.device("cpu"), tmp_path), seconds=120)
    report = json.loads((tmp_path / f"{name}.json").read_text())
    assert report["ended"] and report["faults"] == [], report.get("tracebacks", report["faults"])
    assert name in ("waits", "speed", "table", "rivals", "detectors") or report["checks"]
    assert name in summary([report])


def test_units_are_dense_from_the_share_on_from_which_that_is_faster_throughout():
    from sact_det.benchmark.gpu.density import share_of
    from sact_det.execution.cuda.measured import NOWHERE

    def found(*faster: float) -> dict[float, dict[str, float]]:
        return {share: {"kernels": 1.0, "dense": 0.5 if share in faster else 1.5} for share in (1.0, 0.9, 0.8)}

    assert share_of(found()) == share_of(found(0.9, 0.8)) == NOWHERE
    assert share_of(found(1.0, 0.8)) == 1.0 and share_of(found(1.0, 0.9, 0.8)) == 0.8


def stage(name: str, seconds: float = 0.2) -> Stage:
    return Stage(name, "", least=0.1, limit=seconds, run=lambda machine, report: None)


def command(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_stage_that_crashes_or_hangs_keeps_what_it_had_found_and_the_others_run(tmp_path, monkeypatch):
    monkeypatch.setattr("sact_det.benchmark.gpu.check.GRACE", 0.3)
    code = f"""
import json, os, sys, time
name = sys.argv[sys.argv.index("--stage") + 1]
found = dict(stage=name, ended=name == "good", seconds=0, faults=[], skipped=[], found=7)
open({str(tmp_path)!r} + f"/{{name}}.json", "w").write(json.dumps(found))
if name == "hangs":
    time.sleep(100)
if name == "dies":
    os.abort()
if name == "fails":
    raise SystemExit("no such thing")
"""
    names = ("hangs", "dies", "fails", "good")
    reports = run_stages([stage(name, 1.0) for name in names], command(code), tmp_path, 60, measured=True)
    assert [report["found"] for report in reports] == [7] * 4
    faults = dict(zip(names, ("".join(report["faults"]) for report in reports)))
    assert "did not end within" in faults["hangs"] and "exit code -6" in faults["dies"]
    assert "no such thing" in faults["fails"] and faults["good"] == ""
    assert json.loads((tmp_path / "summary.json").read_text())["stages"] == reports
    assert "no such thing" in (tmp_path / "summary.md").read_text()


def test_stages_for_which_no_time_is_left_are_left_out_and_say_so(tmp_path):
    reports = run_stages([Stage("long", "", 100, 200, lambda *_: None)], command(""), tmp_path, 5, measured=True)
    assert reports[0]["faults"] == [] and "it takes 100" in reports[0]["skipped"][0]


def test_what_fails_within_a_stage_is_a_fault_and_the_rest_goes_on(tmp_path):
    report = Report(tmp_path / "a.json", "a", seconds=5)
    with report.part("first"):
        raise ValueError("broken")
    with report.part("second", least=60) as enough:
        assert not enough
    report.check("equal", 1 == 2, "they differ")
    report.check("equal", 1 == 1, "they differ")
    report.end()
    values = json.loads((tmp_path / "a.json").read_text())
    assert values["faults"] == ["first: ValueError: broken", "equal: they differ"]
    assert "second" in values["skipped"][0] and values["checks"]["equal"] == {"passed": 1, "failed": 1}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--only", "everything"], "--only must name stages"),
        (["--minutes", "0"], "--minutes must be"),
        (["--minutes", "nan"], "--minutes must be"),
        (["--device", "tpu"], "--device must be"),
        (["--device", "cuda:99"], "PyTorch sees no GPU here|this machine has"),
        (["--device", "cpu", "--data", "nowhere"], "no such folder"),
    ],
)
def test_bad_arguments_end_in_one_line(script, arguments, message, tmp_path, capsys):
    import re

    with pytest.raises(SystemExit) as ended:
        script.main([*arguments, "--output", str(tmp_path)])
    assert ended.value.code == 1
    assert re.search(message, capsys.readouterr().err)


def test_every_goal_is_measured_and_said():
    """The extractor at two batches, the box head with half of its regions halted, and what a table says of a goal."""
    from sact_det.benchmark.gpu import speed
    from sact_det.benchmark.networks import PartSettings
    from sact_det.benchmark.report import Entry, Table
    from sact_det.network.resnet_v2 import ResNetV2Spec

    goals = [(case.name, case.precision, *goal) for case, goal in speed.GOALS.items()]
    assert goals == [
        ("extractor, batch 8", "fp16", 0.5, 0.62),
        ("extractor, batch 1", "fp16", 0.5, 0.8),
        ("box head, 300 regions", "fp16", speed.HALVES, 0.6),
    ]
    part = PartSettings(ResNetV2Spec(units=(1, 1, 1, 3), base_channels=4, halting="sact"), 4).build()
    (depths,) = speed.half_halted(part, (5, 128, 8, 6))
    assert depths.shape == (5, 4, 3) and depths.flatten(1).unique(dim=1).flatten().tolist() == [3, 1, 3, 1, 3]

    entries = [Entry("cuda-graph", True), Entry("eager", True), *(
        Entry(f"SACT {ratio}, {way}", False, ratio, wanted_ratio=ratio, execution=way)
        for ratio in (0.5, 1.0) for way in ("dense", "graphs")
    )]  # fmt: skip
    seconds = (2.0, 3.0, 4.0, 1.0, 4.0, 0.1)
    table = Table("", (1,), 1, entries, {entry.name: [time] * 3 for entry, time in zip(entries, seconds)})
    found = SimpleNamespace(values={})
    speed._judge(table, "extractor", 0.5, 0.62, found)
    assert found.values["facts"] == {"extractor": "0.500 of cuda-graph by graphs; the goal is 0.62"}
