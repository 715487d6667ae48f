"""Scores are float32 in every execution, and perforated products are rounded as the convolutions they replace."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import images

from sact_det.base.precision import (
    convolution_precision,
    exact_float32,
    float32_switches,
    products_as_convolutions,
    switched,
)
from sact_det.execution.positions.gather_gemm import ProductAsConvolution
from sact_det.network.branch import ImageHalting, SpatialHalting
from sact_det.network.norm import get_norm


def said(device: str) -> list:
    return [getattr(owner, name) for owner, name in float32_switches(device).values()]


@pytest.fixture
def loose():
    """Every switch as a user would set it for speed."""
    switches = [(o, n, "tf32") for o, n in float32_switches("cuda").values()]
    switches += [(o, n, "bf16") for o, n in float32_switches("cpu").values()]
    with switched(switches):
        yield


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_within_exact_float32_no_switch_rounds_and_afterwards_all_are_as_before(loose, device):
    before = said(device)
    with pytest.raises(KeyError), exact_float32(device):
        assert said(device) == ["ieee", "ieee"]
        raise KeyError
    assert said(device) == before != ["ieee", "ieee"]


def test_what_is_exact_already_is_not_touched(monkeypatch):
    def refuse(*_):
        raise AssertionError("a switch was set")

    monkeypatch.setattr(torch._C, "_set_fp32_precision_setter", refuse)
    with switched([]), exact_float32("cpu"):
        pass


@pytest.mark.parametrize("branch", [SpatialHalting, ImageHalting])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_scores_are_computed_under_exact_switches_whatever_the_user_allows(loose, branch, device, monkeypatch):
    """The switches for CUDA are looked at here, without one: what is asked is whether they are set around a product."""
    seen = []
    monkeypatch.setattr("sact_det.network.branch.exact_float32", lambda _: exact_float32(device))
    forward = torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda self, x: (seen.append(said(device)), forward(self, x))[1])
    branch(8, get_norm("FrozenBN"))(images(2, 5, 4, 8))
    assert seen and all(switches == ["ieee", "ieee"] for switches in seen)


@torch.no_grad()
@pytest.mark.parametrize("branch", [SpatialHalting, ImageHalting])
def test_scores_have_the_same_bits_when_a_user_allows_bfloat16_convolutions(branch):
    halting = branch(64, get_norm("FrozenBN"))
    x = images(2, 9, 8, 64)
    expected = halting(x)
    owner, name = float32_switches("cpu")["conv"]
    with switched([(owner, name, "bf16")]):
        assert torch.equal(halting(x), expected)


@pytest.mark.parametrize("conv, matmul", [("tf32", "ieee"), ("ieee", "tf32"), ("tf32", "tf32"), ("ieee", "ieee")])
def test_products_take_the_precision_of_convolutions_forward_and_backward(conv, matmul, monkeypatch):
    switches = float32_switches("cuda")
    seen = []
    linear = F.linear
    monkeypatch.setattr(F, "linear", lambda *args: (seen.append(said("cuda")[1]), linear(*args))[1])
    with switched([(*switches["conv"], conv), (*switches["matmul"], matmul)]):
        assert convolution_precision() == conv
        rows = images(1, 6, 4, 1)[0, 0].requires_grad_()
        y = ProductAsConvolution.apply(rows, images(1, 3, 4, 1, seed=1)[0, 0], None)
        with products_as_convolutions():
            assert said("cuda") == [conv, conv]
        y.sum().backward()
        assert seen == [conv] and said("cuda") == [conv, matmul]


def test_the_product_and_its_gradients_are_those_of_a_linear_layer():
    rows, weight, bias = (
        x.double().requires_grad_() for x in (images(1, 5, 4, 1)[0, 0], images(1, 3, 4, 1)[0, 0], torch.randn(3))
    )
    assert torch.equal(ProductAsConvolution.apply(rows, weight, bias), F.linear(rows, weight, bias))
    assert torch.autograd.gradcheck(ProductAsConvolution.apply, (rows, weight, bias))
    assert torch.autograd.gradcheck(ProductAsConvolution.apply, (rows.detach(), weight, None))
