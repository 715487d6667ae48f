import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from closed_form import extractor_flops
from command_lines import load_tool
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from picture_search import place
from PIL import Image
from random_detector import write_random_detector
from torch import nn

from sact_det.data.image_files import read_checked
from sact_det.detection.class_names import class_names
from sact_det.detection.drawing import draw_detections
from sact_det.detection.pictures import pale
from sact_det.detection.predictor import Predictor
from sact_det.pictures.colors import blend, colorize
from sact_det.pictures.folder import sorted_name
from sact_det.pictures.panels import display_scale
from sact_det.tasks import load_config

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/visualize.py"
TINY = str(ROOT / "configs/tests/tiny.yaml")


tool = load_tool("visualize")


def save_random_weights(path, *overrides):
    """Weights whose halting scores differ from position to position."""
    torch.manual_seed(0)
    model = build_model(load_config(TINY, overrides))
    for conv in (part for part in model.backbone.modules() if isinstance(part, nn.Conv2d) and part.out_channels == 1):
        nn.init.normal_(conv.weight, std=3 * conv.weight[0].numel() ** -0.5)
        nn.init.zeros_(conv.bias) if conv.bias is not None else None
    torch.save({"model": model.state_dict()}, path)
    return ["MODEL.WEIGHTS", str(path)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_random_weights(tmp_path_factory.mktemp("weights") / "model.pth")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four images that need different amounts of computation, two of them with one stem."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (130, 170, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "noise.png"), noise)
    cv2.imwrite(str(folder / "noise.jpg"), cv2.GaussianBlur(noise, (0, 0), 4))
    cv2.imwrite(str(folder / "flat.png"), np.full((150, 110, 3), 90, dtype=np.uint8))
    cv2.imwrite(str(folder / "large.JPG"), cv2.resize(noise[:40, :50], (500, 400), interpolation=cv2.INTER_CUBIC))
    (folder / "notes.txt").write_text("not an image")
    return folder


def arguments(inputs, output, *more):
    return ["--config-file", TINY, "--input", *map(str, inputs), "--output", str(output), *more]


def read(path):
    return np.asarray(Image.open(path))


def run_command(argv):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run([sys.executable, str(TOOL), *argv], capture_output=True, text=True, env=environment, cwd=ROOT)


@pytest.fixture(scope="module")
def run(photos, weights, tmp_path_factory):
    """The output of one run of the command over the whole folder, with every kind of picture."""
    output = tmp_path_factory.mktemp("run") / "new" / "pictures"
    options = ["--per-block", "--overlay", "--confidence-threshold", "0.2"]
    result = run_command(arguments([photos], output, *options, *weights))
    assert result.returncode == 0, result.stderr
    return output, json.loads((output / "ponder.json").read_text())["images"]


def test_a_picture_for_every_image_a_sheet_and_the_numbers(run, photos):
    output, rows = run
    assert sorted(Path(row["file"]).name for row in rows) == ["flat.png", "large.JPG", "noise.jpg", "noise.png"]
    pictures = {row["picture"] for row in rows}
    assert len(pictures) == 4
    assert {path.name for path in output.iterdir()} == {*pictures, "sheet.png", "ponder.json"}


def test_names_of_pictures_sort_by_mean_ponder_cost(run):
    _, rows = run
    by_cost = sorted(rows, key=lambda row: row["mean_ponder_cost"])
    assert len({f"{row['mean_ponder_cost']:.2f}" for row in rows}) >= 3
    assert [row["picture"][:5] for row in by_cost] == sorted(row["picture"][:5] for row in rows)
    stems = {"flat.png": "flat", "large.JPG": "large", "noise.jpg": "noise", "noise.png": "noise_2"}
    for row in rows:
        assert row["picture"] == sorted_name(row["mean_ponder_cost"], stems[Path(row["file"]).name]) + ".png"


def test_the_numbers_are_the_models(run, weights):
    _, rows = run
    cfg = load_config(TINY, weights)
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(cfg.MODEL.WEIGHTS, weights_only=True)["model"])
    resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    for row in rows:
        image = np.asarray(Image.open(row["file"]).convert("RGB"))
        resized = resize.get_transform(image).apply_image(image)
        with torch.no_grad():
            output = model([{"image": torch.from_numpy(resized.transpose(2, 0, 1).copy())}])[0]
        record = output["ponder"]
        assert (row["height"], row["width"]) == resized.shape[:2]
        assert row["mean_ponder_cost"] == pytest.approx(float(record.mean_cost()), rel=1e-6)
        assert row["units"] == pytest.approx({k: float(b.mean_units()) for k, b in record.blocks.items()}, rel=1e-6)
        assert row["flops"] == int(record.flops) and row["box_head_flops"] == output["box_head_flops"]
        dense = extractor_flops((1, 2, 3), 8, *resized.shape[:2])
        assert row["flops_percent"] == pytest.approx(100 * row["flops"] / dense)


def test_without_photographs_boxes_are_drawn_on_the_map_in_grey(run, photos, weights, tmp_path):
    _, rows = run
    image = photos / "large.JPG"
    row = next(row for row in rows if row["file"] == str(image))
    options = ["--no-photographs", "--confidence-threshold", "0.2"]
    tool.main(arguments([image], tmp_path, *options, *weights))
    cfg = load_config(TINY, [*weights, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.2"])
    prediction = Predictor(cfg)(read_checked(image, "BGR"))
    assert len(prediction.instances) > 0
    grey = pale(prediction.ponder.map((400, 500))[0].numpy())
    assert (grey == grey[..., :1]).all() and grey.min() == 170 and grey.max() == 255
    assert place(read(tmp_path / row["picture"]), draw_detections(grey, prediction.instances, class_names(cfg)))


def test_maps_are_drawn_at_the_size_of_the_image_itself(run, weights):
    output, rows = run
    predictor = Predictor(load_config(TINY, weights))
    for row in rows:
        image = read_checked(row["file"], "RGB")
        scale = display_scale(*image.shape[:2])
        size = (scale * image.shape[0], scale * image.shape[1])
        ponder_map = predictor(image[..., ::-1]).ponder.map(size)[0].numpy()
        picture = read(output / row["picture"])
        assert place(picture, colorize(ponder_map))
        assert place(picture, blend(image.repeat(scale, 0).repeat(scale, 1), ponder_map))
        assert picture.shape[0] > 1.5 * size[0] and picture.shape[1] > 3 * size[1]


def test_the_sheet_is_in_colours_of_one_scale(run, weights):
    output, rows = run
    predictor = Predictor(load_config(TINY, weights))
    images = [read_checked(row["file"], "RGB") for row in rows]
    maps = [predictor(image[..., ::-1]).ponder.map(image.shape[:2])[0].numpy() for image in images]
    low, high = np.percentile(np.concatenate([m.ravel() for m in maps]), [0.1, 99.9])
    sheet = read(output / "sheet.png")
    # One colour of the flat image's centre, where the sheet's scale puts it: an area of it is on the sheet.
    flat = next(m for m, row in zip(maps, rows) if row["file"].endswith("flat.png"))
    cost = flat[flat.shape[0] // 2, flat.shape[1] // 2]
    expected = colorize(np.full((1, 1), cost), (low, high))[0, 0].astype(int)
    assert (np.abs(sheet.astype(int) - expected) <= 2).all(-1).sum() > 30


def test_a_broken_image_is_one_error_line_and_leaves_nothing(photos, weights, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((photos / "large.JPG").read_bytes()[:3000])
    result = run_command(arguments([broken], tmp_path / "out", *weights))
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and str(broken) in line
    assert not list((tmp_path / "out").iterdir())


def fails(capsys, argv):
    """Runs the command on bad input and returns its one error line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        tool.main(argv)
    assert exit_.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("name", ["missing.jpg", "missing_folder/", "no*match.png", "empty"])
def test_input_without_images_is_one_error_line(capsys, tmp_path, photos, weights, name):
    (tmp_path / "empty").mkdir()
    line = fails(capsys, arguments([photos / "flat.png", f"{tmp_path}/{name}"], tmp_path / "out", *weights))
    assert f"{tmp_path}/{name}" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_one_error_line(capsys, tmp_path, weights, content):
    (tmp_path / "x.png").write_bytes(content)
    assert str(tmp_path / "x.png") in fails(capsys, arguments([tmp_path / "x.png"], tmp_path / "out", *weights))
    assert not list((tmp_path / "out").iterdir())


def test_images_before_a_broken_one_are_kept(capsys, tmp_path, photos, weights):
    (tmp_path / "x.png").write_bytes(b"")
    fails(capsys, arguments([photos / "flat.png", tmp_path / "x.png"], tmp_path / "out", *weights))
    (picture,) = (tmp_path / "out").iterdir()
    assert picture.name.endswith("_flat.png") and read(picture).ndim == 3


def test_an_output_that_is_a_file_is_one_error_line(capsys, tmp_path, photos, weights):
    (tmp_path / "out").write_text("here already")
    for output in (tmp_path / "out", tmp_path / "out/below"):
        assert str(output) in fails(capsys, arguments([photos / "flat.png"], output, *weights))


def test_an_output_without_permission_is_one_error_line(capsys, tmp_path, photos, weights):
    # /proc takes no new files, not even from root.
    assert "/proc/self" in fails(capsys, arguments([photos / "flat.png"], "/proc/self/pictures", *weights))


@pytest.mark.parametrize(
    "more, named",
    [
        (["--confidence-threshold", "1.5"], "--confidence-threshold"),
        (["MODEL.WEIGHTS", ""], "MODEL.WEIGHTS"),
        (["MODEL.WEIGHTS", "/nowhere.pth"], "/nowhere.pth"),
        (["MODEL.WEIGHTS"], "KEY VALUE"),
        (["MODEL.SACT.NO_SUCH_KEY", "1"], "MODEL.SACT.NO_SUCH_KEY"),
        (["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"], "MODEL.META_ARCHITECTURE"),
    ],
)
def test_bad_options_are_one_error_line(capsys, tmp_path, photos, more, named):
    assert named in fails(capsys, arguments([photos / "flat.png"], tmp_path / "out", *more))


def test_a_plain_model_has_a_constant_map(tmp_path, photos):
    plain = save_random_weights(tmp_path / "plain.pth", "MODEL.SACT.HALTING", "none")
    options = ["--no-sheet", "MODEL.SACT.HALTING", "none", *plain]
    tool.main(arguments([photos / "noise.png"], tmp_path / "out", *options))
    (row,) = json.loads((tmp_path / "out/ponder.json").read_text())["images"]
    assert row["units"] == {"block1": 1, "block2": 2, "block3": 3} and row["flops_percent"] == pytest.approx(100)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {row["picture"], "ponder.json"}


def test_the_least_score_is_retinanet_s_too(tmp_path, photos):
    config = str(ROOT / "configs/tests/tiny_retinanet.yaml")
    weights = write_random_detector(tmp_path / "model.pth", config)
    pictures = []
    for least in ("0", "1"):
        options = ["--no-sheet", "--confidence-threshold", least, "MODEL.WEIGHTS", weights]
        output = tmp_path / least
        tool.main(["--config-file", config, "--input", str(photos / "flat.png"), "--output", str(output), *options])
        pictures.append(read(next(output.glob("*.png"))))
    assert pictures[0].shape == pictures[1].shape and (pictures[0] != pictures[1]).any()


def test_globs_and_repetitions_name_each_image_once(photos):
    flat = str(photos / "flat.png")
    found = tool.find_images([f"{photos}/*.png", flat, str(photos), f"{photos}/../{photos.name}/flat.png"])
    assert [path.name for path in found] == ["flat.png", "noise.png", "large.JPG", "noise.jpg"]
