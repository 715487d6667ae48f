"""A whole detector finds the same in both executions."""

from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from lively_detector import write_lively_detector

from sact_det.tasks import load_config

CONFIG = Path(__file__).parents[2] / "configs/tests/tiny.yaml"


@torch.no_grad()
@pytest.mark.parametrize("execution", ["perforated", "auto"])
def test_detections_are_the_same_for_images_of_different_size(tmp_path: Path, execution: str):
    weights = write_lively_detector(tmp_path / "lively.pth", str(CONFIG))
    generator = torch.Generator().manual_seed(1)
    sizes = [(61, 90), (48, 57)]
    images = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]
    batch = [{"image": image, "height": image.shape[1], "width": image.shape[2]} for image in images]
    found = []
    for choice in ("dense", execution):
        cfg = load_config(str(CONFIG), ["MODEL.SACT.EXECUTION", choice, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"])
        model = build_model(cfg).eval()
        DetectionCheckpointer(model).load(weights)
        units = model.backbone.extract(*_tensor(model, batch))[1].blocks["block3"].num_units
        assert units.float().std() > 0
        found.append((units, model(batch)))
    (units, dense), (same_units, other) = found
    assert torch.equal(units, same_units)
    for expected, actual in zip(dense, other):
        expected, actual = expected["instances"], actual["instances"]
        assert len(expected) == len(actual) > 0
        assert torch.equal(expected.pred_classes, actual.pred_classes)
        torch.testing.assert_close(actual.scores, expected.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(actual.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-3, atol=1e-2)


def _tensor(model: torch.nn.Module, batch: list[dict]) -> tuple[torch.Tensor, list]:
    images = model.preprocess_image(batch)
    return images.tensor, images.image_sizes
