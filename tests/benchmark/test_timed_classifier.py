"""A whole classifier at its budgets beside the plain network: rows are what the model itself does there."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import error_line, load_tool
from PIL import Image
from random_weights import write_random_weights

from sact_det.benchmark.classifier import PlainClassifier
from sact_det.benchmark.trained import photographs
from sact_det.budget import FILE_NAME
from sact_det.budget.table import BudgetPoint, BudgetTable, weights_digest
from sact_det.classification.predictor import load_classifier
from sact_det.network.block import AdaptiveBlock
from sact_det.tasks import load_config

TINY = Path(__file__).parents[2] / "configs/tests"
FILES = {"imagenet": "tiny_classifier.yaml", "cifar": "tiny_cifar.yaml"}
QUIET = ["--rounds", "1", "--warmup", "0", "--threads", "1", "--quiet"]


@pytest.fixture(scope="module", params=FILES)
def toy(request, tmp_path_factory):
    """The words of a command line for a calibrated classifier with random weights, its model, and photographs."""
    root, config = tmp_path_factory.mktemp(request.param), str(TINY / FILES[request.param])
    (root / "photos").mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (5, 70, 90, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(root / "photos" / f"{index}.png")
    weights = write_random_weights(root / "weights.pth", load_config(config))
    model = load_classifier(load_config(config, ["MODEL.WEIGHTS", weights]))
    blocks = [name for name, part in model.named_modules() if isinstance(part, AdaptiveBlock) and len(part.units) > 1]
    points = (
        BudgetPoint(0.4, dict.fromkeys(blocks, 9.0), 0.4, scale=0.5),
        BudgetPoint(0.8, dict.fromkeys(blocks, 3.0), 0.8),
    )
    BudgetTable(weights_digest(model), "network", 0.1, points).write(root / FILE_NAME)
    model.budget_file = root / FILE_NAME
    words = ["classifier", "--config-file", config, "MODEL.WEIGHTS", weights, "--images", str(root / "photos"), *QUIET]
    return words, model, root / "photos"


@torch.no_grad()
def test_rows_are_what_the_model_does_at_each_budget(toy, tmp_path, capsys):
    words, model, folder = toy
    given = ["--budgets", "0.4", "0.8", "1", "--batch", "1", "2", "--scales", "1", "0.5", "--sizes", "40x56"]
    given += ["--executions", "dense", "auto", "--rivals", "eager", "folded"]
    out = tmp_path / "numbers.json"
    load_tool("benchmark").main([*words, *given, "--json", str(out)])
    printed = capsys.readouterr().out
    one, two = json.loads(out.read_text())["tables"]
    images = photographs([str(folder)], (40, 56), "RGB", 8)
    for table, number in ((one, 5), (two, 4)):
        what = f"{number} photographs, 40x56, {number // table['inputs']} at a time"
        assert table["title"] in printed and what in table["title"]
        names = [f"budget {budget}, {execution}" for budget in ("0.4", "0.8", "1") for execution in ("dense", "auto")]
        smaller = table["rows"][2]
        assert [row["name"] for row in table["rows"]] == ["eager", "folded", smaller["name"], *names]
        assert smaller["name"] in ("plain x0.5, eager", "plain x0.5, folded") and not smaller["rival"]
        dense = model.reference.flops((40, 56))
        assert smaller["flop_ratio"] == model.reference.flops((20, 28)) / dense
        for name, budget in zip(names, (0.4, 0.4, 0.8, 0.8, 1.0, 1.0)):
            (row,) = (row for row in table["rows"] if row["name"] == name)
            model.set_budget(budget)
            flops = sum(int(model([{"image": image}])[0]["ponder"].flops) for image in images[:number])
            assert row["flop_ratio"] == pytest.approx(flops / dense / number) and row["difference"] < 1e-4
            assert row["times_ms"][0] > 0
        ratios = {row["name"]: row["flop_ratio"] for row in table["rows"]}
        assert ratios["budget 0.4, auto"] < ratios["budget 0.8, auto"] < ratios["budget 1, auto"]


def test_without_budgets_it_is_timed_as_the_config_says(toy, tmp_path):
    words, _, _ = toy
    for budget, name in (([], "as trained, auto"), (["--budget", "0.8"], "budget 0.8, auto")):
        load_tool("benchmark").main([*words, *budget, "--rivals", "none", "--json", str(tmp_path / "numbers.json")])
        (table,) = json.loads((tmp_path / "numbers.json").read_text())["tables"]
        assert [row["name"] for row in table["rows"]] == [name] and table["inputs"] == 5


@torch.no_grad()
def test_the_plain_network_is_the_classifier_where_nothing_halts(toy):
    _, model, folder = toy
    images = photographs([str(folder)], (37, 50), "RGB", 3)
    x = model.preprocess([{"image": image} for image in images])
    model.set_budget(1)
    expected = model.classify(x).logits
    model.set_budget(None)
    torch.testing.assert_close(PlainClassifier(model)(x), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert not torch.allclose(model.classify(x).logits, expected)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--batch", "6"], "--batch 6: there are 5 photographs (see --images and --max-images)"),
        (["--budgets", "0.5", "--budget", "0.5"], "--budgets and --budget: give one of them"),
        (["--budgets", "0.5", "0.5"], "--budgets must differ; got 0.5 0.5"),
        (["--ratios", "0.5"], "--ratios prescribes masks, --images asks for the network's own: give one of them"),
        (["MODEL.WEIGHTS", ""], "MODEL.WEIGHTS is empty: masks of a trained network need its weights"),
    ],
)
def test_what_cannot_be_measured_is_one_line(toy, capsys, given, line):
    assert error_line(capsys, load_tool("benchmark").main, [*toy[0], *given]) == line


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["classifier"], "classifier needs --config-file"),
        (["classifier", "--config-file", "c.yaml"], "classifier needs --images"),
        (["extractor", "--budgets", "0.5"], "--budgets needs --dataset, or classifier"),
        (
            ["classifier", "--config-file", "configs/tests/tiny.yaml", "--images", "x", "MODEL.WEIGHTS", "w.pth"],
            "MODEL.META_ARCHITECTURE must be SACTClassifier; got SACTGeneralizedRCNN",
        ),
    ],
)
def test_other_configs_and_measures_are_refused(capsys, given, line):
    assert error_line(capsys, load_tool("benchmark").main, given) == line
