"""fvcore's count of recorded operators is ours, which is made of hooks and of a closed form."""

import pytest
import torch
from command_lines import ROOT
from detectron2.modeling import build_model
from random_detector import write_random_detector

from sact_det.detection.analysis import counts
from sact_det.detection.checkpoint import DetectorCheckpointer
from sact_det.tasks import load_config

MASKS = ("MODEL.MASK_ON", "True")
CASCADE = ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True")
MANY = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.01")  # detections, for heads that look at them
each = pytest.mark.parametrize(
    ("name", "more"),
    [
        ("tiny", ()),
        ("tiny", (*MASKS, *MANY)),
        ("tiny_fpn", ()),
        ("tiny_fpn", (*MASKS, *CASCADE, *MANY)),
        ("tiny_retinanet", ()),
        ("tiny_panoptic", MANY),  # with masks and keypoints
    ],
)


def detector(tmp_path, name, *more):
    config, overrides = str(ROOT / f"configs/tests/{name}.yaml"), more
    model = build_model(load_config(config, overrides))
    weights = write_random_detector(tmp_path / "weights.pth", config, *overrides)
    DetectorCheckpointer(model, evaluate=True).load(weights)
    return model.eval()


@pytest.mark.filterwarnings("ignore")  # of tracing, that numbers become constants
@each
def test_the_counts_of_a_plain_detector_are_one_number(tmp_path, name, more):
    found = counts(detector(tmp_path, name, *more, "MODEL.SACT.HALTING", "none"), 255 * torch.rand(3, 96, 128))
    assert found["dense"] == found["plain"] == found["spent"] > 0


@pytest.mark.filterwarnings("ignore")
@each
def test_an_adaptive_detector_spends_less_than_its_dense_form_whose_branches_count(tmp_path, name, more):
    found = counts(detector(tmp_path, name, *more), 255 * torch.rand(3, 96, 128))
    assert found["spent"] < found["dense"] and found["plain"] < found["dense"]
