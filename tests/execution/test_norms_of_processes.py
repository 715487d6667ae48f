"""Two processes train a block like one that has all of their images, whatever runs it in each of them."""

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_networks import images, randomize
from torch import Tensor

from sact_det.execution import set_execution
from sact_det.execution.cpu import library
from sact_det.network.block import AdaptiveBlock
from sact_det.network.norm import MovingBatchNorm2d
from sact_det.network.resnet_cifar import ResNetCifarSpec
from sact_det.network.resnet_v2 import ResNetV2Spec

UNITS = 4
SPECS = {"imagenet": ResNetV2Spec, "cifar": ResNetCifarSpec}
NETWORKS = [(family, halting) for family in SPECS for halting in ("sact", "act")]
EXECUTIONS = [
    ("dense", "dense"),
    ("perforated", "perforated"),
    ("auto", "auto"),
    ("dense", "auto"),
    ("perforated", "dense"),
]

Step = dict[str, dict[str, Tensor]]


def block_of(family: str, halting: str) -> AdaptiveBlock:
    """Images halt as a whole: the global branch has the last word. What learns statistics are halting branches."""
    spec = SPECS[family](units=(1, UNITS), base_channels=4, halting=halting, norm="FrozenBN", halting_norm="MovingBN")
    block = spec.build_block(2)
    randomize(block, pool(block), halting_bias=-2.0)
    with torch.no_grad():
        for branch in (unit.halting for unit in block.units[:-1]):
            branch.global_conv.weight.mul_(8)
            for norm in (part for part in branch.modules() if isinstance(part, MovingBatchNorm2d)):
                norm.num_batches_tracked.fill_(1000)
                norm.momentum = 0.03
    return block


def pool(block: AdaptiveBlock) -> Tensor:
    channels = block.units[0].conv1.in_channels
    return images(24, 12, 10, channels) + 2 * images(24, 1, 1, channels, seed=1)


def parts(block: AdaptiveBlock) -> list[Tensor]:
    """What each process holds: three images that halt early, the first of them everywhere; one that never halts."""
    x = pool(block)
    with torch.no_grad():
        cost = block.eval()(x)[1].num_units.float().mean((1, 2))
    order = cost.argsort(stable=True)
    between = ((cost > 1) & (cost < UNITS)).nonzero()[:2, 0]
    assert cost[order[0]] == 1 and cost[order[-1]] == UNITS and len(between) == 2
    return [torch.stack([x[order[0]], *x[between]]), x[order[-1:]]]


def step(block: AdaptiveBlock, execution: str, x: Tensor, kernels: bool) -> Step:
    """Results of two passes, sums of gradients, and statistics: in float32 where kernels may serve, else in float64.

    Some halting scores are so near to 1 that float32 itself costs their gradients four digits.
    """
    if not kernels:
        block, x = block.double(), x.double()
    set_execution(block.train(), execution)
    for _ in range(2):
        features, ponder = block(x)
        (features.square().sum() + 0.1 * ponder.ponder_cost.sum()).backward()
    results = {"features": features.detach(), "units": ponder.num_units, "flops": ponder.flops}
    gradients = {name: parameter.grad for name, parameter in block.named_parameters() if parameter.requires_grad}
    return {"results": results, "gradients": gradients, "statistics": dict(block.named_buffers())}


def counted(collectives: list[int]) -> None:
    """Makes a list grow with every collective of this process, by how many numbers it sums; others than sums are 0."""

    def call(name: str, original: Any, tensor: Tensor, *more: object) -> object:
        collectives.append(tensor.numel() if name == "all_reduce" else 0)
        return original(tensor, *more)

    for name in ("all_reduce", "all_gather", "all_gather_into_tensor", "reduce_scatter", "broadcast"):
        setattr(dist, name, partial(call, name, getattr(dist, name)))


@lru_cache(maxsize=None)
def step_of_one(family: str, halting: str, kernels: bool) -> Step:
    block = block_of(family, halting)
    return step(block, "dense", torch.cat(parts(block)), kernels)


def cases() -> list[tuple[str, str, tuple[str, str], bool]]:
    """Network, what each of the two processes runs, and whether kernels of our own may serve."""
    found = [(*network, pair, False) for network in NETWORKS for pair in EXECUTIONS]
    return [*found, *(("imagenet", "sact", pair, True) for pair in EXECUTIONS)]


def _run_cases(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    why_unavailable = library.why_unavailable
    steps, collectives = [], []
    counted(collectives)
    for family, halting, executions, kernels in cases():
        library.why_unavailable = why_unavailable if kernels else lambda: "none here"
        block = block_of(family, halting)
        collectives.clear()
        steps.append(step(block, executions[rank], parts(block)[rank], kernels) | {"collectives": list(collectives)})
    torch.save(steps, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Step, Step]]:
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(_run_cases, (folder,), nprocs=2)
    return list(zip(*(torch.load(folder / f"{rank}.pt") for rank in range(2))))


@pytest.mark.parametrize("index", range(len(cases())), ids=lambda index: "-".join(map(str, cases()[index])))
def test_two_processes_train_a_block_like_one(index: int, steps: list[tuple[Step, Step]]):
    family, halting, _, kernels = cases()[index]
    if kernels and library.why_unavailable() is not None:
        pytest.skip(str(library.why_unavailable()))
    one, two = step_of_one(family, halting, kernels), steps[index]
    close = 1e-4 if kernels else 1e-9
    for name, value in one["results"].items():
        together = torch.cat([each["results"][name] for each in two])
        if value.is_floating_point():
            torch.testing.assert_close(together, value, rtol=close, atol=close)
        else:
            assert torch.equal(together, value), name
    units = one["results"]["units"].flatten(1).float().mean(1)
    assert units[0] == 1 and units[-1] == UNITS and 1 < units[1:3].mean() < UNITS
    for name, value in one["gradients"].items():
        error = (two[0]["gradients"][name] + two[1]["gradients"][name] - value).norm()
        assert error <= close * value.norm().clamp_min(1e-3), name
    for name, value in one["statistics"].items():
        assert torch.equal(two[0]["statistics"][name], two[1]["statistics"][name]), name
        torch.testing.assert_close(two[0]["statistics"][name], value, rtol=close / 10, atol=close / 10)
    # One sum a norm and pass, forward and backward together, of count, sums and squares: whatever runs the block.
    learning = [part for part in block_of(family, halting).modules() if isinstance(part, MovingBatchNorm2d)]
    expected = 2 * sorted(1 + 2 * norm.num_features for norm in learning)
    for each in two:
        assert sorted(each["collectives"]) == sorted(expected) and each["collectives"] == two[0]["collectives"]
