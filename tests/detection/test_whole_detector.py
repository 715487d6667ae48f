"""What an evaluation says of the whole detector, against a count of its layers as they run."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_folder import write_coco_folder
from detectron2.modeling import build_model
from torch import nn

from sact_det.detection.evaluator import table_1_row
from sact_det.detection.loader import build_test_loader
from sact_det.detection.reference import DetectorReference
from sact_det.detection.trainer import DetectionTrainer
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")


@pytest.fixture(scope="module", params=[False, True], ids=["all-regions", "some-rejected"])
def evaluated(tmp_path_factory, request):
    """Config, the model's outputs, FLOPs of RPN and predictor per image, results and file of the evaluation."""
    root = tmp_path_factory.mktemp("toy")
    files = write_coco_folder(root, num_images=3)
    data = ["DATASETS.COCO_FORMAT", str([("toy", *files)]), "DATASETS.TEST", "('toy',)"]
    own = ["OUTPUT_DIR", str(root / "out"), "MODEL.SACT.REJECTION", str(request.param)]
    cfg = load_config(TINY, [*data, *own, "MODEL.SACT.EXECUTION", "dense"])  # hooks count what PyTorch computes
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("local_conv.bias"):
            parameter.data.fill_(-0.5)
    if request.param:
        model.roi_heads.rejection.conv.weight.data.normal_()
        model.roi_heads.rejection.bias.data.fill_(math.log(0.95 / 0.05))
    counts = []

    def count(layer, inputs, output):
        counts[-1] += 2 * layer.weight.numel() * len(output) * math.prod(output.shape[2:])

    for part in (model.proposal_generator, model.roi_heads.box_predictor):
        for layer in part.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.register_forward_hook(count)
    units = []
    model.roi_heads.res5.block4.register_forward_hook(
        lambda block, inputs, output: units.append(output[1].num_units.double().mean((1, 2)))
    )
    evaluator = DetectionTrainer.build_evaluator(cfg, "toy")
    evaluator.reset()
    outputs = []
    with torch.no_grad():
        for inputs in build_test_loader(cfg, "toy"):
            counts.append(0)
            outputs += model(inputs)
            evaluator.process(inputs, outputs[-1:])
    results = evaluator.evaluate()
    file = json.loads((root / "out/inference/toy/ponder.json").read_text())
    return cfg, outputs, counts, results, file["images"], units


def test_what_the_parts_spent_and_the_rest_add_up_to_the_whole(evaluated):
    cfg, outputs, counts, results, rows, _ = evaluated
    totals = []
    for row, output, dense in zip(rows, outputs, counts):
        assert 0 < row["regions"] == output["regions"] <= cfg.MODEL.RPN.POST_NMS_TOPK_TEST
        assert (row["rejected_regions"] > 0) == cfg.MODEL.SACT.REJECTION
        assert row["rejected_regions"] == output["rejected_regions"]
        flops = row["detector_flops"]
        assert flops["backbone"] == int(output["ponder"].flops) and flops["box_head"] == output["box_head_flops"]
        assert flops["proposal_generator"] + flops["box_predictor"] == dense and flops["neck"] == 0
        totals.append(flops["total"])
        assert totals[-1] == flops["backbone"] + flops["box_head"] + dense
    assert results["ponder"]["detector_gflops"] == pytest.approx(np.mean(totals) / 1e9)
    for key in ("regions", "rejected_regions"):
        assert results["ponder"][key] == np.mean([output[key] for output in outputs])


def test_units_of_a_region_are_those_of_block_4_where_it_ran(evaluated):
    _, outputs, _, results, rows, units = evaluated
    for row, output, own in zip(rows, outputs, units):
        assert len(own) == output["regions"] and output["units_per_region"] == pytest.approx(own.mean().item())
        assert row["units_per_region"] == output["units_per_region"]
    assert results["ponder"]["units_per_region"] == pytest.approx(torch.cat(units).mean().item())


def test_all_of_it_is_a_plain_detector_with_as_many_regions(evaluated):
    cfg, _, _, results, rows, _ = evaluated
    reference = DetectorReference.from_config(cfg)
    plain = [
        reference.flops((row["height"], row["width"]), row["regions"] + row["rejected_regions"])["total"]
        for row in rows
    ]
    expected = [100 * row["detector_flops"]["total"] / total for row, total in zip(rows, plain)]
    assert [row["detector_flops_percent"] for row in rows] == expected and len(set(expected)) > 1
    assert results["ponder"]["detector_flops_percent"] == pytest.approx(np.mean(expected))
    assert results["ponder"]["detector_flops_percent_std"] == pytest.approx(np.std(expected))


def test_the_table_has_the_whole_detector_behind_the_papers_columns(evaluated):
    *_, results, _, _ = evaluated
    header, _, row = table_1_row("SACT", results).splitlines()
    assert header.endswith("| AP50 (%) | images | whole detector (%) | regions | units per region |")
    whole = f"{results['ponder']['detector_flops_percent']:.1f} ± {results['ponder']['detector_flops_percent_std']:.1f}"
    regions, units = results["ponder"]["regions"], results["ponder"]["units_per_region"]
    assert row.endswith(f"| 3 | {whole} | {regions:.1f} | {units:.2f} |")


def test_the_reference_leaves_the_random_numbers_alone(evaluated):
    before = torch.random.get_rng_state()
    DetectorReference.from_config(evaluated[0])
    assert torch.equal(torch.random.get_rng_state(), before)


@torch.no_grad()
@pytest.mark.parametrize("head", ["none", "act", "sact"])
def test_all_of_it_is_plain_whatever_rule_the_box_head_has(head):
    cfg, plain = (
        load_config(TINY, ["MODEL.SACT.HALTING", halting, "MODEL.SACT.BOX_HEAD_HALTING", own])
        for halting, own in (("sact", head), ("none", ""))
    )
    assert DetectorReference.from_config(cfg) == DetectorReference.from_config(plain)
    assert DetectorReference.of(build_model(cfg)) == DetectorReference.of(build_model(plain))
