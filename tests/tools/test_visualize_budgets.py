"""Pictures of what several budgets make of an image, side by side under one colour scale."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import error_line, load_tool
from labelled_folders import write_class_folders
from picture_search import place
from PIL import Image
from random_detector import write_random_detector
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.budget import BudgetPoint, BudgetTable, weights_digest
from sact_det.classification.predictor import ClassPredictor
from sact_det.classification.preprocessing import whole_image
from sact_det.data.image_files import read_checked
from sact_det.detection.predictor import Predictor
from sact_det.pictures.colors import colorize
from sact_det.pictures.panels import display_scale, draw_maps
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs/tests"
BUDGETS = (0.4, 0.8, 1.0)

tool = load_tool("visualize")


def write_table(model, path, of):
    points = [
        BudgetPoint(budget, dict.fromkeys(("block2", "block3"), shift), budget)
        for budget, shift in ((0.4, 12.0), (0.8, 2.0))
    ]
    BudgetTable(weights_digest(model), of, 0.3, tuple(points)).write(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budgets")
    write_class_folders(folder / "data", per_class=1)
    (folder / "classifier").mkdir()
    model = randomize(
        build_classifier((1, 2, 3, 2), base_channels=4, num_classes=3), images(4, 64, 64), halting_bias=0.0
    )
    torch.save(model.state_dict(), folder / "classifier/model.pth")
    predictor = ClassPredictor(load_config(str(CONFIGS / "tiny_classifier.yaml"), weights(folder, "classifier")))
    write_table(predictor.model, folder / "classifier/budget.json", "network")
    (folder / "detector").mkdir()
    write_random_detector(folder / "detector/model.pth", str(CONFIGS / "tiny.yaml"))
    detector = Predictor(load_config(str(CONFIGS / "tiny.yaml"), weights(folder, "detector")))
    write_table(detector.model, folder / "detector/budget.json", "extractor")
    return folder


def weights(folder, kind):
    return ["MODEL.WEIGHTS", str(folder / kind / "model.pth")]


def arguments(folder, kind, output, *more):
    config = {"classifier": "tiny_classifier.yaml", "detector": "tiny.yaml"}[kind]
    inputs = ["--input", str(folder / "data/*/*.png"), "--output", str(output)]
    return ["--config-file", str(CONFIGS / config), *inputs, *more, *weights(folder, kind)]


def predictions(folder, kind, path):
    """What the model says of a file at each budget, and the size of its picture."""
    if kind == "detector":
        predictor = Predictor(load_config(str(CONFIGS / "tiny.yaml"), weights(folder, kind)))
        image = read_checked(path, "BGR")
        scale = display_scale(*image.shape[:2])
        size = (scale * image.shape[0], scale * image.shape[1])
    else:
        predictor = ClassPredictor(load_config(str(CONFIGS / "tiny_classifier.yaml"), weights(folder, kind)))
        image = whole_image(read_checked(path, "RGB"), None)
        size = (image.shape[1], image.shape[2])
    for budget in BUDGETS:
        predictor.model.set_budget(budget)
        found = predictor(image)
        yield found.numbers, found.ponder.map(size)[0].numpy()


@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_every_map_is_in_the_picture_under_one_scale(folder, kind, tmp_path):
    tool.main(arguments(folder, kind, tmp_path, "--budgets", *map(str, BUDGETS)))
    rows = json.loads((tmp_path / "ponder.json").read_text())["images"]
    assert len(rows) == 3 and (tmp_path / "sheet.png").exists()
    for row in rows:
        found = list(predictions(folder, kind, row["file"]))
        assert [entry["budget"] for entry in row["budgets"]] == list(BUDGETS)
        assert [entry["flops"] for entry in row["budgets"]] == [numbers["flops"] for numbers, _ in found]
        assert found[0][0]["flops"] < found[-1][0]["flops"]
        maps = np.stack([ponder_map for _, ponder_map in found])
        picture = np.asarray(Image.open(tmp_path / row["picture"]))
        columns = []
        for ponder_map in maps:
            pixels = colorize(ponder_map, (float(maps.min()), float(maps.max())))
            scale = display_scale(*pixels.shape[:2])
            columns.append(place(picture, pixels.repeat(scale, 0).repeat(scale, 1)))
        assert all(spot is not None for spot in columns)


def test_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match="image"):
        draw_maps(np.zeros((4, 5, 3), np.uint8), {"a": np.zeros((4, 6))})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--budgets", "0.5", "0"], "--budgets must be a share of the plain network's FLOPs, in (0, 1]; got 0.0"),
        (["--budgets", "0.5", "--budget", "0.5"], "--budget does not go with --budgets"),
        (["--budgets", "0.5", "--per-block"], "--per-block does not go with --budgets"),
        (["--budgets", "0.5", "--overlay"], "--overlay does not go with --budgets"),
    ],
)
def test_what_does_not_go_together_is_said_in_a_line(folder, tmp_path, capsys, more, said):
    assert error_line(capsys, tool.main, arguments(folder, "classifier", tmp_path / "new", *more)) == said
    assert not (tmp_path / "new").exists()


def test_without_a_table_there_are_no_pictures(folder, tmp_path, capsys):
    (tmp_path / "model.pth").write_bytes((folder / "classifier/model.pth").read_bytes())
    argv = arguments(folder, "classifier", tmp_path / "new", "--budgets", "0.5")
    said = error_line(capsys, tool.main, [*argv[:-1], str(tmp_path / "model.pth")])
    assert said.startswith(f"{tmp_path / 'budget.json'}: no such file") and not (tmp_path / "new").exists()
