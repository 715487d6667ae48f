"""Pictures of a classifier's ponder maps, from its config and from an HDF5 file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import error_line, load_tool
from labelled_folders import write_class_folders
from picture_search import place
from PIL import Image
from random_weights import write_random_weights

from sact_det.classification.class_names import class_names
from sact_det.classification.pictures import ClassifiedImages
from sact_det.classification.predictor import ClassPredictor
from sact_det.classification.preprocessing import whole_image
from sact_det.data.class_titles import imagenet_titles
from sact_det.data.image_files import read_checked
from sact_det.pictures.colors import blend, colorize
from sact_det.pictures.folder import sorted_name
from sact_det.pictures.panels import display_scale
from sact_det.pictures.ponder_file import PonderFile
from sact_det.pictures.ponder_writer import writing_ponder_file
from sact_det.tasks import load_config

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/tests/tiny_classifier.yaml")


tool = load_tool("visualize")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """data/CLASS/NUMBER.png of different sizes, and model.pth."""
    folder = tmp_path_factory.mktemp("classifier")
    write_class_folders(folder / "data", per_class=2)
    write_random_weights(folder / "model.pth", load_config(TINY))
    return folder


def overrides(folder):
    sets = str([("toy", str(folder / "data"))])
    return ["DATASETS.CLASSIFICATION", sets, "DATASETS.TEST", "('toy',)", "MODEL.WEIGHTS", str(folder / "model.pth")]


def arguments(folder, output, *flags):
    inputs = str(folder / "data/*/*.png")
    return ["--config-file", TINY, "--input", inputs, "--output", str(output), *flags, *overrides(folder)]


def read(path):
    return np.asarray(Image.open(path))


def read_json(path):
    return json.loads(path.read_text())


def enlarged(pixels):
    scale = display_scale(*pixels.shape[:2])
    return pixels.repeat(scale, 0).repeat(scale, 1)


@pytest.fixture(scope="module")
def drawn(folder, tmp_path_factory):
    """OUTPUT of a run with everything, at a longer edge of 96, and what the network says of each image."""
    output = tmp_path_factory.mktemp("drawn") / "new"
    tool.main(arguments(folder, output, "--image-size", "96", "--per-block", "--overlay"))
    predictor = ClassPredictor(load_config(TINY, overrides(folder)))
    content = read_json(output / "ponder.json")
    images = [whole_image(read_checked(row["file"], "RGB"), 96) for row in content["images"]]
    return output, content, images, [predictor(image) for image in images]


def test_a_picture_for_every_image_a_sheet_and_the_numbers(drawn, folder):
    output, content, images, predictions = drawn
    rows = content["images"]
    assert [Path(row["file"]) for row in rows] == sorted((folder / "data").glob("*/*.png"))
    assert {path.name for path in output.iterdir()} == {row["picture"] for row in rows} | {"sheet.png", "ponder.json"}
    assert content["reference"] == {"family": "imagenet", "units": [1, 2, 3, 2], "base_channels": 4}
    stems = ["0", "1", "0_2", "1_2", "0_3", "1_3"]
    for row, stem, image, prediction in zip(rows, stems, images, predictions):
        record = prediction.ponder
        assert max(image.shape) == 96 and (row["height"], row["width"]) == image.shape[1:]
        assert row["picture"] == f"{sorted_name(row['mean_ponder_cost'], stem)}.png"
        assert row["flops"] == int(record.flops)
        assert row["mean_ponder_cost"] == pytest.approx(float(record.mean_cost()))
        assert row["units"] == pytest.approx({name: float(block.mean_units()) for name, block in record.blocks.items()})
        assert row["class"] == ["apple", "leaf", "sky"][int(prediction.probabilities.argmax())]
        assert row["probability"] == pytest.approx(float(prediction.probabilities.max()))
    assert len({row["mean_ponder_cost"] for row in rows}) == 6


def test_all_maps_are_drawn_on_the_scale_of_the_percentiles_of_all_of_them(drawn):
    output, content, images, predictions = drawn
    maps = [p.ponder.map(image.shape[1:])[0].numpy() for image, p in zip(images, predictions)]
    limits = np.percentile(np.concatenate([ponder_map.ravel() for ponder_map in maps]), [0.1, 99.9])
    assert content["limits"] == pytest.approx(limits, abs=2e-3)
    for row, image, ponder_map in list(zip(content["images"], images, maps))[::2]:
        picture = read(output / row["picture"])
        pixels = image.round().byte().permute(1, 2, 0).numpy()
        left = place(picture, enlarged(pixels))
        middle = place(picture, enlarged(blend(pixels, ponder_map, content["limits"])))
        right = place(picture, enlarged(colorize(ponder_map, content["limits"])))
        assert left and middle and right
        assert left[0] < middle[0] < right[0] and left[1] == middle[1] == right[1]


def test_without_photographs_the_maps_stay_and_nothing_stands_for_the_images(drawn, folder, tmp_path):
    _, content, images, predictions = drawn
    tool.main(arguments(folder, tmp_path, "--image-size", "96", "--no-photographs"))
    for row, image, prediction in zip(content["images"], images, predictions):
        picture = read(tmp_path / row["picture"])
        pixels = enlarged(image.round().byte().permute(1, 2, 0).numpy())
        ponder_map = prediction.ponder.map(image.shape[1:])[0].numpy()
        assert not place(picture, pixels) and not place(picture, np.full_like(pixels, 255))
        assert place(picture, enlarged(colorize(ponder_map, content["limits"])))


def test_images_keep_their_size_by_default(folder, tmp_path):
    tool.main(arguments(folder, tmp_path, "--no-sheet"))
    rows = read_json(tmp_path / "ponder.json")["images"]
    assert {(row["height"], row["width"]) for row in rows} == {(60, 80), (80, 60)}
    assert not (tmp_path / "sheet.png").exists()


def test_the_title_is_the_class_and_the_network_runs_once(folder):
    images = ClassifiedImages(load_config(TINY, overrides(folder)), sorted((folder / "data").glob("*/0.png")))
    first = list(images)
    images._predictor = None
    for once, again in zip(first, images):
        assert once.title == f"{once.numbers['class']} {once.numbers['probability']:.0%}"
        assert np.array_equal(once.image, again.image) and once.numbers == again.numbers


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["apple", "leaf", "sky"]),
        (["MODEL.CLASSIFIER.NUM_CLASSES", "4"], ["background", "apple", "leaf", "sky"]),
        (["MODEL.CLASSIFIER.NUM_CLASSES", "9"], None),
        (["DATASETS.TEST", "()"], None),
        (["DATASETS.TEST", "('nowhere',)"], None),
        (["DATASETS.TEST", "()", "MODEL.CLASSIFIER.NUM_CLASSES", "1000"], imagenet_titles()),
        (["DATASETS.TEST", "()", "MODEL.CLASSIFIER.NUM_CLASSES", "1001"], ["background", *imagenet_titles()]),
    ],
)
def test_class_names_are_known_where_the_data_set_is_at_hand_and_fits(folder, options, names):
    assert class_names(load_config(TINY, [*overrides(folder), *options])) == names


def test_a_data_set_that_is_not_there_leaves_classes_without_names(folder, tmp_path):
    cfg = load_config(TINY, [*overrides(folder), "DATASETS.CLASSIFICATION", "[('toy', '/nowhere')]"])
    (image,) = ClassifiedImages(cfg, [folder / "data/sky/0.png"])
    assert image.title.startswith(f"class {image.numbers['label']} ")


def write_file(path, folder, halting="sact"):
    """An HDF5 file of four images of one size; returns them and their record."""
    cfg = load_config(TINY, ["MODEL.SACT.HALTING", halting])
    write_random_weights(folder / f"{halting}.pth", cfg)
    cfg = load_config(TINY, ["MODEL.SACT.HALTING", halting, "MODEL.WEIGHTS", str(folder / f"{halting}.pth")])
    model = ClassPredictor(cfg).model
    images = torch.randint(0, 256, (4, 3, 40, 56), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        record = model.classify((images - 127.5) / 127.5).ponder
    with writing_ponder_file(path, "imagenet", halting) as writer:
        writer.append([f"test.npz: image {index}" for index in range(4)], images / 127.5 - 1, record)
    return images.byte().permute(0, 2, 3, 1).numpy(), record


@pytest.mark.parametrize("halting", ["sact", "act"])
def test_a_file_is_drawn_without_a_model(tmp_path, halting):
    images, record = write_file(tmp_path / "x.h5", tmp_path, halting)
    tool.main(["--from-hdf5", str(tmp_path / "x.h5"), "--output", str(tmp_path / "out")])
    content = read_json(tmp_path / "out/ponder.json")
    maps = record.map((40, 56)).numpy()
    assert content["limits"] == pytest.approx(np.percentile(maps, [0.1, 99.9]), abs=2e-3)
    for index, (row, image, ponder_map) in enumerate(zip(content["images"], images, maps)):
        assert row["file"] == f"test.npz: image {index}" and row["flops"] == int(record.flops[index])
        assert row["picture"] == f"{sorted_name(row['mean_ponder_cost'], f'test.npz_image_{index}')}.png"
        picture = read(tmp_path / "out" / row["picture"])
        assert place(picture, enlarged(image)) and place(picture, enlarged(colorize(ponder_map, content["limits"])))
    pictures = {row["picture"] for row in content["images"]}
    assert {path.name for path in (tmp_path / "out").iterdir()} == pictures | {"sheet.png", "ponder.json"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --config-file and --input, or --from-hdf5"),
        (["--config-file", TINY], "give --config-file and --input, or --from-hdf5"),
        (["--from-hdf5", "nowhere.h5"], "nowhere.h5: no such HDF5 file"),
        (["--from-hdf5", TINY], f"{TINY}: not an HDF5 file"),
        (["--from-hdf5", "x.h5", "--config-file", TINY], "--config-file does not go with --from-hdf5"),
        (["--from-hdf5", "x.h5", "--input", TINY], "--input does not go with --from-hdf5"),
        (["--from-hdf5", "x.h5", "--image-size", "8"], "--image-size does not go with --from-hdf5"),
        (["--from-hdf5", "x.h5", "SEED", "1"], "config overrides do not go with --from-hdf5; got SEED 1"),
        (["--config-file", TINY, "--image-size", "0", "--input", TINY], "--image-size must be positive; got 0"),
        (
            ["--config-file", TINY, "--confidence-threshold", "0.5", "--input", TINY],
            "--confidence-threshold does not go with a classifier",
        ),
        (
            ["--config-file", str(ROOT / "configs/tests/tiny.yaml"), "--image-size", "8", "--input", TINY],
            "--image-size does not go with a detector",
        ),
        (["--config-file", TINY, "--input", TINY, "--per-block", "MODEL.WEIGHTS", ""], "MODEL.WEIGHTS is empty"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(tmp_path, capsys, flags, message):
    line = error_line(capsys, tool.main, ["--output", str(tmp_path / "out"), *flags])
    assert line.startswith(message)
    assert not (tmp_path / "out").exists()


def test_a_plain_networks_file_cannot_be_drawn(tmp_path, capsys):
    write_file(tmp_path / "x.h5", tmp_path, "none")
    line = error_line(capsys, tool.main, ["--from-hdf5", str(tmp_path / "x.h5"), "--output", str(tmp_path / "out")])
    assert line == f"{tmp_path / 'x.h5'}: of a plain network: it holds FLOPs, but no ponder costs"
    with PonderFile(tmp_path / "x.h5") as file:
        assert file.rule.name == "none"


def test_a_broken_image_is_named_before_anything_is_drawn(folder, tmp_path, capsys):
    (tmp_path / "x.png").write_bytes(b"x")
    command = ["--config-file", TINY, "--input", str(folder / "data/sky"), str(tmp_path / "x.png")]
    line = error_line(capsys, tool.main, [*command, "--output", str(tmp_path / "out"), *overrides(folder)])
    assert line.startswith(f"{tmp_path / 'x.png'}: the image cannot be read")
    assert not list((tmp_path / "out").iterdir())
