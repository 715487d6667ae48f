"""Regions that no image has, or far too many, go through the box head: a finite score for each and every class."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from test_detector import example, make_model

from sact_det.execution import set_execution
from sact_det.rule import ledger

REGIONS = {
    "none": [],
    "one": [[1.0, 2, 60, 70]],
    "without area": [[50.0, 40, 50, 40], [10, 10, 10, 60]],
    "outside the image": [[500.0, 500, 600, 700], [-90, -80, -10, -5]],
    "larger than the image": [[-1e4, -1e4, 1e4, 1e4]],
    "5,000": [[1.0, 2, 60, 70]] * 5000,
}


@torch.no_grad()
@pytest.mark.parametrize("rejection", ["False", "True"])
@pytest.mark.parametrize("kind", REGIONS)
def test_every_region_has_finite_scores_and_the_same_under_every_execution(kind: str, rejection: str):
    keys = ("MODEL.SACT.REJECTION", rejection, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", "4")
    model, boxes = make_model(*keys).eval(), torch.tensor(REGIONS[kind]).view(-1, 4)
    predictor = model.roi_heads.box_predictor
    predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image = 0.0, 1.0, -1
    images, found = model.preprocess_image([example(97, 131)]), []
    proposals = Instances((97, 131), proposal_boxes=Boxes(boxes), objectness_logits=torch.zeros(len(boxes)))
    for execution in ("dense", "auto"):
        set_execution(model, execution)
        with ledger.open(images.image_sizes) as spent:
            (own,), _ = model.roi_heads(images, model.backbone(images.tensor), [proposals], None)
        assert spent.regions("box_head") == [len(boxes)] and spent.rejected("box_head").tolist() == [0]
        found.append(own.scores.sort()[0])
        assert len(own) == 3 * len(boxes) and own.scores.isfinite().all()
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
