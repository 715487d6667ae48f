"""One detector at several budgets beside static ones, its weights loaded once: rows are evaluations' at each budget."""

import json
import shutil
from pathlib import Path

import pytest
from coco_folder import write_coco_folder
from command_lines import error_line, load_tool
from random_detector import write_random_detector

from sact_det.benchmark import dataset
from sact_det.benchmark.trained import load_detector
from sact_det.budget import FILE_NAME
from sact_det.budget.table import BudgetPoint, BudgetTable, weights_digest
from sact_det.detection.trainer import DetectionTrainer
from sact_det.tasks import load_config

TINY = Path(__file__).parents[2] / "configs/tests/tiny.yaml"
POINTS = (
    BudgetPoint(0.4, {"block2": 9.0, "block3": 9.0, "block4": 9.0}, 0.4, scale=0.5),
    BudgetPoint(0.8, {"block2": -9.0, "block3": -1.0, "block4": 0.0}, 0.8),
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The words of a command line for a plain and a calibrated SACT detector with random weights; and their folder."""
    root = tmp_path_factory.mktemp("toy")
    files = write_coco_folder(root, num_images=3)
    for name, halting in (("sact", "sact"), ("plain", "none")):
        config = root / f"{name}.yaml"
        config.write_text(
            f'_BASE_: "{TINY}"\nMODEL: {{SACT: {{HALTING: "{halting}"}}}}\n'
            f'DATASETS: {{COCO_FORMAT: [["toy", "{files[0]}", "{files[1]}"]], TEST: ["toy"]}}\n'
        )
        weights = write_random_detector(root / f"{name}.pth", str(config))
    detector = load_detector(load_config(str(root / "sact.yaml"), ["MODEL.WEIGHTS", str(root / "sact.pth")]))
    BudgetTable(weights_digest(detector), "detector", 0.1, POINTS).write(root / FILE_NAME)
    few = ["--rivals", "none", "--rounds", "1", "--warmup", "0", "--threads", "1", "--max-images", "1", "--quiet"]
    plain = ["--plain", str(root / "plain.yaml"), str(weights), "--proposals", "20", "--scales", "1"]
    main = ["--config-file", str(root / "sact.yaml"), "MODEL.WEIGHTS", str(root / "sact.pth"), "--dataset", "toy"]
    return ["detector", *few, *plain, *main], root


def test_rows_are_those_of_evaluations_at_each_budget(toy, tmp_path, monkeypatch):
    words, root = toy
    loaded = []
    monkeypatch.setattr(dataset, "load_detector", lambda cfg: loaded.append(cfg) or load_detector(cfg))
    files = ["--json", str(tmp_path / "numbers.json"), "--plot", str(tmp_path / "figure.png")]
    load_tool("benchmark").main([*words, "--budgets", "0.4", "0.8", "1", "--label", "SACT", *files])
    (table,) = json.loads((tmp_path / "numbers.json").read_text())["tables"]
    rows = table["rows"][1:]
    assert [(row["name"], row["line"], row["budget"]) for row in rows] == [
        ("SACT at 0.4", "SACT", 0.4),
        ("SACT at 0.8", "SACT", 0.8),
        ("SACT at 1", "SACT", 1.0),
    ]
    assert len(loaded) == 1 and table["finished"]
    for row in rows:
        own = ["MODEL.SACT.BUDGET", str(row["budget"]), "MODEL.WEIGHTS", str(root / "sact.pth")]
        cfg = load_config(str(root / "sact.yaml"), [*own, "OUTPUT_DIR", str(tmp_path / row["name"])])
        results = DetectionTrainer.test(cfg, load_detector(cfg))
        assert row["AP"] == pytest.approx(results["bbox"]["AP"])
        assert row["gflops"] == pytest.approx(results["ponder"]["detector_gflops"])
    assert rows[0]["gflops"] < rows[1]["gflops"] < rows[2]["gflops"]
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--budgets", "0"], "--budgets must be a share of the plain network's FLOPs, in (0, 1]; got 0.0"),
        (["--budgets", "nan"], "--budgets must be a share of the plain network's FLOPs, in (0, 1]; got nan"),
        (["--budgets", "0.5", "0.5"], "--budgets must differ; got 0.5 0.5"),
        (["--budgets", "0.4", "--adaptive", "sact.yaml", "other.pth"], "two detectors are called 'sact'"),
        (["--budgets", "0.5", "--budget", "0.4"], "--budgets and --budget: give one of them"),
        (["--budgets", "0.5", "MODEL.SACT.HALTING", "none"], "MODEL.SACT.BUDGET 0.5 needs a network that halts"),
        (
            ["--budgets", "0.5", "MODEL.WEIGHTS", "elsewhere/sact.pth"],
            f"elsewhere/{FILE_NAME}: no such file",
        ),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(toy, more, line, capsys, monkeypatch):
    words, root = toy
    monkeypatch.chdir(root)
    (root / "elsewhere").mkdir(exist_ok=True)
    shutil.copy(root / "sact.pth", root / "elsewhere")
    assert line in error_line(capsys, load_tool("benchmark").main, [*words, *more])
