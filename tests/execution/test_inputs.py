"""What reaches the kernels: what they cannot read is refused as dense refuses it, and all else gives the same."""

import copy
import re
from typing import Callable

import pytest
import torch
from small_networks import images, randomize
from torch import Tensor, nn

from sact_det import build_classifier
from sact_det.execution import EXECUTIONS, set_execution
from sact_det.execution.cpu import calls, library
from sact_det.execution.cpu.memory import address
from sact_det.execution.cpu.run import RowsRun
from sact_det.execution.packing import WeightCache
from sact_det.execution.perforated import PerforatedPlan
from sact_det.execution.release import release_weights
from sact_det.network.block import AdaptiveBlock
from sact_det.network.norm import freeze_norms
from sact_det.network.resnet_v2 import ResNetV2Spec, Stem

CHANNELS = 16

pytestmark = [
    pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable())),
    pytest.mark.usefixtures("threads"),
]


def block_of(halting: str = "sact", execution: str = "auto", frozen: bool = True, **fields: object) -> AdaptiveBlock:
    block = ResNetV2Spec(units=(3, 4), base_channels=4, halting=halting, **fields).build_block(2)
    randomize(block, images(2, 12, 12, CHANNELS), halting_bias=-1.0)
    if frozen:
        freeze_norms(block)
    set_execution(block, execution)
    return block


def stem_of(execution: str) -> Stem:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stem = Stem(8).eval()
    set_execution(stem, execution)
    return stem


def refusals(build: Callable[[str], nn.Module], *arguments: object) -> set[str]:
    """Type and message of what every execution raises."""
    found = set()
    for execution in EXECUTIONS:
        with pytest.raises((ValueError, RuntimeError)) as caught:
            build(execution)(*arguments)
        found.add(f"{type(caught.value).__name__}: {caught.value}")
    return found


CHANNELS_OR_SIDES = [(2, 1, 9, 9), (2, 15, 9, 9), (2, 17, 9, 9), (2, 16, 0, 9), (2, 16, 9, 0), (0, 15, 9, 9)]
SHAPES = [*CHANNELS_OR_SIDES, (16, 9, 9), (9, 9), (1, 2, 16, 9, 9)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [False, True])
def test_maps_that_no_block_can_read_are_refused_in_the_words_of_the_dense_run(shape: tuple, training: bool):
    x = torch.randn(shape).requires_grad_(training)
    with torch.set_grad_enabled(training):
        (refusal,) = refusals(lambda execution: block_of(execution=execution).train(training), x)
    if len(shape) != 4:
        assert refusal == f"ValueError: `x` must be a batch [N, C, H, W]; got {list(shape)}"


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1, 20, 20), (1, 2, 20, 20), (1, 4, 20, 20), (1, 3, 0, 20), (3, 20, 20)])
def test_images_that_no_stem_can_read_are_refused_likewise(shape: tuple):
    (refusal,) = refusals(stem_of, torch.randn(shape))
    if shape[1] in (1, 2, 4):
        assert f"to have 3 channels, but got {shape[1]} channels instead" in refusal


@torch.no_grad()
@pytest.mark.parametrize(
    "sizes, message",
    [
        ([(9, 9)], "for each of 2 images; got 1"),
        ([], "for each of 2 images; got 0"),
        ([(9, 9)] * 3, "for each of 2 images; got 3"),
        ([(9, 9), (9, 10)], "an image of 9x10 does not fit a map of 9x9"),
        ([(9, 9), (10**9, 9)], "an image of 1000000000x9 does not fit"),
        ([(9, 9), (0, 9)], "an image of 0x9 does not fit"),
        ([(9, 9), (9, -1)], "an image of 9x-1 does not fit"),
        ([(9, 9), (9, 8.5)], "pairs of whole numbers, (height, width); got (9, 8.5)"),
        ([(9, 9), (9, float("nan"))], "pairs of whole numbers"),
        ([(9, 9), (9, 9, 9)], "pairs of whole numbers"),
    ],
)
def test_sizes_must_fit_the_batch(sizes: list, message: str):
    for build, channels in ((lambda execution: block_of(execution=execution), CHANNELS), (stem_of, 3)):
        (refusal,) = refusals(build, images(2, 9, 9, channels), sizes)
        assert message in refusal and refusal.startswith("ValueError: `sizes`")


@torch.no_grad()
@pytest.mark.parametrize(
    "weights, x", [("double", torch.float32), ("bfloat16", torch.float32), ("float", torch.float64)]
)
def test_types_that_differ_from_the_weights_are_refused_likewise(weights: str, x: torch.dtype):
    build = lambda execution: getattr(stem_of(execution), weights)()  # noqa: E731
    assert len(refusals(build, images(1, 20, 20).to(x))) == 1


@torch.no_grad()
def test_neither_does_autocast_make_floats_of_doubles():
    build = lambda execution: stem_of(execution).double()  # noqa: E731
    with torch.autocast("cpu", torch.bfloat16):
        assert len(refusals(build, images(1, 20, 20))) == 1


def negated(x: Tensor) -> Tensor:
    """x, as PyTorch writes a number whose sign is still to be changed."""
    y = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert y.is_neg() and torch.equal(y, x)
    return y


LAYOUTS = {
    "negated": negated,
    "expanded": lambda x: x[:1].expand_as(x),
    "one pixel everywhere": lambda x: x[:, :, :1, :1].expand_as(x),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "negated and expanded": lambda x: negated(x[:1]).expand_as(x),
    "parameter": nn.Parameter,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_does_not_matter_how_numbers_are_written(layout: str):
    for build, channels in ((stem_of, 3), (lambda execution: block_of(execution=execution), CHANNELS)):
        x = LAYOUTS[layout](images(2, 13, 10, channels))
        with torch.no_grad():
            check_same(build("auto")(x), build("dense")(x))
    block, dense = block_of(halting="sact").train(), block_of(halting="sact", execution="dense").train()
    found = []
    for each in (block, dense):
        leaf = x.detach().clone().requires_grad_()
        features, ponder = each(LAYOUTS[layout](leaf) if layout != "parameter" else leaf)
        features = negated(features) if layout == "negated" else features  # so is the gradient that comes back
        (features.square().sum() + ponder.ponder_cost.sum()).backward()
        found.append([leaf.grad, *(p.grad for p in each.parameters())])
    for actual, expected in zip(*found):
        assert (actual - expected).norm() < 1e-4 * expected.norm() + 1e-6


@pytest.mark.parametrize("training", [False, True])
def test_it_does_not_matter_how_weights_are_written(training: bool):
    block, x = block_of(), images(2, 12, 12, CHANNELS)
    for unit in block.units:
        unit.conv1.weight = nn.Parameter(negated(unit.conv1.weight.data))
        unit.conv2.weight = nn.Parameter(unit.conv2.weight.data[:, :, :, :1].expand(-1, -1, -1, 3))
        unit.conv3.weight = nn.Parameter(unit.conv3.weight.data.repeat(2, 1, 1, 1)[: len(unit.conv3.weight)])
        unit.conv3.bias = nn.Parameter(unit.conv3.bias.data[:1].expand(len(unit.conv3.bias)))
        if unit.halting is not None:
            unit.halting.local_conv.weight = nn.Parameter(negated(unit.halting.local_conv.weight.data))
    block.train(training)
    with torch.set_grad_enabled(training):
        features, ponder = block(x)
        set_execution(block, "dense")
        expected = block(x)
        check_same((features, ponder), expected)
        if training:
            weights = [unit.conv3.bias for unit in block.units]
            for one, other in zip(*(torch.autograd.grad(y.square().sum(), weights) for y in (features, expected[0]))):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def check_same(actual: object, expected: object, tolerance: float = 1e-4) -> None:
    """Tensors, or features and a BlockPonder."""
    if isinstance(actual, Tensor):
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance / 10)
        return
    (features, ponder), (other, reference) = actual, expected
    check_same(features, other, tolerance)
    check_same(ponder.ponder_cost, reference.ponder_cost, tolerance)
    assert torch.equal(ponder.num_units, reference.num_units) and torch.equal(ponder.flops, reference.flops)


def test_within_torch_func_pytorch_serves():
    block = block_of("none").requires_grad_(False)
    x = images(2, 12, 12, CHANNELS)
    loss = lambda x: block(x)[0].square().sum()  # noqa: E731
    actual = torch.func.grad(loss)(x)
    set_execution(block, "dense")
    torch.testing.assert_close(actual, torch.func.grad(loss)(x))


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("halting, tile", [("none", 1), ("act", 1), ("sact", 1), ("sact", 2)])
@pytest.mark.parametrize("halting_norm", ["FrozenBN", "MovingBN", "BN"])
@pytest.mark.parametrize("training", [False, True])
def test_no_images_give_no_features(execution: str, halting: str, tile: int, halting_norm: str, training: bool):
    spec = ResNetV2Spec((1, 3), 4, halting, "FrozenBN", halting_norm, tile=tile)
    block = spec.build_block(2).train(training)
    set_execution(block, execution)
    before = copy.deepcopy(block.state_dict())
    for sizes in (None, []):
        x = images(0, 9, 7, CHANNELS).requires_grad_(training)
        with torch.set_grad_enabled(training):
            features, ponder = block(x, sizes)
            if training:
                (features.sum() + ponder.ponder_cost.sum()).backward()
        assert features.shape == (0, CHANNELS * 2, 5, 4)
        assert ponder.halting_distribution.shape == ((0, 3, 1, 1) if halting == "act" else (0, 3, 5, 4))
        assert ponder.flops.tolist() == ponder.mean_cost().tolist() == []
        if training:
            assert all(not p.grad.any() for p in block.parameters() if p.grad is not None)
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("family", ["imagenet", "cifar"])
@pytest.mark.parametrize("halting", ["none", "act", "sact"])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_classifiers_refuse_what_is_no_batch_of_colour_images(family: str, halting: str, execution: str):
    model = build_classifier(units=(2, 2), base_channels=4, num_classes=5, halting=halting, family=family).eval()
    model.set_execution(execution)
    for shape in ((0, 3, 40, 33), (2, 1, 40, 33), (2, 3, 0, 33)):
        with pytest.raises(ValueError, match=rf"floats \[N, 3, H, W\] .*; got float32 {re.escape(str(list(shape)))}"):
            model(torch.zeros(shape))
    for dtype in (torch.uint8, torch.int64, torch.complex64, torch.bool):
        with pytest.raises(ValueError, match=r"floats .*; got (uint8|int64|complex64|bool)"):
            model(torch.zeros(2, 3, 40, 33, dtype=dtype))
    with pytest.raises(ValueError, match=r"`images` must be a batch \[N, C, H, W\]; got \[3, 40, 33\]"):
        model(torch.zeros(3, 40, 33))


@torch.no_grad()
def test_no_regions_pass_through_a_block_whose_weights_are_gone():
    block = block_of()
    release_weights(block)
    assert block(images(0, 14, 14, CHANNELS))[0].shape == (0, 2 * CHANNELS, 7, 7)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_that_was_made_in_inference_mode_serves_outside_of_it(dtype: torch.dtype):
    block, x, sizes = block_of().to(dtype), images(2, 12, 12, CHANNELS).to(dtype), [(12, 12), (5, 7)]
    with torch.inference_mode():
        expected = block(x, sizes)[0]
    assert torch.equal(block(x, sizes)[0], expected)


def test_addresses_are_given_for_what_kernels_would_read_alone():
    good = torch.zeros(3, 4)
    assert address(None) is None and address(good) == good.data_ptr()
    assert address(good.T, strided=True) == good.data_ptr()
    wrong = [good.T, good.double(), good.to("meta"), negated(good), good[:1].expand(3, 4), good.int(), good.bfloat16()]
    for tensor in wrong:
        with pytest.raises(ValueError, match=r"a kernel takes torch\.float32 on the CPU"):
            address(tensor)


def scratch_size(images: int, threads: int) -> int:
    """Floats that a kernel asks for at 1000 positions, however many images they belong to."""
    unit = calls.Unit(in_channels=1024, width=512, out_channels=2048, stride=1, dilation=1, projects=0, bfloat16=0)
    to = calls.Evaluation(images=images, num_reads=1000, num_writes=1000, sums=1)
    return calls.kernels().scratch_size(unit, to, threads)


def training_scratch_size(images: int, threads: int) -> int:
    unit = calls.TrainedUnit(in_channels=1024, width=512, out_channels=2048, stride=1, dilation=1, projects=0)
    sites = calls.SitesStruct(images=images, num_reads=1000, num_writes=1000)
    return calls.kernels().forward_scratch_size(unit, sites, threads)


@pytest.mark.parametrize("size", [scratch_size, training_scratch_size])
def test_memory_grows_with_threads_and_with_images_but_not_with_their_product(size: Callable[[int, int], int]):
    for threads in (1, 8, 64):
        assert size(1000, threads) - size(1, threads) == 999 * 2048
    assert size(1000, 64) - size(1000, 63) < 192 * (1024 + 512) + 2048


@torch.no_grad()
def test_masks_may_be_written_in_any_way():
    block, x = block_of(), images(2, 12, 12, CHANNELS)
    outputs = []
    for active in (torch.ones(2, 6, 6, dtype=torch.bool), torch.ones(1, 1, 1, dtype=torch.bool).expand(2, 6, 6)):
        run = RowsRun(block, WeightCache(), x, None, None)
        run.add(torch.full((2, 6, 6), 0.5))
        run.evaluate(block.units[1], active)
        outputs.append(run.result())
    assert torch.equal(*outputs) and type(PerforatedPlan().start(block, x, None, None)) is RowsRun
