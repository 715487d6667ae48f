"""Norms whose statistics are those of all processes: two of them compute what one with all positions does."""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from norm_inputs import CHANNELS, mask_of_three, noise, observe, positions_as_images, randomized, run
from torch import Tensor, nn

from sact_det.network.norm import MovingBatchNorm2d, SyncBatchNorm2d


@pytest.fixture
def valid() -> Tensor:
    return mask_of_three()


def _parts(valid: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """What each of two processes holds: 12 positions of one image without a mask, 11 of two images with one."""
    x = noise(3, 6, 7)
    return [(x[:1, :, :3, :4], None), (x[1:], valid[1:])]


def _normalize_one_part(rank: int, folder: Path, valid: Tensor) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {}
    for norm in (SyncBatchNorm2d, MovingBatchNorm2d):
        module = randomized(norm(CHANNELS))
        with patch.object(dist, "all_reduce", wraps=dist.all_reduce) as sums:
            y, grad = run(module, *_parts(valid)[rank])
        results[f"{norm.__name__} sums"] = [call.args[0].numel() for call in sums.call_args_list]
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


def test_a_norm_takes_one_packed_sum_forward_and_one_backward_where_statistics_have_gradients(
    two_processes: list[dict],
):
    packed = 1 + 2 * CHANNELS
    for result in two_processes:
        assert result["SyncBatchNorm2d sums"] == [packed, packed] and result["MovingBatchNorm2d sums"] == [packed]


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
