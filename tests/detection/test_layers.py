"""Pyramids, heads and poolers of Detectron2 that compute by plans give what Detectron2's own give, by the kernels."""

import copy
from typing import Any, Callable

import pytest
import torch
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
from detectron2.structures import Boxes
from torch import Tensor, nn

from sact_det.detection.layers import Convolution, Projection, plan_layers
from sact_det.detection.pooler import PyramidPooler
from sact_det.execution import EXECUTIONS, set_execution
from sact_det.execution.cpu import library
from sact_det.network.plan import DensePlan, planned_parts

BY_KERNELS = ("perforated", "auto", "graphs") if library.why_unavailable() is None else ()
CHANNELS = {"res2": 12, "res3": 20, "res4": 24, "res5": 36}


class Features(Backbone):
    """Random ones, in the place of an extractor."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        sizes = [(x.shape[2] // 2**level, x.shape[3] // 2**level) for level in range(2, 6)]
        return {
            name: noise(len(x), channels, *size).contiguous(memory_format=torch.channels_last)
            for (name, channels), size in zip(CHANNELS.items(), sizes)
        }

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels, stride=4 * 2**k) for k, (name, channels) in enumerate(CHANNELS.items())}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomized(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
    return module


def planned(module: nn.Module, execution: str) -> nn.Module:
    twin = copy.deepcopy(module)
    plan_layers(twin, execution)
    assert twin.state_dict().keys() == module.state_dict().keys()
    return twin


def fpn(norm: str = "", top: Any = None, fuse: str = "sum") -> nn.Module:
    return randomized(FPN(Features(), list(CHANNELS), 16, norm, top or LastLevelMaxPool(), fuse))


def maps(number: int = 2, size: tuple[int, int] = (16, 24), channels: int = 16) -> list[Tensor]:
    return [noise(number, channels, size[0] >> level, size[1] >> level, seed=level) for level in range(5)]


def assert_alike(own: Any, other: Any, tolerance: float = 1e-5) -> None:
    own, other = (list(found.values()) if isinstance(found, dict) else found for found in (own, other))
    for x, expected in zip(own, other, strict=True):
        torch.testing.assert_close(x, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def computed_by_pytorch(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Kernel sizes and strides of the convolutions that PyTorch will compute from now on."""
    seen: list[tuple[int, ...]] = []

    def compute(conv: Convolution, x: Tensor) -> Tensor:
        seen.append((conv.kernel_size[0], conv.stride[0]))
        return Conv2d.forward(conv, x)

    monkeypatch.setattr(Convolution, "compute", compute)
    return seen


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (96, 160)])
@pytest.mark.parametrize("fuse", ["sum", "avg"])
def test_a_pyramid_computes_in_the_kernels(
    size: tuple[int, int], fuse: str, execution: str, monkeypatch: pytest.MonkeyPatch
):
    theirs, images = fpn(top=LastLevelP6P7(36, 16), fuse=fuse), torch.zeros(2, 3, *size)
    own = planned(theirs, execution)
    by_pytorch = computed_by_pytorch(own, monkeypatch)
    features = own(images)
    assert_alike(features, theirs(images))
    if execution in BY_KERNELS:
        assert by_pytorch == [(3, 2), (3, 2)]  # those of p6 and p7
        assert all(features[f"p{level}"].permute(0, 2, 3, 1).is_contiguous() for level in range(2, 6))
    else:
        assert len(by_pytorch) == 10


@torch.no_grad()
def test_levels_are_merged_as_the_lateral_convolutions_write_them(monkeypatch: pytest.MonkeyPatch):
    theirs, images = fpn(), torch.zeros(2, 3, 64, 96)
    own, expected = planned(theirs, "auto"), theirs(images)
    if BY_KERNELS:
        monkeypatch.setattr("torch.nn.functional.interpolate", None)
    seen: list[nn.Module] = []
    for conv in own.lateral_convs:
        conv.register_forward_hook(lambda conv, *_: seen.append(conv))  # as counters of FLOPs do
    assert_alike(own(images), expected)
    assert seen == own.lateral_convs


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("size", [(16, 16), (21, 34)])
def test_retinanet_s_head_computes_in_the_kernels_down_to_a_map_of_one_position(
    size: tuple[int, int], execution: str, monkeypatch: pytest.MonkeyPatch
):
    shapes = [ShapeSpec(16)] * 5
    theirs = randomized(RetinaNetHead(input_shape=shapes, num_classes=7, num_anchors=3, conv_dims=[16, 24]))
    own = planned(theirs, execution)
    by_pytorch = computed_by_pytorch(own, monkeypatch)
    for found, expected in zip(own(maps(size=size)), theirs(maps(size=size)), strict=True):
        assert_alike(found, expected)
    assert len(by_pytorch) == (0 if execution in BY_KERNELS else 5 * 6)


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("convs", [0, 2])
@pytest.mark.parametrize("regions", [0, 1, 30])
def test_a_box_head_reads_regions_as_the_pooler_leaves_them(
    regions: int, convs: int, execution: str, monkeypatch: pytest.MonkeyPatch
):
    shape = ShapeSpec(channels=16, height=7, width=5)
    theirs = randomized(FastRCNNConvFCHead(shape, conv_dims=[24] * convs, fc_dims=[40, 32])).eval()
    own = planned(theirs, execution).eval()
    by_pytorch = computed_by_pytorch(own, monkeypatch)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = noise(regions, 16, 7, 5).contiguous(memory_format=layout)
        assert_alike([own(x)], [theirs(x)]) if regions else torch.testing.assert_close(own(x), theirs(x))
    assert type(own.fc1) is Projection and (execution in BY_KERNELS or len(by_pytorch) == 2 * convs)
    if execution in BY_KERNELS and regions:
        monkeypatch.setattr(Projection, "compute", None)
        x = noise(regions, 16, 7, 5).contiguous(memory_format=torch.channels_last)
        assert_alike([own(x)], [theirs(x)])
        own.fc1.weight.mul_(2)  # what was packed is made anew
        theirs.fc1.weight.mul_(2)
        assert_alike([own(x)], [theirs(x)])


def pooler(type_: str = "ROIAlignV2", output: Any = 7, levels: int = 4, ratio: int = 0) -> ROIPooler:
    return ROIPooler(output, [1 / 4 / 2**level for level in range(levels)], ratio, type_)


def boxes(*numbers: int) -> list[Boxes]:
    """Of every size from a pixel to beyond the image, so that all levels have some."""
    found = []
    for seed, number in enumerate(numbers):
        generator = torch.Generator().manual_seed(seed)
        sides = 2 ** (10 * torch.rand(number, 2, generator=generator))
        corners = 256 * torch.rand(number, 2, generator=generator) - 20
        found.append(Boxes(torch.cat([corners, corners + sides], 1)))
    return found


@torch.no_grad()
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize(("kind", "ratio"), [("ROIAlignV2", 0), ("ROIAlign", 2)])
@pytest.mark.parametrize("numbers", [(40, 25), (0, 3), (0, 0)])
def test_regions_come_from_the_level_of_their_size(
    numbers: tuple[int, ...], kind: str, ratio: int, execution: str, monkeypatch: pytest.MonkeyPatch
):
    theirs = pooler(kind, ratio=ratio)
    (own,) = planned(nn.ModuleList([theirs]), execution)
    assert type(own) is PyramidPooler
    if execution in BY_KERNELS:
        monkeypatch.setattr("sact_det.detection.pooler.RegionPooler.compute", None)
    x, found = maps(2, (64, 72))[:4], boxes(*numbers)
    expected = theirs(x, found)
    for layout in (torch.contiguous_format, torch.channels_last):
        regions = own([level.contiguous(memory_format=layout) for level in x], found)
        torch.testing.assert_close(regions, expected, rtol=1e-5, atol=1e-5)
        assert execution not in BY_KERNELS or regions.permute(0, 2, 3, 1).is_contiguous()


def test_no_images_and_boxes_without_a_size_have_no_features():
    (own,) = planned(nn.ModuleList([pooler()]), "auto")
    x = maps(1, (64, 72))[:4]
    assert own([level[:0] for level in x], []).shape == (0, 16, 7, 7)
    nowhere = Boxes(torch.tensor([[1.0, 2, 30, 40], [float("nan")] * 4]))
    assert own(x, [nowhere])[1].eq(0).all() and own(x, [nowhere])[0].ne(0).any()


def test_one_level_and_other_poolers():
    own, by_maximum = planned(nn.ModuleList([pooler(levels=1), pooler("ROIPool")]), "auto")
    x, found = maps(2, (64, 72))[:1], boxes(9, 4)
    torch.testing.assert_close(own(x, found), pooler(levels=1)(x, found), rtol=1e-5, atol=1e-5)
    assert type(by_maximum) is ROIPooler


@pytest.mark.parametrize("execution", ["dense", "auto"])
@pytest.mark.parametrize(
    ("make", "run"),
    [
        (fpn, lambda part: sum(x.square().sum() for x in part(torch.zeros(2, 3, 64, 96)).values())),
        (
            lambda: randomized(FastRCNNConvFCHead(ShapeSpec(16, 7, 7), conv_dims=[8], fc_dims=[9, 5])),
            lambda part: part(noise(6, 16, 7, 7).contiguous(memory_format=torch.channels_last)).square().sum(),
        ),
        (
            lambda: randomized(
                RetinaNetHead(input_shape=[ShapeSpec(16)] * 5, num_classes=2, num_anchors=3, conv_dims=[8])
            ),
            lambda part: sum(x.square().sum() for found in part(maps()) for x in found),
        ),
    ],
    ids=["pyramid", "box head", "RetinaNet"],
)
def test_gradients_are_detectron2_s(make: Callable[[], nn.Module], run: Callable[[nn.Module], Tensor], execution: str):
    theirs = make()
    own = planned(theirs, execution)
    for part in (own, theirs):
        run(part).backward()
    assert_alike([own.grad for own in own.parameters()], [other.grad for other in theirs.parameters()])


@pytest.mark.parametrize("execution", ["dense", "auto"])
def test_regions_pass_gradients_on_to_their_levels(execution: str):
    theirs, leaves, gradients = pooler(), [x.requires_grad_() for x in maps(2, (64, 72))[:4]], []
    for part in (theirs, *planned(nn.ModuleList([theirs]), execution)):
        regions = part(leaves, boxes(20, 12))
        gradients.append(torch.autograd.grad((regions * noise(*regions.shape, seed=3)).sum(), leaves))
    assert_alike(gradients[1], gradients[0])


@torch.no_grad()
def test_16_bits_and_norms_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch):
    theirs, images = fpn(), torch.zeros(1, 3, 64, 96)
    own = planned(theirs, "auto")
    by_pytorch = computed_by_pytorch(own, monkeypatch)
    with torch.autocast("cpu", torch.bfloat16):
        assert_alike(own(images), theirs(images), 2e-2)
    assert len(by_pytorch) == 8
    theirs = fpn("FrozenBN")
    own = planned(theirs, "auto")
    assert_alike(own(images), theirs(images))
    assert len(by_pytorch) == 16


def test_every_layer_is_the_same_object_with_a_plan_of_its_own():
    own = planned(fpn(), "auto")
    assert own.lateral_convs[0] is own.fpn_lateral5 and own.output_convs[-1] is own.fpn_output2
    parts = planned_parts(own)
    assert len(parts) == 8 and len({id(part.plan) for part in (*parts, *planned_parts(copy.deepcopy(own)))}) == 16
    set_execution(own, "dense")
    assert all(type(part.plan) is DensePlan for part in parts)
    with pytest.raises(ValueError, match="execution"):
        plan_layers(own, "quick")
