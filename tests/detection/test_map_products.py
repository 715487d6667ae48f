"""Block 4's first 1x1 products made on the map in front of RoIAlign: what a detector computes, learns and spends."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torchvision.ops import roi_align

from sact_det.base.errors import InputError
from sact_det.detection.checkpoint import DetectorCheckpointer
from sact_det.detection.reference import DetectorReference
from sact_det.execution import EXECUTIONS, perforated, set_execution
from sact_det.execution.cpu import library
from sact_det.execution.release import release_weights
from sact_det.network.norm import TF_EPSILON
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.rule import ledger
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")
CHANNELS, WIDTH, STRIDE = 128, 64, 16
BIASES = {"act": 1.5, "sact": -1.0}  # of halting branches, so that some positions or regions halt
SIZES = [(96, 128), (75, 90)]
BOXES = [
    [[3.0, 4, 60, 70], [0, 0, 128, 96], [50, 30, 52, 33], [20, 20, 20, 50], [-40, -30, 30, 20]],
    [[-9.0, 20, 100, 66], [10, 5, 80, 70], [200, 200, 260, 260]],
]

needs_kernels = pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))


def settings(**keys: object) -> list[str]:
    keys = {"BOX_HEAD_MAP_PRODUCTS": True, **keys}
    return [word for key, value in keys.items() for word in (key if "." in key else f"MODEL.SACT.{key}", str(value))]


def make_model(**keys: object) -> nn.Module:
    """A detector with values everywhere in block 4, and scores behind which some positions halt."""
    torch.manual_seed(0)
    model = build_model(load_config(TINY, settings(**keys))).eval()
    head = model.roi_heads.res5
    for name, value in head.state_dict().items():
        if value.dim() == 1 and name.endswith(("running_var", "weight")):
            value.uniform_(0.5, 1.5)
        elif value.dim() == 1 and name.endswith(("running_mean", "bias")):
            value.normal_(std=0.5)
    return model


def features() -> Tensor:
    """A map of two images, zero at padding."""
    x = torch.randn(2, CHANNELS, 6, 8, generator=torch.Generator().manual_seed(1))
    for own, (height, width) in zip(x, SIZES):
        own[:, math.ceil(height / STRIDE) :] = 0
        own[:, :, math.ceil(width / STRIDE) :] = 0
    return x


def proposals(boxes=BOXES) -> list[Instances]:
    found = []
    for size, own in zip(SIZES, boxes):
        corners = torch.tensor(own, dtype=torch.float32).reshape(-1, 4)
        logits = torch.linspace(-1, 1, len(corners))
        found.append(Instances(size, proposal_boxes=Boxes(corners), objectness_logits=logits))
    return found


def regions_of(heads: nn.Module, x: Tensor, boxes=BOXES) -> Tensor:
    """What the box predictor reads, before the mean."""
    sizes = [tuple(math.ceil(side / STRIDE) for side in size) for size in SIZES]
    return heads._shared_roi_transform(heads.res5.products(x, sizes), [own.proposal_boxes for own in proposals(boxes)])


def literal(heads: nn.Module, x: Tensor, boxes=BOXES, max_pool: bool = False, resolution: int = 14) -> Tensor:
    """The same of a plain block 4: features are normalised and rectified before pooling; then it goes on by regions."""
    weights = dict(heads.res5.state_dict(keep_vars=True))
    stride = 1 if max_pool else 2

    def norm(x: Tensor, name: str) -> Tensor:
        own = [weights[f"{name}.{end}"] for end in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *own, eps=TF_EPSILON))

    def conv(x: Tensor, name: str, **how: int) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), **how)

    def pool(x: Tensor) -> Tensor:
        found = roi_align(x, [torch.tensor(own).reshape(-1, 4).to(x) for own in boxes], resolution, 1 / STRIDE, 0, True)
        return F.max_pool2d(found, 2) if max_pool else found

    first, second = "block4.units.0", "block4.units.1"
    preact = norm(x, f"{first}.preact")
    exists = torch.zeros_like(preact[:, :1])
    for own, (height, width) in zip(exists, SIZES):
        own[:, : math.ceil(height / STRIDE), : math.ceil(width / STRIDE)] = 1
    preact = preact * exists
    if max_pool:  # which is not linear: products are pooled
        inner = pool(F.conv2d(preact, weights[f"{first}.conv1.weight"]))
        shortcut = pool(F.conv2d(preact, weights[f"{first}.shortcut.weight"]))
        shortcut = shortcut + weights[f"{first}.shortcut.bias"][:, None, None]
    else:  # products of what is pooled, the usual order
        pooled = pool(preact)
        inner, shortcut = conv(pooled, f"{first}.conv1"), conv(pooled, f"{first}.shortcut", stride=stride)
    y = conv(norm(inner, f"{first}.norm1"), f"{first}.conv2", stride=stride, padding=1)
    y = shortcut + conv(norm(y, f"{first}.norm2"), f"{first}.conv3")
    residual = norm(conv(norm(y, f"{second}.preact"), f"{second}.conv1"), f"{second}.norm1")
    y = y + conv(norm(conv(residual, f"{second}.conv2", padding=1), f"{second}.norm2"), f"{second}.conv3")
    return norm(y, "postnorm")


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("max_pool", [False, True])
@pytest.mark.parametrize("resolution", [14, 7, 8])
def test_features_are_those_of_norm_and_relu_before_pooling(execution: str, max_pool: bool, resolution: int):
    keys = {"BOX_HEAD_MAX_POOL": max_pool, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": resolution}
    heads = make_model(HALTING="none", EXECUTION=execution, **keys).roi_heads
    x = features()
    found, expected = regions_of(heads, x), literal(heads, x, max_pool=max_pool, resolution=resolution)
    assert found.shape == (8, 2 * CHANNELS, *2 * [-(-resolution // 2) if not max_pool else resolution // 2])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.max()))


@torch.no_grad()
@pytest.mark.parametrize("rule", ["none", "act", "sact"])
@pytest.mark.parametrize("boxes", [BOXES, [BOXES[0], []], [[], []]], ids=["some", "of one image", "none"])
def test_executions_agree_whatever_halts(rule: str, boxes):
    heads = make_model(BOX_HEAD_HALTING=rule, EXECUTION="dense", EPS=0.5).roi_heads
    for name, parameter in heads.res5.named_parameters():
        if ".halting." in name and name.endswith("bias") and parameter.numel() == 1:
            parameter.fill_(BIASES[rule])
    x, known = features(), None
    for execution in EXECUTIONS:
        set_execution(heads, execution)
        with ledger.open(SIZES) as spent:
            found = regions_of(heads, x, boxes)
        _, record = spent["box_head"]
        units = record.blocks["block4"].num_units
        if known is None:
            known = found, record.flops, units
            assert len(found) == 0 or rule == "none" or 1 < float(units.double().mean()) < 2
        largest = float(known[0].max()) if len(found) else 0.0
        torch.testing.assert_close(found, known[0], rtol=1e-5, atol=1e-5 * largest)
        assert torch.equal(record.flops, known[1]) and torch.equal(units, known[2])


@needs_kernels
@torch.no_grad()
@pytest.mark.parametrize("rule", ["none", "act", "sact"])
def test_kernels_serve_in_inference_and_in_bfloat16(rule: str, monkeypatch):
    served = []
    for name in ("evaluate_block", "RowsRun"):  # at once or unit by unit
        evaluate = getattr(perforated, name)
        monkeypatch.setattr(perforated, name, lambda *args, by=evaluate: (served.append(by), by(*args))[1])
    heads = make_model(BOX_HEAD_HALTING=rule, EXECUTION="auto").roi_heads
    exact = regions_of(heads, features())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = regions_of(heads, features())
    narrow = regions_of(heads.bfloat16(), features().bfloat16())
    assert len(served) >= 3
    for found in (rounded, narrow):
        assert found.dtype == torch.bfloat16
        error = (found.float() - exact).norm() / exact.norm()
        assert 1e-4 < error < 0.05


@pytest.mark.parametrize("execution", ["dense", "auto"])
@pytest.mark.parametrize("max_pool", [False, True])
def test_gradients_are_those_of_the_usual_layers(execution: str, max_pool: bool):
    heads = make_model(
        HALTING="none", NORM="FrozenBN", EXECUTION=execution, BOX_HEAD_MAX_POOL=max_pool
    ).roi_heads.train()
    x = features().requires_grad_()
    found = regions_of(heads, x)
    weighting = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    learned = {name: p for name, p in heads.res5.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(found, [x, *learned.values()], weighting)
    heads.double()
    exact = x.detach().double().requires_grad_()
    usual = literal(heads, exact, max_pool=max_pool)
    learned = {name: p for name, p in heads.res5.named_parameters() if p.requires_grad}
    expected = torch.autograd.grad(usual, [exact, *learned.values()], weighting.double())
    assert {"block4.units.0.conv1.weight", "block4.units.0.shortcut.bias"} < set(learned)
    for name, own, other in zip(["x", *learned], gradients, expected):
        scale = float(other.abs().max())
        assert scale > 0, name
        torch.testing.assert_close(own.double(), other, rtol=1e-4, atol=1e-5 * scale, msg=name)


def example(size: tuple[int, int]) -> dict[str, object]:
    truth = Instances(size, gt_boxes=Boxes(torch.tensor([[10.0, 10, 60, 60], [20, 30, 80, 70]])))
    truth.gt_classes = torch.tensor([0, 2])
    image = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return {"image": image, "instances": truth, "height": size[0], "width": size[1]}


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("rejects", [False, True])
def test_a_step_has_the_same_losses_and_gradients_under_every_execution(norm: str, rejects: bool):
    known = None
    for execution in ("dense", "perforated", "auto"):
        keys = {"NORM": norm, "REJECTION": rejects, "TAU_BOX_HEAD": 0.1, "EXECUTION": execution}
        model = make_model(**keys).train()
        torch.manual_seed(3)
        with EventStorage():
            losses = model([example(size) for size in SIZES])
        sum(losses.values()).backward()
        assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        if known is None:
            known = losses, gradient
            assert ("loss_ponder_box_head" in losses) and gradient.isfinite().all()
        for name, loss in losses.items():
            torch.testing.assert_close(loss, known[0][name], rtol=1e-4, atol=1e-6, msg=name)
        torch.testing.assert_close(gradient, known[1], rtol=1e-2, atol=1e-4 * float(known[1].abs().max()))


def test_statistics_are_learned_from_the_images_and_not_from_their_padding():
    heads = make_model(NORM="BN").roi_heads.train()
    norm = heads.res5.block4.units[0].preact
    before = norm.running_mean.clone()
    x = features()
    regions_of(heads, x)
    own = torch.cat([x[0].flatten(1), x[1, :, : math.ceil(75 / 16), : math.ceil(90 / 16)].flatten(1)], 1)
    expected = before + (1 - 0.997) * (own.mean(1) - before)
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-4, atol=1e-6)


def per_region() -> tuple[int, int]:
    """FLOPs of block 4's two plain units on a region of 14x14, in full and behind the products."""
    products = 2 * CHANNELS * (WIDTH * 14 * 14 + 4 * WIDTH * 7 * 7)
    rest = 2 * (9 * WIDTH * WIDTH + WIDTH * 4 * WIDTH) * 7 * 7
    second = 2 * (4 * WIDTH * WIDTH + 9 * WIDTH * WIDTH + WIDTH * 4 * WIDTH) * 7 * 7
    return products + rest + second, rest + second


@torch.no_grad()
@pytest.mark.parametrize("rejects", [False, True])
def test_products_count_for_every_image_and_the_reference_is_the_usual_network(rejects: bool):
    model = make_model(HALTING="none", REJECTION=rejects, **{"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.2})
    if rejects:
        model.roi_heads.rejection.bias.fill_(1.5)
        model.roi_heads.rejection.conv.weight.normal_(std=0.15)
    in_full, behind = per_region()
    outputs = model([example(size) for size in SIZES])
    for output, (height, width) in zip(outputs, SIZES):
        positions = math.ceil(height / STRIDE) * math.ceil(width / STRIDE)
        on_map = 2 * CHANNELS * 5 * WIDTH * positions + (2 * CHANNELS * 9 * positions if rejects else 0)
        assert output["box_head_flops"] == output["regions"] * behind + on_map
        assert (output["rejected_regions"] > 0) == rejects
    cfg = load_config(TINY, settings(HALTING="none", REJECTION=rejects))
    for reference in (DetectorReference.of(model), DetectorReference.from_config(cfg)):
        assert reference.by_region["box_head"] == in_full


def test_how_many_regions_pay_for_the_map():
    """The numbers of docs/TRAINING.md: ResNet-101 C4 at 600x800."""
    unit = ResNetV2Spec(base_channels=64).build_unit(4, first=True, halting=None)
    on_map = int(unit.product_flops(*2 * [torch.tensor(38 * 50)]))
    found = []
    for resolution, left in ((14, 7), (7, 7), (8, 4), (7, 4)):  # the second: behind max pooling
        of_one = int(unit.product_flops(torch.tensor(resolution**2), torch.tensor(left**2)))
        assert on_map * (resolution**2 + 4 * left**2) == of_one * 5 * 38 * 50
        found.append(math.ceil(on_map / of_one))
    assert found == [25, 39, 75, 85]
    coco = str(Path(TINY).parents[1] / "COCO/sact_R_101_C4_tau_0.005.yaml")
    cfg = load_config(coco, ["DATASETS.COCO_FORMAT", "[]", "MODEL.DEVICE", "cpu"])
    usual = DetectorReference.from_config(cfg).flops((600, 800), 300)
    saved = 300 * int(unit.product_flops(torch.tensor(14 * 14), torch.tensor(7 * 7))) - on_map
    numbers = [usual["box_head"], usual["box_head"] - saved, usual["total"], usual["total"] - saved]
    assert [round(number / 1e9, 1) for number in numbers] == [485.5, 372.2, 657.2, 543.9]


@torch.no_grad()
def test_without_regions_there_is_nothing_to_find():
    model = make_model()
    empty = proposals([[], []])
    with ledger.open(SIZES) as spent:
        found, _ = model.roi_heads(None, {"res4": features()}, empty, None)
    assert [len(own) for own in found] == [0, 0] and spent.regions("box_head") == [0, 0]
    assert spent.flops("box_head").tolist() == [2 * CHANNELS * 5 * WIDTH * number for number in (6 * 8, 5 * 6)]


@needs_kernels
@torch.no_grad()
def test_released_weights_leave_what_makes_products():
    model = make_model(EXECUTION="auto")
    images = [example(SIZES[0])]
    (before,) = model(images)
    release_weights(model)
    (after,) = model(images)
    assert torch.equal(before["instances"].scores, after["instances"].scores) and len(before["instances"])
    first, second = model.roi_heads.res5.block4.units
    assert first.conv2.weight.is_meta and second.conv1.weight.is_meta and not first.conv1.weight.is_meta


def test_weights_are_for_one_order_of_norm_and_pooling(tmp_path):
    model = make_model()
    usual = build_model(load_config(TINY, settings(BOX_HEAD_MAP_PRODUCTS=False)))
    assert [*model.state_dict()] == [*usual.state_dict()]
    DetectorCheckpointer(model, str(tmp_path)).save("products")
    DetectorCheckpointer(model, evaluate=True).load(str(tmp_path / "products.pth"))
    with pytest.raises(InputError, match=r"they need MODEL\.SACT\.BOX_HEAD_MAP_PRODUCTS True, the config has False"):
        DetectorCheckpointer(usual).load(str(tmp_path / "products.pth"))


def test_only_what_is_linear_commutes_with_products():
    with pytest.raises(InputError, match=r"BOX_HEAD_MAP_PRODUCTS True needs MODEL\.ROI_BOX_HEAD\.POOLER_TYPE ROIAlign"):
        load_config(TINY, settings(**{"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIPool"}))


def test_a_block_says_whether_it_needs_products():
    block = make_model().roi_heads.res5.block4
    with pytest.raises(ValueError, match="`shortcut` is missing, but `reads_products` is True"):
        block(torch.zeros(1, WIDTH, 14, 14))
    block.reads_products = False
    with pytest.raises(ValueError, match="`shortcut` is given, but `reads_products` is False"):
        block(torch.zeros(1, CHANNELS, 14, 14), shortcut=torch.zeros(1, 2 * CHANNELS, 7, 7))
