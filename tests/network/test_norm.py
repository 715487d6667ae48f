import pytest
import torch
from norm_inputs import BATCH_NORMS, CHANNELS, mask_of_three, noise, observe, positions_as_images, randomized, run
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sact_det.network.norm import (
    NORMS,
    BatchNorm2d,
    FrozenBatchNorm2d,
    MovingBatchNorm2d,
    SyncBatchNorm2d,
    freeze_norms,
    get_norm,
)


@pytest.fixture
def valid() -> Tensor:
    return mask_of_three()


def test_training_is_torch_s_with_the_biased_variance_in_the_moving_average():
    x = noise(3, 4, 5)
    ours = randomized(BatchNorm2d(CHANNELS))
    theirs = randomized(nn.BatchNorm2d(CHANNELS, eps=1e-5, momentum=0.003))
    (y, grad), (y_, grad_) = run(ours, x), run(lambda x, valid: theirs(x), x)
    torch.testing.assert_close(y, y_)
    torch.testing.assert_close(grad, grad_)
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(ours, name).grad, getattr(theirs, name).grad)
    initial = randomized(nn.BatchNorm2d(CHANNELS))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    biased = x.var((0, 2, 3), correction=0)
    torch.testing.assert_close(ours.running_var, 0.997 * initial.running_var + 0.003 * biased)
    assert ours.num_batches_tracked == theirs.num_batches_tracked == 1


@pytest.mark.parametrize("norm", NORMS.values())
def test_evaluation_is_torch_s(norm: type[nn.Module], valid: Tensor):
    x = noise(3, 6, 7)
    expected = randomized(nn.BatchNorm2d(CHANNELS, eps=1e-5)).eval()(x)
    ours = randomized(norm(CHANNELS)).eval()
    for mask in (None, valid):
        torch.testing.assert_close(ours(x, mask), expected)


@pytest.mark.parametrize("norm", BATCH_NORMS)
@pytest.mark.parametrize("valid", [None, mask_of_three()])
def test_a_recomputed_batch_moves_the_statistics_once(norm: type[nn.Module], valid: Tensor | None):
    direct, recomputed = randomized(norm(CHANNELS)), randomized(norm(CHANNELS))
    x = noise(3, 6, 7)
    expected = run(direct, x, valid)
    for actual, wanted in zip(
        run(lambda *call: checkpoint(recomputed, *call, use_reentrant=False), x, valid), expected
    ):
        assert torch.equal(actual, wanted)
    for actual, wanted in zip(recomputed.state_dict().values(), direct.state_dict().values()):
        assert torch.equal(actual, wanted)


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_masked_statistics_are_those_of_the_valid_positions(norm: type[nn.Module], valid: Tensor):
    x = torch.where(valid, noise(3, 6, 7), 1e4)
    padded, gathered = randomized(norm(CHANNELS)), randomized(norm(CHANNELS))
    y, grad = run(padded, x, valid)
    y_, grad_ = run(gathered, positions_as_images(x, valid))
    torch.testing.assert_close(positions_as_images(y, valid), y_)
    torch.testing.assert_close(positions_as_images(grad, valid), grad_)
    assert not grad[~valid.expand_as(grad)].any()
    torch.testing.assert_close(padded.state_dict(), gathered.state_dict())
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(padded, name).grad, getattr(gathered, name).grad, rtol=1e-4, atol=1e-5)


def test_a_mask_that_is_true_everywhere_changes_nothing():
    x = noise(2, 3, 4)
    native, masked = randomized(BatchNorm2d(CHANNELS)), randomized(BatchNorm2d(CHANNELS))
    torch.testing.assert_close(run(native, x), run(masked, x, torch.ones(2, 1, 3, 4, dtype=torch.bool)))
    torch.testing.assert_close(native.state_dict(), masked.state_dict())


@pytest.mark.parametrize("valid", [None, torch.ones(1, 1, 1, 1, dtype=torch.bool)])
def test_a_single_position_is_its_own_mean(valid: Tensor | None):
    """torch.nn.BatchNorm2d refuses it; the halting branch's global norm meets it with one image."""
    norm = randomized(BatchNorm2d(CHANNELS))
    variance = norm.running_var.clone()
    y, grad = run(norm, noise(1, 1, 1), valid)
    torch.testing.assert_close(y.flatten(), norm.bias.detach(), atol=1e-4, rtol=0)
    assert not grad.any()
    torch.testing.assert_close(norm.running_var, 0.997 * variance)
    assert not norm.weight.grad.any()  # zero rather than absent: other processes wait for it


@pytest.mark.parametrize("masked", [False, True])
def test_synchronized_norm_of_one_process_is_batch_norm(masked: bool, valid: Tensor):
    mask = valid if masked else None
    alone, synchronized = randomized(BatchNorm2d(CHANNELS)), randomized(SyncBatchNorm2d(CHANNELS))
    torch.testing.assert_close(run(alone, noise(3, 6, 7), mask), run(synchronized, noise(3, 6, 7), mask))
    torch.testing.assert_close(alone.state_dict(), synchronized.state_dict())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_a_batch_without_positions_teaches_nothing(norm: type[nn.Module], masked: bool):
    module = randomized(norm(CHANNELS))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    y, grad = run(module, noise(0, 3, 4), torch.ones(0, 1, 3, 4, dtype=torch.bool) if masked else None)
    assert y.shape == grad.shape == (0, CHANNELS, 3, 4)
    assert not module.weight.grad.any() and not module.bias.grad.any()
    torch.testing.assert_close(module.state_dict(), before, atol=0, rtol=0)


def test_moving_norm_learns_from_sums_what_it_learns_from_features_and_only_in_training():
    x = noise(3, 4, 5)
    module, observer = randomized(MovingBatchNorm2d(CHANNELS)), randomized(MovingBatchNorm2d(CHANNELS))
    module(x)
    before = {name: value.clone() for name, value in observer.state_dict().items()}
    observe(observer.eval(), x)
    torch.testing.assert_close(observer.state_dict(), before, atol=0, rtol=0)
    observe(observer.train(), x)
    torch.testing.assert_close(observer.state_dict(), module.state_dict())


def moments(norm: nn.Module) -> tuple[Tensor, Tensor]:
    return norm.running_mean.clone(), norm.running_var + norm.running_mean.square()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 3), (3, 2, 2)])
def test_moving_norm_averages_the_moments_of_the_first_steps_exactly(shape: tuple[int, int, int]):
    norm = MovingBatchNorm2d(CHANNELS)
    firsts, seconds = [torch.zeros(CHANNELS)], [torch.ones(CHANNELS)]  # the initial state counts as one step
    for step in range(50):
        x = noise(*shape, seed=step)
        norm(x)
        firsts.append(x.mean((0, 2, 3)))
        seconds.append(x.square().mean((0, 2, 3)))
        expected = torch.stack(firsts).mean(0), torch.stack(seconds).mean(0)
        torch.testing.assert_close(moments(norm), expected, atol=1e-4, rtol=1e-4)


def test_moving_norm_forgets_at_the_rate_of_its_momentum_later():
    norm = randomized(MovingBatchNorm2d(CHANNELS))
    norm.num_batches_tracked.fill_(10_000)
    x = noise(2, 3, 4)
    first, second = moments(norm)
    norm(x)
    expected = 0.997 * first + 0.003 * x.mean((0, 2, 3)), 0.997 * second + 0.003 * x.square().mean((0, 2, 3))
    torch.testing.assert_close(moments(norm), expected)


def test_moving_norm_passes_no_gradient_through_its_statistics():
    norm = randomized(MovingBatchNorm2d(CHANNELS))
    x = noise(2, 3, 4)
    y, grad = run(norm, x)
    scale = (norm.weight * torch.rsqrt(norm.running_var + norm.eps)).detach()[:, None, None]
    torch.testing.assert_close(grad, torch.sin(x) * scale)
    torch.testing.assert_close(y, (x - norm.running_mean[:, None, None]) * scale + norm.bias.detach()[:, None, None])


def test_moving_norm_can_run_twice_before_the_backward_pass():
    norm, x = randomized(MovingBatchNorm2d(CHANNELS)), noise(2, 3, 4).requires_grad_()
    first = norm(x)
    scale = (norm.weight * torch.rsqrt(norm.running_var + norm.eps)).detach().clone()
    norm(10 * x.detach())
    first.sum().backward()
    torch.testing.assert_close(x.grad, scale[:, None, None].expand_as(x))


def test_frozen_norm_computes_the_same_with_and_without_gradient():
    norm = randomized(FrozenBatchNorm2d(CHANNELS)).train()
    state = {name: value.clone() for name, value in norm.state_dict().items()}
    x = noise(2, 3, 4)
    torch.testing.assert_close(norm(x.clone().requires_grad_()), norm(x))
    torch.testing.assert_close(norm.state_dict(), state)
    assert not list(norm.parameters())


@pytest.mark.parametrize("requires_grad", [False, True])
def test_frozen_norm_keeps_half_precision(requires_grad: bool):
    norm, x = randomized(FrozenBatchNorm2d(CHANNELS)), noise(2, 3, 4)
    y = norm(x.bfloat16().requires_grad_(requires_grad))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), norm(x), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("norm", BATCH_NORMS)
@pytest.mark.parametrize("masked", [False, True])
def test_batch_norms_keep_half_precision_with_float32_statistics(norm: type[nn.Module], masked: bool, valid: Tensor):
    module, x = randomized(norm(CHANNELS)), noise(3, 6, 7)
    y = module(x.bfloat16(), valid if masked else None)
    assert y.dtype == torch.bfloat16
    assert module.running_var.dtype == torch.float32


@pytest.mark.parametrize("source", NORMS.values())
@pytest.mark.parametrize("target", NORMS.values())
def test_state_dicts_are_interchangeable(source: type[nn.Module], target: type[nn.Module]):
    norm, copy = randomized(source(CHANNELS)).eval(), target(CHANNELS).eval()
    copy.load_state_dict(norm.state_dict(), strict=True)
    x = noise(2, 3, 4)
    torch.testing.assert_close(copy(x), norm(x))


@pytest.mark.parametrize(("name", "norm"), NORMS.items())
def test_get_norm_makes_norms_with_the_decay_and_epsilon_asked_for(name: str, norm: type[nn.Module]):
    made = get_norm(name, decay=0.9, eps=1e-3)(CHANNELS)
    assert type(made) is norm
    assert made.eps == 1e-3
    if norm is not FrozenBatchNorm2d:
        assert made.momentum == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "GN"}, "`norm` must be one of BN, SyncBN, MovingBN, FrozenBN; got 'GN'"),
        ({"name": "BN", "decay": 1.0}, r"`decay` of the moving statistics must lie in \[0, 1\); got 1.0"),
        ({"name": "BN", "decay": -0.1}, r"`decay` of the moving statistics must lie in \[0, 1\); got -0.1"),
    ],
)
def test_arguments_that_are_wrong_are_named(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        get_norm(**arguments)


def test_freezing_keeps_the_function_and_spares_what_it_is_told_to():
    model = nn.ModuleDict(
        {"a": randomized(BatchNorm2d(CHANNELS)), "b": nn.ModuleDict({"c": MovingBatchNorm2d(CHANNELS)})}
    )
    x = noise(2, 3, 4)
    expected = model["a"].eval()(x)
    freeze_norms(model, skip="b")
    assert [type(model["a"]), type(model["b"]["c"])] == [FrozenBatchNorm2d, MovingBatchNorm2d]
    torch.testing.assert_close(model.train()["a"](x), expected)
    freeze_norms(model)
    assert not list(model.parameters())
