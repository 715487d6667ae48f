"""The LazyConfig's model is the yaml's."""

import pytest
import torch
from command_lines import ROOT
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_model

from sact_det.tasks import load_config

FILE = ROOT / "sact_det/lazy/faster_rcnn_fpn.py"
YAML = str(ROOT / "configs/COCO/sact_R_50_FPN_tau_0.005_1x.yaml")


@pytest.fixture(scope="module")
def models():
    """The LazyConfig's and the yaml's, with the weights of the yaml's."""
    lazy = instantiate(LazyConfig.load(str(FILE)).model)
    yaml = build_model(load_config(YAML, ["MODEL.DEVICE", "cpu"]))
    assert {k: v.shape for k, v in lazy.state_dict().items()} == {k: v.shape for k, v in yaml.state_dict().items()}
    lazy.load_state_dict(yaml.state_dict())
    for model in (lazy, yaml):
        model.eval().set_execution("dense")
        model.roi_heads.box_predictor.test_score_thresh = 0.0
    return lazy, yaml


@torch.no_grad()
def test_the_model_finds_what_the_yamls_finds(models):
    image = 255 * torch.rand(3, 60, 90, generator=torch.Generator().manual_seed(0))
    (lazy,), (yaml,) = (model([{"image": image}]) for model in models)
    assert len(lazy["instances"]) == len(yaml["instances"]) > 0
    assert torch.equal(lazy["instances"].pred_classes, yaml["instances"].pred_classes)
    torch.testing.assert_close(lazy["instances"].pred_boxes.tensor, yaml["instances"].pred_boxes.tensor)
    torch.testing.assert_close(lazy["instances"].scores, yaml["instances"].scores)
    assert lazy["flops"] == yaml["flops"]


def test_the_model_is_trained_alike(models):
    lazy, yaml = models
    assert lazy.prices == yaml.prices and lazy.reference == yaml.reference and lazy.input_format == yaml.input_format
    assert lazy.backbone.bottom_up.spec == yaml.backbone.bottom_up.spec
    assert [p.requires_grad for p in lazy.parameters()] == [p.requires_grad for p in yaml.parameters()]
    for part in ("proposal_generator", "roi_heads"):
        one, other = (vars(getattr(model, part)) for model in models)
        plain = {key for key, value in other.items() if isinstance(value, (int, float, str, dict)) and key[0] != "_"}
        assert {key: one[key] for key in plain} == {key: other[key] for key in plain}


def test_the_depth_is_a_number_of_the_config():
    cfg = LazyConfig.load(str(FILE))
    cfg.model.backbone.bottom_up.spec.depth = 101
    assert instantiate(cfg.model.backbone.bottom_up.spec).units == (3, 4, 23, 3)
