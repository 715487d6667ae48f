"""A detector that starts from timm's weights extracts timm's features."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

import sact_det.detection  # noqa: F401
from sact_det.base.errors import InputError
from sact_det.detection.checkpoint import DetectorCheckpointer
from sact_det.tasks import load_config
from sact_det.weights.timm import convert_timm
from sact_det.weights.weight_file import save_weights

timm = pytest.importorskip("timm")
from timm.models.resnetv2 import ResNetV2  # noqa: E402

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")


@pytest.fixture
def theirs() -> ResNetV2:
    torch.manual_seed(0)
    norm, conv = timm.layers.BatchNormAct2d, timm.layers.create_conv2d
    return ResNetV2([1, 2, 3, 2], (32, 64, 128, 256), conv_layer=conv, norm_layer=norm).eval()


def detector(path: Path, pool: str) -> torch.nn.Module:
    model = build_model(load_config(TINY, ("MODEL.SACT.HALTING", "none", "MODEL.SACT.STEM_POOL", pool))).eval()
    DetectorCheckpointer(model).load(str(path))
    return model


@torch.no_grad()
def test_the_features_of_block_3_are_those_of_timm(theirs: ResNetV2, tmp_path: Path):
    save_weights(tmp_path / "w.pth", *convert_timm(theirs.state_dict()))
    model, x = detector(tmp_path / "w.pth", "symmetric"), torch.rand(1, 3, 64, 96) * 2 - 1
    x = x.to(model.device)
    expected = theirs.to(x.device).stages[:3](theirs.stem(x))
    assert (model.backbone(x)["res4"] - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_other_pooling_is_refused(theirs: ResNetV2, tmp_path: Path):
    save_weights(tmp_path / "w.pth", *convert_timm(theirs.state_dict()))
    with pytest.raises(InputError, match=r"they need MODEL\.SACT\.STEM_POOL symmetric, the config has same"):
        detector(tmp_path / "w.pth", "same")
