"""The report of real trainings: what is on the page is what the runs and the networks say."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cat2000_folder import write_cat2000_folder
from coco_folder import TINY, write_coco_folder
from command_lines import ROOT, error_line, load_tool
from labelled_folders import write_class_folders

from sact_det.budget import BudgetPoint, BudgetTable, weights_digest
from sact_det.classification.predictor import ClassPredictor
from sact_det.data.image_files import read_checked
from sact_det.detection.predictor import Predictor
from sact_det.report.packing import PackedMap, unpack_map
from sact_det.tasks import load_config
from saliency.cat2000 import read_cat2000

pytestmark = pytest.mark.usefixtures("own_loggers")

tool = load_tool("report")


def train(config, files, output, halting):
    kind = "CLASSIFICATION" if "classifier" in config else "COCO_FORMAT"
    arguments = [
        *("--config-file", config, f"DATASETS.{kind}", str([("toy", *files)]), "DATASETS.TRAIN", "('toy',)"),
        *("DATASETS.TEST", "('toy',)", "MODEL.SACT.HALTING", halting, "SOLVER.MAX_ITER", "21", "SEED", "0"),
        *("OUTPUT_DIR", str(output)),
    ]
    torch.manual_seed(0)
    train_net = load_tool("train_net")
    train_net.main(train_net.parse_args(arguments))


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    """A folder with toy_plain, toy_sact/seed_0 and seed_1, and what was not finished."""
    root = tmp_path_factory.mktemp("detectors")
    (root / "data").mkdir()
    files = write_coco_folder(root / "data", num_images=4)
    train(TINY, files, root / "toy_plain", "none")
    train(TINY, files, root / "toy_sact/seed_0", "sact")
    shutil.copytree(root / "toy_sact/seed_0", root / "toy_sact/seed_1")  # as if another seed had found the same
    config = root / "toy_sact/seed_1/config.yaml"
    config.write_text(config.read_text().replace("SEED: 0", "SEED: 1"))
    shutil.copytree(root / "toy_plain", root / "toy_unfinished")
    (root / "toy_unfinished/model_final.pth").unlink()
    return root


def make(*arguments):
    tool.main([str(argument) for argument in arguments])
    return Path(arguments[-1]).read_text()


def scripts(text, name):
    return [json.loads(found) for found in re.findall(rf'class="{name}">(.*?)</script>', text)]


def cells(text):
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    return [re.sub(r"</t[hd]>", "|", row).replace("</th>", "").split("|")[:-1] for row in rows]


@pytest.fixture(scope="module")
def report(detectors):
    return make(detectors, "--max-images", 3, "--output", detectors / "report.html")


def test_the_table_has_what_the_evaluation_found(report, detectors):
    heads, *rows = ([re.sub("<.*?>", "", cell) for cell in row] for row in cells(report))
    (plain,) = (dict(zip(heads, row)) for row in rows if row[0] == "plain")
    results = json.loads((detectors / "toy_plain/inference/results.json").read_text())["toy"]
    assert plain["AP"] == f"{results['bbox']['AP']:.2f}" and plain["FLOPs (%)"] == "100.0"
    assert plain["whole detector (%)"] == "100.0" and float(plain["ms an image"]) >= 0
    (sact,) = (dict(zip(heads, row)) for row in rows if row[0] == "sact")
    assert sact["seeds"] == "2" and "±" in sact["FLOPs (%)"]
    assert len(rows) == 2 and "unfinished" not in report


def test_the_gallery_has_the_maps_boxes_and_numbers_of_the_network(report, detectors):
    (about,) = scripts(report, "about")
    assert [view["network"] for view in about["views"]] == ["sact", "plain"]
    assert len(about["items"]) == len(scripts(report, "payload")) == 3
    run = detectors / "toy_sact/seed_0"
    cfg = load_config(str(run / "config.yaml"), ["MODEL.WEIGHTS", str(run / "model_final.pth")])
    predictor = Predictor(cfg)
    for item, payload in zip(about["items"], scripts(report, "payload")):
        image = read_checked(next((detectors / "data").rglob(item["name"])), "RGB")
        prediction = predictor(image[:, :, ::-1])
        sact, plain = payload["views"]
        blocks = [block.ponder_cost[0].numpy() for block in prediction.ponder.blocks.values()]
        for packed, cost in zip(sact["maps"], blocks, strict=True):
            assert np.abs(unpack_map(PackedMap(*packed)) - cost).max() <= 0.00051
        assert plain["maps"] == []
        assert item["numbers"][0][0] == pytest.approx(prediction.numbers["mean_ponder_cost"], abs=1e-4)
        assert item["numbers"][1][1] == pytest.approx(100)
        scores = [round(score, 3) for score in prediction.instances.scores.tolist() if score >= 0.05][:50]
        assert [box[5] for box in sact["boxes"]] == pytest.approx(scores, abs=2e-3)
        assert len(payload["truth"]) == 2


def test_without_galleries_no_network_looks_at_an_image(detectors, tmp_path, monkeypatch):
    monkeypatch.setattr("sact_det.report.detector.Predictor", None)
    text = make(detectors, "--max-images", 0, "--output", tmp_path / "report.html")
    assert scripts(text, "payload") == [] and "ms an image" not in text and "Units in block1" in text


def test_classifiers_have_a_gallery_with_their_classes(tmp_path):
    data = write_class_folders(tmp_path / "data", per_class=2)
    train(str(ROOT / "configs/tests/tiny_classifier.yaml"), [data], tmp_path / "net", "sact")
    text = make(tmp_path / "net", "--output", tmp_path / "report.html")
    (about,) = scripts(text, "about")
    assert about["classes"] == ["apple", "leaf", "sky"] and not about["scored"]
    assert [item["labels"] for item in about["items"]] == [[0], [0], [1], [1], [2], [2]]
    for item in about["items"]:
        name, verdict = re.fullmatch(r"(\w+) \d+% \((.*)\)", item["captions"][0]).groups()
        truth = about["classes"][item["labels"][0]]
        assert verdict == ("right" if name == truth else f"wrong, it is {truth}")
    calibrated = shutil.copytree(tmp_path / "net", tmp_path / "calibrated")
    cfg = load_config(
        str(calibrated / "config.yaml"), ["MODEL.WEIGHTS", str(calibrated / "model_final.pth")], data=False
    )
    model = ClassPredictor(cfg).model
    points = [  # everything halts early, nothing does
        BudgetPoint(budget, dict.fromkeys(("block2", "block3"), shift), budget)
        for budget, shift in ((0.5, 1e6), (0.9, -1e6))
    ]
    BudgetTable(weights_digest(model), "network", 0.3, tuple(points)).write(calibrated / "budget.json")
    text = make(calibrated, "--output", tmp_path / "report.html")
    (budgeted,) = scripts(text, "about")
    assert [view["budget"] for view in budgeted["views"]] == [0.5, 0.9, None]
    for item, before in zip(budgeted["items"], about["items"]):
        assert item["numbers"][2] == pytest.approx(before["numbers"][0])
        assert item["numbers"][0][1] < item["numbers"][1][1]  # FLOPs


def test_a_sweep_is_figure_7(tmp_path):
    pairs = [
        {"model": model, "size": size, "dataset": "toy", "summary": summary}
        for model, share in (("plain", 1.0), ("SACT", 0.7))
        for size in (128, 160)
        for summary in [{"flops": share * 1e5 * size**2, "flops_std": 0.0, "accuracy": size / 200, "images": 10}]
    ]
    (tmp_path / "figure7").mkdir()
    (tmp_path / "figure7/results.json").write_text(json.dumps({"dataset": "toy", "pairs": pairs}))
    text = make(tmp_path / "figure7", "--output", tmp_path / "report.html")
    assert "SACT: 2 points from (1.147, 64) to (1.792, 80)" in text
    assert "<title>SACT: 128</title>" in text and "80.00" in text


def test_a_benchmark_is_ap_against_seconds(tmp_path):
    row = {"programs": "openvino", "time_ratio": {"median": 1.0}, "flops_percent": 100.0, "weights": ""}
    rows = [
        {**row, "name": "plain, 60", "line": "plain", "AP": 30.0, "s": {"median": 0.2}},
        {**row, "name": "plain, 30", "line": "plain", "AP": 29.0, "s": {"median": 0.15}},
        {**row, "name": "SACT", "line": "SACT", "AP": 31.0, "s": {"median": 0.125}},
    ]
    (tmp_path / "times.json").write_text(json.dumps({"tables": [{"title": "Detectors", "rows": rows}]}))
    text = make(tmp_path / "times.json", "--output", tmp_path / "report.html")
    assert "plain: 2 points from (150, 29) to (200, 30)" in text and "SACT: 1 points from (125, 31)" in text


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("missing", "missing: no such file or folder; expected the OUTPUT_DIR of a finished training"),
        ("empty", "empty: nothing to report; expected the OUTPUT_DIR of a finished training"),
        ("notes.json", "notes.json: nothing to report; expected the OUTPUT_DIR of a finished training"),
    ],
)
def test_what_is_no_run_is_one_line(argument, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("notes.json").write_text("{}")
    assert error_line(capsys, tool.main, [argument, "--output", "report.html"]).startswith(message)
    assert not Path("report.html").exists()


def test_a_training_that_is_named_and_not_finished_is_one_line(detectors, tmp_path, capsys):
    arguments = [str(detectors / "toy_unfinished"), "--output", str(tmp_path / "report.html")]
    assert "the training is not finished" in error_line(capsys, tool.main, arguments)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--output", "report.pdf"], "--output must end in .html; got report.pdf"),
        (["--output", "a.html", "--max-images", "-1"], "--max-images must not be negative; got -1"),
    ],
)
def test_arguments_out_of_range_are_one_line(more, message, tmp_path, capsys):
    assert error_line(capsys, tool.main, [str(tmp_path), *more]) == message


def test_an_evaluation_of_saliency_is_table_2_with_its_galleries(tmp_path):
    root = write_cat2000_folder(tmp_path / "set")
    dataset = read_cat2000(root)
    for image in dataset:
        path = tmp_path / "maps" / f"{image.name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, image.fixations.counts().astype(np.float32))
    arguments = ["--dataset", root, "--output", tmp_path / "saliency", "--maps", "near people", tmp_path / "maps"]
    more = ["--sigmas", 0, 2, "--multipliers", 0, 1, "--processes", 1]
    load_tool("evaluate_saliency").main([str(argument) for argument in (*arguments, *more)])
    results = json.loads((tmp_path / "saliency/results.json").read_text())
    text = make(tmp_path / "saliency", "--output", tmp_path / "report.html")
    heads, *rows = ([re.sub("<.*?>", "", cell) for cell in row] for row in cells(text))
    assert heads[1] == "AUC-Judd" and len(rows) == len(results["rows"])
    for row, found in zip(rows, results["rows"]):
        assert row[0] == f"{found['model']}, {found['map']}"
        assert row[1].startswith(f"{found['overall']['auc_judd']['mean']:.4f} [")
    (about,) = scripts(text, "about")
    assert len(about["items"]) == results["scored_images"] and "best" in about["classes"]
    scores = [item["numbers"][0][0] for item in about["items"]]
    last = results["rows"][-1]["overall"]["auc_judd"]["mean"]
    assert scores == sorted(scores, reverse=True) and np.mean(scores) == pytest.approx(last)
    payload = scripts(text, "payload")[0]
    shown = [unpack_map(PackedMap(*packed)) for packed in payload["views"][0]["maps"]]
    image = next(image for image in dataset if image.name == about["items"][0]["name"])
    scale = max(image.shape) / max(shown[0].shape)
    assert shown[0].shape == tuple(round(side / scale) for side in image.shape)
    assert shown[1].max() == pytest.approx(1, abs=0.02)


def test_an_evaluation_that_something_else_wrote_is_one_line(tmp_path, capsys):
    (tmp_path / "saliency").mkdir()
    (tmp_path / "saliency/results.json").write_text('{"scored_images": 3}')
    arguments = [str(tmp_path / "saliency"), "--output", str(tmp_path / "report.html")]
    assert "results.json: not as tools/evaluate_saliency.py writes it" in error_line(capsys, tool.main, arguments)


def test_seconds_of_the_benchmark_stand_in_the_table_where_it_timed_every_network(detectors, tmp_path):
    row = {"line": "", "programs": "", "time_ratio": {"median": 1.0}, "flops_percent": 100.0, "AP": 30.0}
    rows = [
        {**row, "name": name, "s": {"median": s}, "weights": str(detectors / f"{folder}/model_final.pth")}
        for name, folder, s in (("plain", "toy_plain", 0.2), ("SACT", "toy_sact/seed_0", 0.123))
    ]
    for number, part in enumerate((rows, rows[:1])):
        (tmp_path / f"times_{number}.json").write_text(json.dumps({"tables": [{"title": "Detectors", "rows": part}]}))
        inputs = (detectors, tmp_path / f"times_{number}.json")
        text = make(*inputs, "--max-images", 0, "--output", tmp_path / "report.html")
        assert ("measured by tools/benchmark.py (times_0.json)" in text) == (len(part) == 2)
        assert ("<td>123</td>" in text) == (len(part) == 2)
