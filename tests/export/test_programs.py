"""Program files serve images of any size."""

import copy

import pytest
import torch
from tiny_classifier import config

from sact_det.classification.meta_arch import SACTClassifier
from sact_det.export.forms import ClassifierForm
from sact_det.export.programs import FORMATS, write_program
from sact_det.export.verification import differences


@pytest.fixture(scope="module")
def model():
    """A classifier whose positions halt at different units."""
    model = SACTClassifier(config(None, "MODEL.SACT.UNITS", "(2, 1, 1, 1)"))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "halting" in name and parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


@torch.no_grad()
def test_a_file_of_torch_export_serves_other_sizes_and_numbers_of_images(tmp_path, model):
    generator = torch.Generator().manual_seed(0)
    example, images = (255 * torch.rand(shape, generator=generator) for shape in ((2, 3, 64, 72), (3, 3, 97, 81)))
    expected = ClassifierForm.reference(model, images)
    assert expected["ponder_cost_block1"].std() > 0
    form = ClassifierForm(copy.deepcopy(model))
    write_program("torch_export", form, example, form.axes, tmp_path / "x.pt2")
    program = FORMATS["torch_export"].load(tmp_path / "x.pt2")
    assert max(differences(expected, program(images)).values()) < 1e-3
