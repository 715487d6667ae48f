"""From a config to the model and trainer that its meta-architecture asks for."""

from pathlib import Path

import pytest
from detectron2.modeling import build_model

from sact_det.base.errors import InputError
from sact_det.classification.meta_arch import SACTClassifier
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.detection.meta_arch import SACTGeneralizedRCNN, SACTPanopticFPN, SACTRetinaNet
from sact_det.detection.pyramid import extractor_of
from sact_det.detection.trainer import DetectionTrainer
from sact_det.tasks import load_config, task_of

CONFIGS = Path(__file__).parents[1] / "configs"
NARROW = ("MODEL.SACT.BASE_CHANNELS", "4", "DATASETS.COCO_FORMAT", "[]", "MODEL.DEVICE", "cpu")


@pytest.mark.parametrize("name", sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.glob("*/[a-z]*.yaml")))
def test_every_config_builds_the_model_and_finds_the_trainer_of_its_task(name):
    cfg = load_config(str(CONFIGS / name), NARROW)
    model, trainer = build_model(cfg), task_of(cfg).trainer
    if cfg.MODEL.META_ARCHITECTURE == "SACTClassifier":
        assert isinstance(model, SACTClassifier) and trainer is ClassificationTrainer
        spec = model.spec
    else:
        assert isinstance(model, (SACTGeneralizedRCNN, SACTRetinaNet, SACTPanopticFPN)) and trainer is DetectionTrainer
        spec = extractor_of(model.backbone).spec
    assert (spec.units, spec.halting) == (tuple(cfg.MODEL.SACT.UNITS), cfg.MODEL.SACT.HALTING)


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("MODEL.META_ARCHITECTURE", "SACTGeneralizedRCNN, SACTRetinaNet, SACTPanopticFPN, SACTClassifier"),
        ("MODEL.BACKBONE.NAME", "build_sact_resnet_backbone"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "RPN, RRPN"),
        ("MODEL.RPN.HEAD_NAME", "StandardRPNHead"),
        ("MODEL.ANCHOR_GENERATOR.NAME", "DefaultAnchorGenerator, RotatedAnchorGenerator"),
        ("MODEL.ROI_HEADS.NAME", "SACTRes5ROIHeads"),
    ],
)
def test_a_name_nobody_registered_is_refused_in_one_line_with_those_that_are(key, known):
    with pytest.raises(InputError) as error:
        load_config(str(CONFIGS / "tests/tiny.yaml"), [key, "foo"])
    message = str(error.value)
    assert message.startswith(f"{key} must be one of ") and message.endswith("; got 'foo'") and "\n" not in message
    assert known in message


def test_without_a_config_file_the_meta_architecture_is_asked_for():
    with pytest.raises(InputError, match=r"MODEL\.META_ARCHITECTURE must be one of .*; got 'GeneralizedRCNN'"):
        load_config("")
