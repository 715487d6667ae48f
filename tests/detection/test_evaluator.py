"""What an evaluation reports about the computation, against values computed here from the model's outputs."""

import itertools
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from closed_form import extractor_flops
from coco_folder import read_json, toy_config, write_coco_folder, write_json
from detectron2.modeling import build_model
from detectron2.utils import comm

import sact_det.detection  # noqa: F401
from sact_det.detection.evaluator import PonderEvaluator, table_1_row
from sact_det.detection.loader import build_test_loader
from sact_det.engine.launch import launch
from sact_det.engine.reference import Reference
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.rule.ponder import BlockPonder, PonderRecord

REFERENCE = Reference.of(ResNetV2Spec(base_channels=8), (1, 2, 3))


def run(cfg):
    """Inputs and outputs of a model whose positions halt at different units, image by image."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("local_conv.bias"):
            parameter.data.fill_(-0.5)
    with torch.no_grad():
        return [(inputs, model(inputs)) for inputs in build_test_loader(cfg, "toy")]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Of four images, the last without boxes: inputs with outputs, the evaluator's results and its file."""
    root = tmp_path_factory.mktemp("toy")
    files = write_coco_folder(root, num_images=4)
    content = read_json(files[0])
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] < 4]
    content["annotations"][0]["bbox"] = [-10, -10, 40, 30]  # sticks out
    content["annotations"][1]["bbox"] = [20, 20, 0, 10]  # without area
    content["annotations"][2]["iscrowd"] = 1
    write_json(files[0], content)
    pairs = run(toy_config(files))
    evaluator = PonderEvaluator("toy", REFERENCE, output_dir=str(root / "out"))
    for inputs, outputs in pairs:
        evaluator.process(inputs, outputs)
    return SimpleNamespace(
        pairs=[(inputs[0], outputs[0]) for inputs, outputs in pairs],
        annotations=content["annotations"],
        summary=evaluator.evaluate()["ponder"],
        file=read_json(root / "out/ponder.json"),
    )


def test_flops_are_in_percent_of_the_plain_extractor_at_the_size_the_network_saw(evaluated):
    percent = []
    for (item, output), row in zip(evaluated.pairs, evaluated.file["images"]):
        height, width = item["image"].shape[1:]
        assert (row["image_id"], row["height"], row["width"]) == (item["image_id"], height, width)
        assert row["flops"] == output["ponder"].flops.item()
        assert row["box_head_flops"] == output["box_head_flops"]
        percent.append(100 * row["flops"] / extractor_flops((1, 2, 3), 8, height, width))
        assert row["flops_percent"] == pytest.approx(percent[-1])
    assert len(set(percent)) > 1
    summary = evaluated.summary
    assert summary["images"] == 4
    assert summary["flops_percent"] == pytest.approx(np.mean(percent))
    assert summary["flops_percent_std"] == pytest.approx(np.std(percent))
    gflops = [output["ponder"].flops.item() / 1e9 for _, output in evaluated.pairs]
    assert summary["gflops"] == pytest.approx(np.mean(gflops))
    assert summary["gflops_std"] == pytest.approx(np.std(gflops))
    box_head = [output["box_head_flops"] / 1e9 for _, output in evaluated.pairs]
    assert summary["box_head_gflops"] == pytest.approx(np.mean(box_head))


@pytest.mark.parametrize("block", ["block1", "block2", "block3"])
def test_units_and_cost_are_means_over_positions_and_then_over_images(evaluated, block):
    blocks = [output["ponder"].blocks[block] for _, output in evaluated.pairs]
    units = [np.mean(one.num_units.numpy()) for one in blocks]
    cost = [np.mean(one.ponder_cost.numpy()) for one in blocks]
    for row, n, rho in zip(evaluated.file["images"], units, cost):
        assert row["units"][block] == pytest.approx(n)
        assert row["ponder_cost"][block] == pytest.approx(rho)
    assert evaluated.summary[f"{block}_units"] == pytest.approx(np.mean(units))
    assert evaluated.summary[f"{block}_cost"] == pytest.approx(np.mean(cost))


def inside_and_outside(item, ponder_map, boxes):
    """Pixel by pixel; boxes [x, y, width, height] of the file."""
    height, width = ponder_map.shape
    columns, rows = width / item["width"], height / item["height"]
    edges = [
        (round(x * columns), round((x + w) * columns), round(y * rows), round((y + h) * rows)) for x, y, w, h in boxes
    ]
    inside, outside = [], []
    for y in range(height):
        for x in range(width):
            covered = any(x0 <= x < x1 and y0 <= y < y1 for x0, x1, y0, y1 in edges)
            (inside if covered else outside).append(float(ponder_map[y, x]))
    return np.mean(inside), np.mean(outside)


def test_the_ponder_map_is_averaged_inside_and_outside_the_boxes(evaluated):
    means = []
    for (item, output), row in zip(evaluated.pairs[:3], evaluated.file["images"]):
        ponder_map = output["ponder"].map(tuple(item["image"].shape[1:]))[0].numpy()
        boxes = [a["bbox"] for a in evaluated.annotations if a["image_id"] == item["image_id"]]
        means.append(inside_and_outside(item, ponder_map, boxes))
        assert (row["cost_inside"], row["cost_outside"]) == pytest.approx(means[-1])
    assert (evaluated.summary["cost_inside"], evaluated.summary["cost_outside"]) == pytest.approx(np.mean(means, 0))


def test_every_object_that_is_no_crowd_has_its_size_and_its_mean_of_the_ponder_map(evaluated):
    for (item, output), row in zip(evaluated.pairs, evaluated.file["images"]):
        size = tuple(item["image"].shape[1:])
        ponder_map = output["ponder"].map(size)[0].numpy()
        assert row["cost_mean"] == pytest.approx(ponder_map.mean())
        own = [a for a in evaluated.annotations if a["image_id"] == row["image_id"]]
        boxes = [a["bbox"] for a in own if not a["iscrowd"] and min(a["bbox"][2:]) > 0]
        for box, found in itertools.zip_longest(boxes, row["objects"]):
            inside, outside = inside_and_outside(item, ponder_map, [box])
            assert found["cost"] == pytest.approx(inside)
            area = found["area_percent"] / 100
            assert area * inside + (1 - area) * outside == pytest.approx(ponder_map.mean())
    assert [len(row["objects"]) for row in evaluated.file["images"]] == [1, 1, 2, 0]


def test_an_image_without_boxes_has_no_cost_inside(evaluated):
    row, output = evaluated.file["images"][3], evaluated.pairs[3][1]
    size = tuple(evaluated.pairs[3][0]["image"].shape[1:])
    assert row["cost_inside"] is None
    assert row["cost_outside"] == pytest.approx(output["ponder"].map(size).mean().item())


def test_the_file_holds_the_summary_the_reference_and_one_row_per_image(evaluated):
    assert evaluated.file.keys() == {"summary", "reference", "images"}
    assert evaluated.file["reference"] == {"units": [1, 2, 3], "base_channels": 8}
    assert evaluated.file["summary"] == pytest.approx(evaluated.summary)
    assert [row["image_id"] for row in evaluated.file["images"]] == [1, 2, 3, 4]


ROW = {
    "flops_percent": 50.0,
    "flops": 10**9,
    "box_head_flops": 0,
    "units": {"block1": 1.0},
    "ponder_cost": {"block1": 2.0},
}


@pytest.mark.parametrize(
    ("costs", "inside"),
    [
        ([{}], None),
        ([{"cost_inside": None, "cost_outside": 3.0}], None),
        ([{"cost_inside": 4.0, "cost_outside": 3.0}, {}, {"cost_inside": 9.0, "cost_outside": None}], 4.0),
    ],
)
def test_rows_without_boxes_have_no_part_in_the_cost_inside(costs, inside):
    summary = PonderEvaluator.summarize([{**ROW, **cost} for cost in costs])
    assert summary.get("cost_inside") == inside and summary["images"] == len(costs)


def test_no_predictions_are_no_results(tmp_path):
    toy_config(write_coco_folder(tmp_path, num_images=1))
    evaluator = PonderEvaluator("toy", REFERENCE, output_dir=str(tmp_path / "out"))
    assert evaluator.evaluate() == {} and not (tmp_path / "out").exists()


def evaluate_shares(files, folder):
    """Every process takes its share of synthetic records; the main one writes what it gathered."""
    toy_config(files)
    rank, world_size = comm.get_rank(), comm.get_world_size()
    evaluator = PonderEvaluator("toy", REFERENCE, output_dir=f"{folder}/{world_size}")
    for number in range(rank, 5, world_size):
        generator = torch.Generator().manual_seed(number)
        cost = 2 + torch.rand(1, 12, 16, generator=generator)
        units = torch.randint(1, 4, (1, 12, 16), generator=generator)
        block = BlockPonder(cost, units, units.sum((1, 2)), torch.ones(1, 3, 12, 16) / 3)
        record = PonderRecord({"block1": block}, torch.tensor([10**6]))
        item = {"image": torch.zeros(3, 96, 128), "image_id": number + 1, "height": 96, "width": 128}
        evaluator.process([item], [{"ponder": record, "box_head_flops": number}])
    assert (evaluator.evaluate() is None) == (rank > 0)


def test_two_processes_report_what_one_does(tmp_path):
    files = write_coco_folder(tmp_path, num_images=5)
    evaluate_shares(files, tmp_path)
    launch(evaluate_shares, 2, dist_url="auto", args=(files, tmp_path))
    one, two = (read_json(tmp_path / name / "ponder.json") for name in ("1", "2"))
    assert two == one and one["summary"]["images"] == 5


@pytest.mark.parametrize(
    ("boxes", "cells"),
    [({"AP": 27.536, "AP50": 44.0}, "27.54 | 44.00"), ({"AP": math.nan, "AP50": 0.0}, "nan | 0.00"), ({}, "- | -")],
)
def test_table_1_row_has_the_papers_columns(boxes, cells):
    ponder = {"flops_percent": 56.04, "flops_percent_std": 3.25, "images": 4.0}
    header, line, row = table_1_row("SACT, tau 0.005", {"ponder": ponder, "bbox": boxes}).splitlines()
    assert header == "| feature extractor | FLOPs (%) | mAP @ [.5, .95] (%) | AP50 (%) | images |"
    assert re.fullmatch(r"\|(---\|){5}", line)
    assert row == f"| SACT, tau 0.005 | 56.0 ± 3.2 | {cells} | 4 |"
