"""The command that writes ponder files: what is in them, and one line for whatever is wrong."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from command_lines import error_line, load_tool
from labelled_folders import SIZES, encoded, noise_image, write_class_folders
from random_weights import write_random_weights

from sact_det.classification.model import Classifier
from sact_det.classification.preprocessing import evaluation_image, whole_image
from sact_det.data.image_sources import open_images
from sact_det.engine.spec import spec_from_config
from sact_det.pictures.ponder_file import PonderFile
from sact_det.tasks import load_config
from sact_det.weights.weight_file import load_weights

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/tests/tiny_classifier.yaml")


tool = load_tool("export_ponder")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of three classes with images of different sizes, one of wide images, and weights."""
    folder = tmp_path_factory.mktemp("export")
    write_class_folders(folder / "mixed", per_class=2)
    for number in range(3):
        (folder / "wide/only").mkdir(parents=True, exist_ok=True)
        (folder / f"wide/only/{number}.png").write_bytes(encoded(noise_image(number, number, (45, 90))))
    write_random_weights(folder / "model.pth", load_config(TINY))
    return folder


def arguments(data, output, *flags, **overrides):
    sets = [("mixed", str(data / "mixed")), ("wide", str(data / "wide"))]
    settings = {"DATASETS.CLASSIFICATION": str(sets), "DATASETS.TEST": "('mixed',)"}
    settings |= {"MODEL.WEIGHTS": str(data / "model.pth"), **overrides}
    options = [part for pair in settings.items() for part in pair]
    return ["--config-file", TINY, "--output", str(output), *flags, *options]


def network(data):
    """The classifier with its weights, without Detectron2's part."""
    cfg = load_config(TINY)
    model = Classifier(spec_from_config(cfg), cfg.MODEL.CLASSIFIER.NUM_CLASSES)
    model.load_state_dict(load_weights(data / "model.pth").state_dict)
    return model.eval()


@torch.no_grad()
def check(path, data, folder, images):
    """Compares a file with the network's answers to `images`, each [3, H, W] in [0, 255]."""
    model = network(data)
    with PonderFile(path) as file:
        assert len(file) == len(images) and [Path(name).parents[1] for name in file.names] == [folder] * len(images)
        for index, image in enumerate(images):
            pixels = (image - 127.5) / 127.5
            np.testing.assert_array_equal(file.image(index), pixels.permute(1, 2, 0).numpy())
            actual, expected = file.record(index), model(pixels[None]).ponder
            assert torch.equal(actual.flops, expected.flops)
            for name, block in expected.blocks.items():
                assert torch.equal(actual.blocks[name].num_units, block.num_units)
                torch.testing.assert_close(actual.blocks[name].ponder_cost, block.ponder_cost)
    return file.names


def test_images_are_those_of_the_evaluation_and_the_numbers_the_networks(data, tmp_path):
    tool.main(arguments(data, tmp_path / "new/x.h5"))
    images = open_images(data / "mixed")
    names = check(tmp_path / "new/x.h5", data, data / "mixed", [evaluation_image(i["image"], 56) for i in images])
    assert names == [
        str(data / "mixed" / part)
        for part in ("apple/0.png", "apple/1.png", "leaf/0.png", "leaf/1.png", "sky/0.png", "sky/1.png")
    ]
    with h5py.File(tmp_path / "new/x.h5") as file:
        cost, units = file["ponder_cost_map"][()], file["num_units_map"][()]
        assert cost.shape == units.shape == (6, 56, 56)
        assert (cost > units).all() and len(np.unique(units)) >= 3


def test_an_image_size_keeps_the_aspect_and_any_data_set_of_the_config_will_do(data, tmp_path):
    tool.main(
        arguments(data, tmp_path / "x.h5", "--dataset", "wide", "--image-size", "64", "--max-images", "2", "--gzip")
    )
    images = [whole_image(item["image"], 64) for item in open_images(data / "wide")[:2]]
    assert images[0].shape == (3, 32, 64)
    check(tmp_path / "x.h5", data, data / "wide", images)


def test_images_of_different_sizes_are_refused_with_what_to_do(data, tmp_path, capsys):
    (tmp_path / "x.h5").write_text("precious")
    line = error_line(capsys, tool.main, arguments(data, tmp_path / "x.h5", "--image-size", "64"))
    assert line.startswith(f"{data / 'mixed/apple/1.png'}: 64x48 pixels, the images before it have 48x64")
    assert SIZES[:2] == ((60, 80), (80, 60)) and "without --image-size" in line
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"] and (tmp_path / "x.h5").read_text() == "precious"


def test_images_of_different_sizes_are_found_before_any_is_run(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "export_ponder", lambda *_: pytest.fail("the network ran"))
    line = error_line(capsys, tool.main, arguments(data, tmp_path / "x.h5", "--image-size", "64"))
    assert "64x48 pixels, the images before it have 48x64" in line


@pytest.mark.parametrize(
    ("flags", "overrides", "message"),
    [
        (["--image-size", "0"], {}, "--image-size must be positive; got 0"),
        (["--max-images", "-1"], {}, "--max-images must be positive; got -1"),
        (["--dataset", "nowhere"], {}, "nowhere: no such data set of labelled images"),
        ([], {"DATASETS.TEST": "()"}, "DATASETS.TEST is empty: name the data set with --dataset"),
        ([], {"MODEL.WEIGHTS": ""}, "MODEL.WEIGHTS is empty"),
        ([], {"MODEL.SACT.UNITS": "(2, 2, 3, 2)"}, "{data}/model.pth: weights of another architecture"),
        (
            ["--config-file", str(ROOT / "configs/tests/tiny.yaml")],
            {},
            "MODEL.META_ARCHITECTURE must be SACTClassifier",
        ),
    ],
)
def test_a_command_that_cannot_be_run_is_one_line(data, tmp_path, capsys, flags, overrides, message):
    line = error_line(capsys, tool.main, arguments(data, tmp_path / "x.h5", *flags, **overrides))
    assert line.startswith(message.format(data=data))
    assert not list(tmp_path.iterdir())


def test_a_broken_image_is_named_and_leaves_nothing(data, tmp_path, capsys):
    write_class_folders(tmp_path / "broken", per_class=1)
    (tmp_path / "broken/sky/0.png").write_bytes(b"x")
    sets = str([("broken", str(tmp_path / "broken"))])
    overrides = {"DATASETS.CLASSIFICATION": sets, "DATASETS.TEST": "('broken',)"}
    line = error_line(capsys, tool.main, arguments(data, tmp_path / "out/x.h5", **overrides))
    assert line.startswith(f"{tmp_path / 'broken/sky/0.png'}: the image cannot be read")
    assert not list((tmp_path / "out").iterdir())
