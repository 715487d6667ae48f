from pathlib import Path
from typing import Callable

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_networks import images
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

CHANNELS = 5
BATCH_NORMS = (BatchNorm2d, SyncBatchNorm2d, MovingBatchNorm2d)


def randomized(norm: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and affine parameters that are neither 0 nor 1."""
    values = torch.rand(4, CHANNELS, generator=torch.Generator().manual_seed(seed))
    state = dict(zip(("weight", "bias", "running_mean", "running_var"), values + 0.5))
    norm.load_state_dict({**norm.state_dict(), **state})
    return norm


def run(norm: Callable[..., Tensor], x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of x where the loss weighs positions differently."""
    x = x.clone().requires_grad_()
    y = norm(x, valid)
    weights = torch.sin(x.detach())
    (y * (weights if valid is None else weights * valid)).sum().backward()
    return y.detach(), x.grad


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Channels of different mean and spread."""
    channels = torch.arange(1.0, CHANNELS + 1)[:, None, None]
    return images(shape[0], *shape[1:], CHANNELS, seed) * channels / 2 + channels


def positions_as_images(x: Tensor, valid: Tensor) -> Tensor:
    """The valid positions of [N, C, H, W] as a batch of 1 x 1 images."""
    return x.permute(0, 2, 3, 1)[valid[:, 0]][:, :, None, None]


def mask_of_three() -> Tensor:
    """bool [3, 1, 6, 7]: images of 6 x 7, 2 x 5 and 1 x 1."""
    mask = torch.zeros(3, 1, 6, 7, dtype=torch.bool)
    for image, (height, width) in zip(mask, [(6, 7), (2, 5), (1, 1)]):
        image[:, :height, :width] = True
    return mask


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


def _parts(valid: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """What each of two processes holds: 12 positions of one image without a mask, 11 of two images with one."""
    x = noise(3, 6, 7)
    return [(x[:1, :, :3, :4], None), (x[1:], valid[1:])]


def observe(norm: MovingBatchNorm2d, x: Tensor) -> None:
    """What a run does that has sums instead of features."""
    x = x.double()
    norm.observe(torch.tensor(x.numel() / CHANNELS).double(), x.sum((0, 2, 3)), x.square().sum((0, 2, 3)))


def _normalize_one_part(rank: int, folder: Path, valid: Tensor) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {}
    for norm in (SyncBatchNorm2d, MovingBatchNorm2d):
        module = randomized(norm(CHANNELS))
        y, grad = run(module, *_parts(valid)[rank])
        parameter_grads = torch.stack([module.weight.grad, module.bias.grad])
        results[norm.__name__] = (y, grad, parameter_grads, module.state_dict())
        # One process has no images; then none has any.
        alone = randomized(norm(CHANNELS))
        y, grad = run(alone, noise(3, 6, 7)[: 3 * rank])
        alone(noise(0, 6, 7))
        results[f"{norm.__name__} alone"] = (y, grad, alone.state_dict())
    # One process has features, the other sums.
    module = randomized(MovingBatchNorm2d(CHANNELS))
    (observe if rank == 0 else MovingBatchNorm2d.__call__)(module, noise(3, 6, 7)[rank : 1 + 2 * rank])
    results["mixed"] = module.state_dict()
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple]]:
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(_normalize_one_part, (folder, mask_of_three()), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_two_processes_normalize_like_one_with_all_their_positions(two_processes: list[dict], valid: Tensor):
    results = two_processes
    parts = [(x, torch.ones_like(x[:, :1], dtype=torch.bool) if mask is None else mask) for x, mask in _parts(valid)]
    together = torch.cat([positions_as_images(x, mask) for x, mask in parts])
    for norm in (SyncBatchNorm2d, MovingBatchNorm2d):
        module = randomized(norm(CHANNELS))
        y, grad = run(module, together)
        outcomes = [result[norm.__name__] for result in results]
        for index, expected in enumerate((y, grad)):
            values = [positions_as_images(outcome[index], mask) for outcome, (_, mask) in zip(outcomes, parts)]
            torch.testing.assert_close(torch.cat(values), expected)
        total = outcomes[0][2] + outcomes[1][2]
        torch.testing.assert_close(total, torch.stack([module.weight.grad, module.bias.grad]))
        for outcome in outcomes:
            torch.testing.assert_close(outcome[3], module.state_dict())


@pytest.mark.parametrize("norm", [SyncBatchNorm2d, MovingBatchNorm2d])
def test_a_process_without_images_takes_the_statistics_of_the_others(two_processes: list[dict], norm: type[nn.Module]):
    module = randomized(norm(CHANNELS))
    y, grad = run(module, noise(3, 6, 7))
    (nothing, no_grad, state), (y_, grad_, state_) = (result[f"{norm.__name__} alone"] for result in two_processes)
    assert nothing.shape == no_grad.shape == (0, CHANNELS, 6, 7)
    torch.testing.assert_close((y_, grad_), (y, grad))
    for each in (state, state_):
        torch.testing.assert_close(each, module.state_dict())  # a batch of nobody's changed nothing


def test_processes_may_learn_from_features_and_from_sums_at_the_same_time(two_processes: list[dict]):
    module = randomized(MovingBatchNorm2d(CHANNELS))
    module(noise(3, 6, 7))
    for result in two_processes:
        torch.testing.assert_close(result["mixed"], module.state_dict())
    assert all(torch.equal(value, two_processes[1]["mixed"][name]) for name, value in two_processes[0]["mixed"].items())


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
