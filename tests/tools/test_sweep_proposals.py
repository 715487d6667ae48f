"""The sweep over numbers of proposals: every setting has what a real evaluation with it has."""

import json
import math
from pathlib import Path

import pytest
import torch
from coco_folder import write_coco_folder
from command_lines import error_line, load_tool
from random_detector import write_random_detector

from sact_det.detection.loader import build_test_loader
from sact_det.detection.predictor import load_detector
from sact_det.detection.trainer import DetectionTrainer
from sact_det.experiments.proposal_sweep import ProposalSweep, sweep_table
from sact_det.rule import ledger
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")
SETTINGS = {
    "k_300": ("MODEL.RPN.POST_NMS_TOPK_TEST", "300"),
    "k_40": ("MODEL.RPN.POST_NMS_TOPK_TEST", "40"),
    "mass_1": ("MODEL.RPN.POST_NMS_TOPK_TEST", "300"),
    "mass_0.3": ("MODEL.RPN.POST_NMS_TOPK_TEST", "300", "MODEL.SACT.PROPOSAL_MASS", "0.3"),
}

tool = load_tool("sweep_proposals")


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    """Data and a detector whose RPN is sure of some anchors and of others not."""
    folder = tmp_path_factory.mktemp("proposals")
    weights = write_random_detector(folder / "detector.pth", TINY)
    content = torch.load(weights)
    torch.nn.init.normal_(content["model"]["proposal_generator.rpn_head.objectness_logits.weight"], std=2.0)
    torch.save(content, weights)
    data = ["DATASETS.COCO_FORMAT", str([("toy", *write_coco_folder(folder, num_images=3))])]
    few = ["MODEL.RPN.PRE_NMS_TOPK_TEST", "1000", "TEST.DETECTIONS_PER_IMAGE", "20"]
    return [*data, "DATASETS.TEST", "('toy',)", "MODEL.WEIGHTS", weights, *few]


@pytest.fixture(scope="module")
def swept(overrides, tmp_path_factory):
    output = tmp_path_factory.mktemp("swept") / "new"
    numbers = ["--proposals", "40", "300", "40", "--masses", "1", "0.3"]
    tool.main(["--config-file", TINY, *numbers, "--output", str(output), *overrides])
    return output


def read_json(path):
    return json.loads(path.read_text())


@pytest.fixture
def evaluated(overrides):
    """A config and its model, evaluated as tools/train_net.py does."""

    def make(name, folder):
        cfg = load_config(TINY, [*overrides, *SETTINGS[name], "OUTPUT_DIR", str(folder)])
        model = DetectionTrainer.build_model(cfg)
        DetectionTrainer.checkpointer_class(model, evaluate=True).load(cfg.MODEL.WEIGHTS)
        return cfg, model.eval()

    return make


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_has_what_an_evaluation_with_it_has(swept, evaluated, tmp_path, name):
    """Block 4's results on a region do not depend on the others: a real run on fewer agrees."""
    cfg, model = evaluated(name, tmp_path)
    results = DetectionTrainer.test(cfg, model)
    (own,) = (setting for setting in read_json(swept / "results.json")["settings"] if setting["name"] == name)
    assert (own["AP"], own["AP50"]) == (results["bbox"]["AP"], results["bbox"]["AP50"])
    ponder = results["ponder"]
    assert own["regions"] == ponder["regions"] and own["gflops"] == ponder["detector_gflops"]
    assert own["flops_percent"] == ponder["detector_flops_percent"]
    for file in ("coco_instances_results.json", "ponder.json"):
        assert read_json(swept / name / file) == read_json(tmp_path / "inference/toy" / file)
    detections = read_json(swept / name / "coco_instances_results.json")
    assert len(detections) > 10


def test_recall_is_the_share_of_objects_that_some_proposal_covers_by_half(swept, evaluated, overrides, tmp_path):
    annotations = read_json(Path(eval(overrides[1])[0][1]))["annotations"]
    content = read_json(swept / "results.json")
    recalls = []
    for own in content["settings"]:
        cfg, model = evaluated(own["name"], tmp_path)
        found = []
        for (item,) in build_test_loader(cfg, "toy"):
            images = model.preprocess_image([item])
            with torch.no_grad(), ledger.open(images.image_sizes):
                (proposals,), _ = model.proposal_generator(images, model.backbone(images.tensor), None)
            scale = item["width"] / item["image"].shape[2], item["height"] / item["image"].shape[1]
            boxes = [[v * scale[i % 2] for i, v in enumerate(box)] for box in proposals.proposal_boxes.tensor.tolist()]
            truth = [note["bbox"] for note in annotations if note["image_id"] == item["image_id"]]
            found += [any(iou(box, (x, y, x + w, y + h)) >= 0.5 for box in boxes) for x, y, w, h in truth]
        assert own["recall"] == pytest.approx(100 * sum(found) / len(found))
        recalls.append(own["recall"])
    assert min(recalls) < max(recalls)


def iou(a, b):
    inside = [max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return inside[0] * inside[1] / (sum(areas) - inside[0] * inside[1])


def test_settings_come_once_and_every_image_has_its_regions_and_seconds(swept):
    content = read_json(swept / "results.json")
    assert [own["name"] for own in content["settings"]] == ["k_40", "k_300", "mass_1", "mass_0.3"]
    assert content["images"] == len(content["rows"]) == 3
    for own in content["settings"]:
        rows = [row[own["name"]] for row in content["rows"]]
        assert own["regions"] == pytest.approx(sum(row["regions"] for row in rows) / 3)
        assert own["box_head_seconds"] == pytest.approx(sum(row["seconds"] for row in rows) / 3)
        in_front = sum(row["seconds"] for row in content["rows"]) / 3
        assert own["seconds"] == pytest.approx(in_front + own["box_head_seconds"]) and in_front > 0
    by_mass = [row["mass_0.3"]["regions"] for row in content["rows"]]
    assert len(set(by_mass)) > 1 and all(10 <= regions < 300 for regions in by_mass)


def test_the_table_and_the_figure_show_the_results(swept):
    header, _, *lines = (swept / "table.md").read_text().splitlines()
    assert header.startswith("| proposals | AP | AP50 | recall at IoU 0.5 (%) | regions | GFLOPs | s / image |")
    assert [line.split(" | ")[0] for line in lines] == ["| first 40", "| first 300", "| mass 1", "| mass 0.3"]
    assert (swept / "proposals.png").read_bytes().startswith(b"\x89PNG")
    content = read_json(swept / "results.json")
    assert sweep_table(content).splitlines()[2:] == lines
    nothing = {**content["settings"][0], "AP": math.nan, "recall": math.nan}
    assert sweep_table({"settings": [nothing]}).splitlines()[-1].startswith("| first 40 | - | ")


def command(overrides, output, *numbers):
    return ["--config-file", TINY, *numbers, "--output", str(output), *overrides]


class Killed(BaseException):
    """As a signal would end the process: nothing behind it runs."""


@pytest.fixture
def measured(monkeypatch):
    """(image, names of settings) of everything that is measured; behind `most` of them the run is killed."""
    calls, measure = [], ProposalSweep._measure

    def recorded(self, item, positions, settings):
        if len(calls) == recorded.most:
            raise Killed
        calls.append((item["image_id"], [setting.name for setting in settings]))
        return measure(self, item, positions, settings)

    recorded.most = None
    monkeypatch.setattr(ProposalSweep, "_measure", recorded)
    return calls, recorded


def without_seconds(path):
    """results.json but for what a clock says."""
    content = read_json(path)
    for own in content["settings"]:
        del own["seconds"], own["box_head_seconds"]
    for row in content["rows"]:
        del row["seconds"]
        for numbers in row.values():
            if isinstance(numbers, dict):
                del numbers["seconds"]
    return content


def test_a_killed_sweep_goes_on_where_it_was_and_settings_can_be_added(swept, overrides, tmp_path, measured):
    calls, recorded = measured
    numbers = ("--proposals", "300", "--masses", "0.3")
    recorded.most = 2
    with pytest.raises(Killed):
        tool.main(command(overrides, tmp_path, *numbers))
    lines = (tmp_path / "progress.jsonl").read_text()
    (tmp_path / "progress.jsonl").write_text(lines + lines[-60:-30])  # a third one was being written
    recorded.most = None
    calls.clear()
    tool.main(command(overrides, tmp_path, *numbers))
    assert [names for _, names in calls] == [["k_300", "mass_0.3"]]
    calls.clear()
    tool.main(command(overrides, tmp_path, "--proposals", "40", "300", "--masses", "1", "0.3"))
    assert [names for _, names in calls] == 3 * [["k_40", "mass_1"]]
    assert without_seconds(tmp_path / "results.json") == without_seconds(swept / "results.json")
    for name in SETTINGS:
        for file in ("coco_instances_results.json", "ponder.json"):
            assert read_json(tmp_path / name / file) == read_json(swept / name / file)
    calls.clear()
    before = read_json(tmp_path / "results.json")
    tool.main(command(overrides, tmp_path, "--proposals", "40", "300", "--masses", "1", "0.3"))
    assert not calls and read_json(tmp_path / "results.json") == before  # seconds, too


@pytest.mark.parametrize("change", [("MODEL.ROI_HEADS.NMS_THRESH_TEST", "0.2"), ("MODEL.SACT.EXECUTION", "dense")])
def test_what_may_be_another_measurement_is_made_again(overrides, tmp_path, measured, change):
    calls, _ = measured
    numbers = ("--proposals", "20", "--masses")
    for own, expected in ((), 3), ((), 3), (change, 6), ((), 9):
        tool.main(command([*overrides, *own], tmp_path, *numbers))
        assert len(calls) == expected
    (tmp_path / "progress.jsonl").write_bytes(b"\0\xff no text")
    tool.main(command(overrides, tmp_path, *numbers))
    assert len(calls) == 12


def test_positions_are_compared_in_one_table(overrides, evaluated, tmp_path):
    output = tmp_path / "swept"
    tool.main(command(overrides, output, "--proposals", "100", "--masses", "0.5", "--positions", "all", "active"))
    content = read_json(output / "results.json")
    names = ["all_k_100", "all_mass_0.5", "active_k_100", "active_mass_0.5"]
    assert [own["name"] for own in content["settings"]] == names and content["images"] == 3
    own = dict(zip(names, content["settings"]))
    assert own["active_k_100"]["gflops"] < own["all_k_100"]["gflops"]
    for positions in ("all", "active"):
        cfg = load_config(TINY, [*overrides, "MODEL.RPN.POST_NMS_TOPK_TEST", "100"])
        cfg.defrost()
        cfg.MODEL.SACT.RPN_POSITIONS, cfg.OUTPUT_DIR = positions, str(tmp_path / positions)
        results = DetectionTrainer.test(cfg, load_detector(cfg))
        found = own[f"{positions}_k_100"]
        assert (found["AP"], found["AP50"]) == (results["bbox"]["AP"], results["bbox"]["AP50"])
        assert found["gflops"] == results["ponder"]["detector_gflops"]
        assert found["regions"] == results["ponder"]["regions"]
        file = "coco_instances_results.json"
        assert read_json(output / f"{positions}_k_100" / file) == read_json(
            tmp_path / positions / "inference/toy" / file
        )
    lines = (output / "table.md").read_text().splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [
        *("| first 100, all positions", "| mass 0.5, all positions"),
        *("| first 100, active positions", "| mass 0.5, active positions"),
    ]


def test_a_plain_detector_has_no_active_positions(overrides, tmp_path, capsys):
    plain = [*overrides, "MODEL.SACT.HALTING", "none"]
    line = error_line(capsys, tool.main, command(plain, tmp_path, "--positions", "all", "active"))
    assert line.startswith("MODEL.SACT.RPN_POSITIONS active needs MODEL.SACT.HALTING sact")


def test_a_detector_on_a_pyramid_is_swept(tmp_path):
    config = TINY.replace("tiny.yaml", "tiny_fpn.yaml")
    weights = write_random_detector(tmp_path / "detector.pth", config)
    data = [
        "DATASETS.COCO_FORMAT",
        str([("toy", *write_coco_folder(tmp_path, num_images=2))]),
        "DATASETS.TEST",
        "('toy',)",
    ]
    given = ["--config-file", config, "--proposals", "3", "8", "--masses", "--output", str(tmp_path / "swept")]
    tool.main([*given, *data, "MODEL.WEIGHTS", weights])
    few, more = read_json(tmp_path / "swept/results.json")["settings"]
    assert (few["regions"], more["regions"]) == (3, 8) and few["gflops"] < more["gflops"]
