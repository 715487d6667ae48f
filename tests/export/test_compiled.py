"""torch.compile of a detector's dense form finds what the detector finds."""

import pytest
import torch
from command_lines import ROOT
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from random_detector import write_random_detector

from sact_det.execution import set_execution
from sact_det.tasks import load_config


@torch.no_grad()
@pytest.mark.parametrize("name", ["tiny", "tiny_fpn"])
def test_a_compiled_detector_equals_the_eager_one_on_images_of_different_size(tmp_path, name):
    config, overrides = str(ROOT / f"configs/tests/{name}.yaml"), ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.05")
    weights = write_random_detector(tmp_path / "weights.pth", config, *overrides)
    model = build_model(load_config(config, overrides)).eval()
    DetectionCheckpointer(model).load(weights)
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=generator) * 255 for size in ((64, 75), (81, 97))]
    batches = [[{"image": image}] for image in images]
    set_execution(model, "dense")
    expected = [model(batch)[0] for batch in batches]
    set_execution(model, "export")
    torch._dynamo.reset()
    # The default backend would compile for minutes; this one differs in nothing but its kernels.
    compiled = torch.compile(model, backend="aot_eager")
    for batch, one in zip(batches, expected):
        other = compiled(batch)[0]
        assert len(one["instances"]) == len(other["instances"]) > 0
        assert torch.equal(one["instances"].pred_classes, other["instances"].pred_classes)
        torch.testing.assert_close(
            other["instances"].pred_boxes.tensor, one["instances"].pred_boxes.tensor, rtol=0, atol=1e-3
        )
        assert one["flops"] == other["flops"] and one["regions"] == other["regions"]
