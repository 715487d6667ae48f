"""The sweep over numbers of proposals: every setting has what a real evaluation with it has."""

import json
import math
from pathlib import Path

import pytest
import torch
from coco_folder import write_coco_folder
from command_lines import load_tool
from random_detector import write_random_detector

from sact_det.detection.loader import build_test_loader
from sact_det.detection.trainer import DetectionTrainer
from sact_det.experiments.proposal_sweep import sweep_table
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
