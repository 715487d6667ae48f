"""What an evaluation reports, against values computed here from the model's outputs."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from labelled_folders import write_class_folders
from small_networks import randomize
from tiny_classifier import config

from sact_det import build_classifier
from sact_det.classification.evaluator import ClassificationEvaluator, accuracy_table
from sact_det.classification.loader import build_test_loader
from sact_det.engine.reference import Reference


def read_json(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module", params=["imagenet", "cifar"])
def evaluated(request, tmp_path_factory):
    """Inputs and outputs of a network whose positions halt at different units; the evaluator's results and its file."""
    root = tmp_path_factory.mktemp("toy")
    cfg = config(write_class_folders(root / "data"), "MODEL.CLASSIFIER.NUM_CLASSES", 4, family=request.param)
    torch.manual_seed(0)
    model = build_model(cfg)
    batches = list(build_test_loader(cfg, "toy"))
    x = torch.stack([item["image"] for batch in batches for item in batch]) / 127.5 - 1
    spec = model.spec
    twin = build_classifier(spec.units, num_classes=4, base_channels=spec.base_channels, family=spec.family)
    model.load_state_dict(randomize(twin, x).state_dict())
    evaluator = ClassificationEvaluator(model.reference, output_dir=str(root / "out"))
    pairs = []
    with torch.no_grad():
        for inputs in batches:
            outputs = model.eval()(inputs)
            evaluator.process(inputs, outputs)
            pairs += zip(inputs, outputs)
    summary = evaluator.evaluate()["classification"]
    return SimpleNamespace(
        pairs=pairs, spec=spec, summary=summary, file=read_json(root / "out/classification.json"), root=root / "data"
    )


def test_accuracy_and_recall_are_shares_of_the_images(evaluated):
    labels = np.array([item["label"] for item, _ in evaluated.pairs])
    assert set(labels.tolist()) == {1, 2, 3}  # 0 is background
    order = np.argsort(-np.stack([output["logits"].numpy() for _, output in evaluated.pairs]), axis=1, kind="stable")
    assert evaluated.summary["accuracy"] == pytest.approx((order[:, 0] == labels).mean())
    assert evaluated.summary["recall_at_5"] == 1  # of four classes
    assert [row["top"] for row in evaluated.file["images"]] == order.tolist()


def test_flops_are_integers_per_image_with_mean_and_deviation(evaluated):
    flops = [int(output["ponder"].flops) for _, output in evaluated.pairs]
    assert [row["flops"] for row in evaluated.file["images"]] == flops and len(set(flops)) > 1
    assert evaluated.summary["flops"] == pytest.approx(np.mean(flops), rel=1e-12)
    assert evaluated.summary["flops_std"] == pytest.approx(np.std(flops), rel=1e-12)
    spec = evaluated.spec
    size = evaluated.pairs[0][0]["image"].shape[1:]
    arguments = {"num_classes": 4, "base_channels": spec.base_channels, "family": spec.family}
    plain = build_classifier(spec.units, halting="none", **arguments).eval()
    percent = 100 * np.array(flops) / plain(torch.zeros(1, 3, *size)).ponder.flops.item()
    assert evaluated.summary["flops_percent"] == pytest.approx(percent.mean())
    assert evaluated.summary["flops_percent_std"] == pytest.approx(percent.std())
    assert [row["flops_percent"] for row in evaluated.file["images"]] == pytest.approx(percent)


def test_units_and_cost_are_means_over_positions_and_then_over_images(evaluated):
    for name in evaluated.pairs[0][1]["ponder"].blocks:
        blocks = [output["ponder"].blocks[name] for _, output in evaluated.pairs]
        units = [block.num_units.double().mean().item() for block in blocks]
        cost = [block.ponder_cost.double().mean().item() for block in blocks]
        assert evaluated.summary[f"{name}_units"] == pytest.approx(np.mean(units), rel=1e-5)
        assert evaluated.summary[f"{name}_cost"] == pytest.approx(np.mean(cost), rel=1e-5)
        assert [row["units"][name] for row in evaluated.file["images"]] == pytest.approx(units, rel=1e-5)
        assert [row["ponder_cost"][name] for row in evaluated.file["images"]] == pytest.approx(cost, rel=1e-5)


def test_the_file_holds_the_summary_the_reference_and_one_row_per_image(evaluated):
    assert evaluated.file.keys() == {"summary", "reference", "images"}
    assert evaluated.file["summary"] == pytest.approx(evaluated.summary)
    spec = evaluated.spec
    reference = {"family": spec.family, "units": list(spec.units), "base_channels": spec.base_channels}
    assert evaluated.file["reference"] == reference
    names = [row["file_name"] for row in evaluated.file["images"]]
    assert names == [str(evaluated.root / c / f"{n}.png") for c in ("apple", "leaf", "sky") for n in range(4)]
    assert evaluated.summary["images"] == 12


def row(label, top, flops=100):
    blocks = {"units": {"block1": 1.0}, "ponder_cost": {"block1": 2.0}}
    return {"label": label, "top": top, "flops": flops, "flops_percent": 50.0, "mean_ponder_cost": 2.0, **blocks}


def test_recall_counts_what_is_among_the_first_five():
    rows = [row(3, [3, 1, 2, 4, 5]), row(3, [1, 2, 4, 5, 3]), row(3, [1, 2, 4, 5, 6]), row(0, [1, 2, 3, 4, 5])]
    summary = ClassificationEvaluator.summarize(rows)
    assert (summary["accuracy"], summary["recall_at_5"], summary["images"]) == (0.25, 0.5, 4)


def test_no_predictions_are_no_results(tmp_path):
    evaluator = ClassificationEvaluator(
        Reference(build_classifier((1,), base_channels=4).spec, 3), str(tmp_path / "out")
    )
    assert evaluator.evaluate() == {} and not (tmp_path / "out").exists()


def test_the_table_has_a_row_with_accuracy_and_flops():
    summary = {**ClassificationEvaluator.summarize([row(3, [3], 82_000_000), row(3, [1], 84_000_000)])}
    header, line, cells = accuracy_table([("SACT (5, 5, 5), tau 0.01", 32, summary)]).splitlines()
    assert header == "| network | image size | accuracy | recall@5 | FLOPs | FLOPs (%) | units per block | images |"
    assert re.fullmatch(r"\|(---\|){8}", line)
    assert cells == "| SACT (5, 5, 5), tau 0.01 | 32 | 0.5000 | 0.5000 | 8.3e+07 ± 1e+06 | 50.0 ± 0.0 | 1.00 | 2 |"
