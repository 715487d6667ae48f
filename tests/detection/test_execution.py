"""A whole detector finds the same in both executions; what PyTorch records of its extractor holds for any images."""

from pathlib import Path
from typing import Optional

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList, Instances
from feature_extraction import extract
from random_detector import write_random_detector
from torch import Tensor, nn

from sact_det.execution import EXECUTIONS
from sact_det.execution.cpu import library
from sact_det.execution.release import release_weights
from sact_det.network.branch import SpatialHalting
from sact_det.tasks import load_config

CONFIG = Path(__file__).parents[2] / "configs/tests/tiny.yaml"


@torch.no_grad()
@pytest.mark.parametrize("execution", ["perforated", "auto"])
def test_detections_are_the_same_for_images_of_different_size(tmp_path: Path, execution: str):
    weights = write_random_detector(tmp_path / "weights.pth", str(CONFIG))
    generator = torch.Generator().manual_seed(1)
    sizes = [(61, 90), (48, 57)]
    images = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]
    batch = [{"image": image, "height": image.shape[1], "width": image.shape[2]} for image in images]
    found = []
    for choice in ("dense", execution):
        cfg = load_config(str(CONFIG), ["MODEL.SACT.EXECUTION", choice, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"])
        model = build_model(cfg).eval()
        DetectionCheckpointer(model).load(weights)
        units = extract(model.backbone, *_tensor(model, batch))[1].blocks["block3"].num_units
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


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("released", [False, True])
def test_where_nothing_is_proposed_nothing_is_found(monkeypatch: pytest.MonkeyPatch, execution: str, released: bool):
    cfg = load_config(str(CONFIG), ["MODEL.SACT.EXECUTION", execution])
    model = build_model(cfg).eval()
    if released and execution in ("perforated", "auto") and library.why_unavailable() is None:
        release_weights(model)

    def no_proposals(images: ImageList, *_: object) -> tuple[list[Instances], dict]:
        nothing = {"proposal_boxes": Boxes(torch.zeros(0, 4)), "objectness_logits": torch.zeros(0)}
        return [Instances(size, **nothing) for size in images.image_sizes], {}

    monkeypatch.setattr(model.proposal_generator, "forward", no_proposals)
    image = torch.zeros(3, 40, 50, dtype=torch.uint8)
    for output in model([{"image": image, "height": 40, "width": 50}] * 2):
        assert len(output["instances"]) == output["box_head_flops"] == 0 and int(output["ponder"].flops) > 0


class Extractor(nn.Module):
    """The extractor's features, units and FLOPs as a tuple; images of different size where `sizes` are given."""

    def __init__(self, backbone: nn.Module, sizes: Optional[list[tuple[int, int]]] = None):
        super().__init__()
        self.backbone = backbone
        self.sizes = sizes

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: [N, 3, H, W]."""
        features, record = extract(self.backbone, images, self.sizes)
        return (*features.values(), *(block.num_units for block in record.blocks.values()), record.flops)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes are Python numbers, and stay what they are
@pytest.mark.parametrize("execution", ["dense", "auto"])
@pytest.mark.parametrize("sizes", [None, [(64, 72), (60, 64)]], ids=["one-size", "two-sizes"])
def test_a_trace_of_the_extractor_on_an_empty_image_holds_for_photographs(tmp_path, execution, sizes):
    datasets = pytest.importorskip("sklearn.datasets")
    pixels = [torch.tensor(image[::5, ::5][:64, :72]) for image in datasets.load_sample_images().images]
    photographs = (torch.stack(pixels).permute(0, 3, 1, 2) - 127.5) / 127.5
    for image, (height, width) in zip(photographs, sizes or []):
        image[:, height:], image[:, :, width:] = 0, 0
    model = build_model(load_config(str(CONFIG), ["MODEL.SACT.EXECUTION", execution])).eval()
    DetectionCheckpointer(model).load(write_random_detector(tmp_path / "weights.pth", str(CONFIG)))
    for module in model.backbone.modules():
        if isinstance(module, SpatialHalting):  # so that an empty image needs one unit and a photograph more
            module.local_conv.bias.fill_(4.7)
    extractor = Extractor(model.backbone, sizes)
    example = torch.zeros_like(photographs)
    deepest, expected = (max(int(units.max()) for units in extractor(x)[2:5]) for x in (example, photographs))
    assert deepest < expected
    traced = torch.jit.trace(extractor, example)
    for actual, wanted in zip(traced(photographs), extractor(photographs)):
        assert actual.shape == wanted.shape
        if wanted.is_floating_point():
            torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
        else:
            assert torch.equal(actual, wanted)
