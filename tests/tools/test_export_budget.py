"""tools/export.py --budget: a file makes images smaller as the model does, and answers for those it was given.

torch.export reasons for a minute about such sizes: what it records of them is in tests/budget/test_image_scale.py.
"""

from pathlib import Path

import pytest
import torch
from command_lines import ROOT, load_tool
from PIL import Image
from random_detector import write_random_detector
from random_weights import write_random_weights

from sact_det.budget import FILE_NAME, BudgetPoint, BudgetTable, weights_digest
from sact_det.budget.budgeted import halting_blocks
from sact_det.classification.predictor import load_classifier
from sact_det.detection.predictor import load_detector
from sact_det.export.forms import BackboneForm, ClassifierForm, DetectorForm
from sact_det.export.programs import FORMATS
from sact_det.export.verification import differences
from sact_det.tasks import load_config

SCALE = 0.61
MASKS = ("MODEL.MASK_ON", "True")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Three crops of a photograph, which a network sees as large as its kind of file takes them."""
    pixels = pytest.importorskip("sklearn.datasets").load_sample_image("china.jpg")
    folder = tmp_path_factory.mktemp("photographs")
    for index, (height, width) in enumerate(((130, 180), (157, 124), (140, 140))):
        Image.fromarray(pixels[100 : 100 + 2 * height : 2, 50 : 50 + 2 * width : 2]).save(folder / f"{index}.png")
    return folder


def calibrated(folder, name, *more):
    """A tiny network with random weights and a budget: words of a command line, the model at it, what is recorded."""
    config = str(ROOT / f"configs/tests/{name}.yaml")
    size = ("INPUT.MIN_SIZE_TEST", "128", "INPUT.MAX_SIZE_TEST", "256")
    if name == "tiny_classifier":
        more = (*more, "INPUT.CLASSIFICATION.SIZE_TEST", "160")
        weights = write_random_weights(folder / "w.pth", load_config(config, [*more]))
        load, form = load_classifier, ClassifierForm
    else:
        threshold = "MODEL.RETINANET" if name == "tiny_retinanet" else "MODEL.ROI_HEADS"
        more = (*more, *size, f"{threshold}.SCORE_THRESH_TEST", "0.01")
        weights = write_random_detector(folder / "w.pth", config, *more)
        load, form = load_detector, DetectorForm
    words = [*more, "MODEL.WEIGHTS", str(weights)]
    model = load(load_config(config, words))
    shifts = dict.fromkeys(halting_blocks(model), 0.7)
    point = BudgetPoint(0.5, shifts, 0.5, scale=SCALE)
    BudgetTable(weights_digest(model), "network", 0.1, (point,)).write(folder / FILE_NAME)
    model.set_budget(0.5, folder / FILE_NAME)
    return ["--config-file", config, "--budget", "0.5", *words], model, form


@pytest.mark.parametrize(
    ("name", "kind", "more"),
    [
        ("tiny", "onnx", ()),
        ("tiny_fpn", "onnx", MASKS),
        ("tiny_classifier", "onnx", ()),
        ("tiny_retinanet", "torchscript", ()),
        ("tiny_fpn", "torchscript", (*MASKS, "--part", "backbone")),
    ],
)
@torch.no_grad()
def test_a_file_at_a_budget_that_makes_images_smaller_is_the_model_there(tmp_path, photographs, name, kind, more):
    for package in FORMATS[kind].packages:
        pytest.importorskip(package)
    part = more[-2:] if "--part" in more else ()
    (tmp_path / "weights").mkdir()
    words, model, form = calibrated(tmp_path / "weights", name, *more[: len(more) - len(part)])
    form = BackboneForm if part else form
    out = tmp_path / f"x{FORMATS[kind].suffix}"
    own = ["--format", kind, "--output", str(out), "--images", str(photographs), *part]
    load_tool("export").main([*words[:2], *own, *words[2:]])
    program = FORMATS[kind].load(out)
    image = torch.rand(3, 163, 219, generator=torch.Generator().manual_seed(0)) * 255
    x = torch.stack([image, image / 2]) if name == "tiny_classifier" else image
    expected = form.reference(model, x)
    assert expected["ponder_map"].shape[-2:] == (163, 219)
    assert "boxes" not in expected or len(expected["boxes"])
    assert max(differences(expected, program(x)).values()) < 2e-2
    if "masks" in expected:
        assert expected["masks"].shape[1:] == (163, 219) and expected["masks"].any()
    model.image_scale = 1.0
    whole = form.reference(model, x)
    assert (expected["flops"] < 0.6 * whole["flops"]).all()
