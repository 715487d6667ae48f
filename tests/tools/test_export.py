"""tools/export.py: files that compute what PyTorch does, for images of any size; or one line, and no file."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_lines import ROOT, error_line, load_tool
from PIL import Image
from random_detector import write_random_detector
from random_weights import write_random_weights

from sact_det.base.files import file_sha256
from sact_det.classification.predictor import load_classifier
from sact_det.detection.predictor import Predictor
from sact_det.export.forms import ClassifierForm
from sact_det.export.programs import FORMATS
from sact_det.export.verification import differences
from sact_det.tasks import load_config

tool = load_tool("export")
BOX_THRESHOLD = "MODEL.ROI_HEADS.SCORE_THRESH_TEST"
THRESHOLD = {"tiny_retinanet": "MODEL.RETINANET.SCORE_THRESH_TEST", "tiny_classifier": ""}
MASKS = ("MODEL.MASK_ON", "True")
KEYPOINTS = ("MODEL.KEYPOINT_ON", "True", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(8,)")
CASCADE = ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True")
# torch.export reasons about the sizes behind every operator: few units, and a pyramid of which few levels are read.
FEW_UNITS = ("MODEL.SACT.UNITS", "(1, 2, 1, 1)")
FEW_LEVELS = ("MODEL.ANCHOR_GENERATOR.SIZES", "[[8], [16]]")
OF_FPN = (*FEW_LEVELS, "MODEL.RPN.IN_FEATURES", "['p2', 'p3']", "MODEL.ROI_HEADS.IN_FEATURES", "['p2', 'p3']")
OF_RETINANET = (*FEW_LEVELS, "MODEL.RETINANET.IN_FEATURES", "['p3', 'p4']")
LARGE = ("INPUT.MIN_SIZE_TEST", "132", "INPUT.MAX_SIZE_TEST", "264")
SIZES = ((90, 120), (97, 64), (75, 75))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Crops of a photograph, of three sizes."""
    pixels = pytest.importorskip("sklearn.datasets").load_sample_image("china.jpg")
    folder = tmp_path_factory.mktemp("photographs")
    for index, (height, width) in enumerate(SIZES):
        Image.fromarray(pixels[100 : 100 + 3 * height : 3, 50 : 50 + 3 * width : 3]).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Config file and overrides, with weights, of a tiny network by its name."""
    folder, made = tmp_path_factory.mktemp("weights"), {}

    def of(name, *more):
        if (name, more) not in made:
            config, key = str(ROOT / f"configs/tests/{name}.yaml"), THRESHOLD.get(name, BOX_THRESHOLD)
            overrides = [*more, *([key, "0.01" if name == "tiny_retinanet" else "0.05"] if key else [])]
            path = folder / f"{len(made)}.pth"
            if key:
                weights = write_random_detector(path, config, *overrides)
            else:
                weights = write_random_weights(path, load_config(config))
            made[name, more] = ["--config-file", config, *overrides, "MODEL.WEIGHTS", weights]
        return made[name, more]

    return of


@pytest.fixture
def read_programs(monkeypatch):
    """Of each file that the tool reads its digest and program: to read one of torch.export once more takes a minute."""
    found = []

    def kept(load):
        def load_and_keep(path):
            found.append((file_sha256(path), load(path)))
            return found[-1][1]

        return load_and_keep

    for kind, own in FORMATS.items():
        monkeypatch.setitem(tool.FORMATS, kind, replace(own, load=kept(own.load)))
    return found


def command(network, kind, output, photographs, *more):
    return [*network[:2], "--format", kind, "--output", str(output), "--images", str(photographs), *more, *network[2:]]


@pytest.mark.parametrize(
    ("name", "kind", "more"),
    [
        ("tiny", "onnx", ()),
        ("tiny", "onnx", MASKS),
        ("tiny_fpn", "onnx", (*MASKS, *KEYPOINTS, *CASCADE)),
        ("tiny_retinanet", "onnx", ()),
        ("tiny_classifier", "onnx", ()),
        ("tiny_fpn", "torchscript", MASKS),
        ("tiny_fpn", "torchscript", KEYPOINTS),
        ("tiny_retinanet", "torchscript", ()),
        ("tiny", "torch_export", (*MASKS, *FEW_UNITS)),
        ("tiny_fpn", "torch_export", (*KEYPOINTS, *CASCADE, "MODEL.SACT.HALTING", "none", *FEW_UNITS, *OF_FPN)),
        ("tiny_retinanet", "torch_export", (*LARGE, *FEW_UNITS, *OF_RETINANET)),
    ],
)
@torch.no_grad()
def test_a_file_holds_for_images_of_a_size_that_it_was_not_verified_on(
    tmp_path, networks, photographs, read_programs, name, kind, more
):
    for package in FORMATS[kind].packages:
        pytest.importorskip(package)
    path, network = tmp_path / f"model{FORMATS[kind].suffix}", networks(name, *more)
    tool.main(command(network, kind, path, photographs))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    ((digest, program),) = read_programs
    assert digest == file_sha256(path)
    image = torch.rand(3, 139, 171, generator=torch.Generator().manual_seed(0)) * 255
    if name == "tiny_classifier":
        images = torch.stack([image, image.flip(2), image / 2])
        expected = ClassifierForm.reference(load_classifier(load_config(network[1], network[2:])), images)
        assert expected["logits"].shape == (3, 3) and expected["ponder_map"].shape == (3, 139, 171)
        assert max(differences(expected, program(images)).values()) < 1e-4
        return
    model = Predictor(load_config(network[1], [*network[2:], "MODEL.DEVICE", "cpu"])).model
    output, actual = model([{"image": image}])[0], program(image)
    expected, ponder = output["instances"], output["ponder"]
    assert len(expected) > 0
    torch.testing.assert_close(actual["boxes"], expected.pred_boxes.tensor, rtol=0, atol=1e-2)
    torch.testing.assert_close(actual["scores"], expected.scores, rtol=0, atol=1e-4)
    assert torch.equal(actual["classes"], expected.pred_classes)
    assert ("masks" in actual) == expected.has("pred_masks") == (MASKS[0] in more)
    assert ("keypoints" in actual) == expected.has("pred_keypoints") == (KEYPOINTS[0] in more)
    if "masks" in actual:  # a pixel may lie on the threshold to rounding
        assert expected.pred_masks.any() and (actual["masks"] != expected.pred_masks).double().mean() < 1e-4
    if "keypoints" in actual:
        torch.testing.assert_close(actual["keypoints"], expected.pred_keypoints, rtol=0, atol=1e-2)
    torch.testing.assert_close(actual["ponder_map"], ponder.map((139, 171))[0], rtol=0, atol=1e-3)
    assert int(actual["flops"]) == int(ponder.flops)
    for block, own in ponder.blocks.items():
        torch.testing.assert_close(actual[f"ponder_cost_{block}"], own.ponder_cost[0], rtol=0, atol=1e-3)


@torch.no_grad()
def test_the_features_of_a_pyramid_are_those_of_the_padded_image(tmp_path, networks, photographs):
    network = networks("tiny_fpn")
    tool.main(command(network, "torchscript", tmp_path / "x.pt", photographs, "--part", "backbone"))
    model = Predictor(load_config(network[1], [*network[2:], "MODEL.DEVICE", "cpu"])).model
    image = torch.rand(3, 83, 131, generator=torch.Generator().manual_seed(0)) * 255
    features = FORMATS["torchscript"].load(tmp_path / "x.pt")(image)
    seen = {}
    hook = model.backbone.register_forward_hook(lambda module, inputs, output: seen.update(output))
    model([{"image": image}])
    hook.remove()
    assert list(seen) == ["p2", "p3", "p4", "p5", "p6"] and seen["p2"].shape[2:] == (24, 40)
    for name, value in seen.items():
        torch.testing.assert_close(features[name], value, rtol=0, atol=1e-4 * float(value.abs().max()))


def test_a_file_that_computes_something_else_does_not_appear(tmp_path, networks, photographs, monkeypatch, capsys):
    (tmp_path / "x.pt").write_text("precious")
    load = FORMATS["torchscript"].load

    def off(path):
        program = load(path)
        return lambda image: {name: value * 1.01 for name, value in program(image).items()}

    monkeypatch.setitem(
        tool.FORMATS, "torchscript", FORMATS["torchscript"].__class__(".pt", (), FORMATS["torchscript"].write, off)
    )
    line = error_line(
        capsys, tool.main, command(networks("tiny_classifier"), "torchscript", tmp_path / "x.pt", photographs)
    )
    assert "--format torchscript: the file is not the model on an image of [" in line and "logits differ by" in line
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"] and (tmp_path / "x.pt").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "kind", "more", "message"),
    [
        ("tiny_retinanet", "torch_export", (), "--images: with this format the model takes images whose height is 129"),
        ("tiny_panoptic", "torchscript", (), "MODEL.META_ARCHITECTURE SACTPanopticFPN: "),
        ("tiny", "torchscript", ("MODEL.SACT.REJECTION", "True"), "MODEL.SACT.REJECTION: "),
        ("tiny", "torchscript", ("MODEL.SACT.RPN_POSITIONS", "active"), "MODEL.SACT.RPN_POSITIONS must be 'all'"),
        ("tiny_classifier", "torchscript", ("--part", "backbone"), "--part backbone is for detectors"),
    ],
)
def test_what_cannot_be_exported_is_one_line(tmp_path, networks, photographs, capsys, name, kind, more, message):
    line = error_line(capsys, tool.main, command(networks(name, *more), kind, tmp_path / "x", photographs))
    assert line.startswith(message)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_one_line_with_the_extra(tmp_path, networks, photographs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    line = error_line(capsys, tool.main, command(networks("tiny"), "onnx", tmp_path / "x.onnx", photographs))
    assert line.startswith("onnx is not installed; pip install 'sact_det[export]'")
    assert not list(tmp_path.iterdir())
