"""Blocks in training whose runs are compared: outputs, gradients and statistics."""

import copy
from typing import Callable, Optional

import torch
from small_networks import images, randomize
from torch import Tensor

from sact_det.execution import set_execution
from sact_det.network.block import AdaptiveBlock
from sact_det.network.norm import freeze_norms
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.network.run import DenseRun, Run
from sact_det.rule.padding import Sizes, strided_sizes, valid_mask

UNITS = 4
Start = Callable[[Tensor, Optional[Tensor], Optional[Tensor]], Run]  # of x, valid_in and valid


def block_of(index: int = 2, base_channels: int = 4, halting_norm: str = "FrozenBN", **fields: object) -> AdaptiveBlock:
    spec = ResNetV2Spec(units=(UNITS, UNITS), base_channels=base_channels, halting="sact", **fields)
    block = spec.build_block(index)
    block = randomize(block, inputs(block, 4, 24, 24), halting_bias=-1.0)
    if halting_norm == "FrozenBN":
        freeze_norms(block)
        return block.train()
    moving = ResNetV2Spec(
        units=(UNITS, UNITS), base_channels=base_channels, halting="sact", norm="FrozenBN", halting_norm=halting_norm
    ).build_block(index)
    moving.load_state_dict(block.state_dict(), strict=False)
    return moving.train()


def inputs(block: AdaptiveBlock, number: int, height: int, width: int) -> Tensor:
    """Noise around a mean that differs from image to image and channel to channel."""
    channels = block.units[0].conv1.in_channels
    return images(number, height, width, channels) + images(number, 1, 1, channels, seed=1)


def shrinking_masks(pattern: str, exists: Tensor) -> list[Tensor]:
    """One mask per unit but the first, each within the one before."""
    _, height, width = exists.shape
    ys, xs = torch.arange(height)[:, None], torch.arange(width)
    border = (ys % max(height - 1, 1) == 0) | (xs % max(width - 1, 1) == 0)
    chance = torch.rand(exists.shape, generator=torch.Generator().manual_seed(3))
    nowhere = exists & False
    single = exists & (exists.flatten().cumsum(0) == exists.sum() // 2 + 1).view(exists.shape)
    one_image = exists & (torch.arange(len(exists)) == 0)[:, None, None]
    return {
        "full": [exists] * 3,
        "empty": [nowhere] * 3,
        "random": [exists & (chance < share) for share in (0.7, 0.3, 0.05)],
        "border": [exists, exists & border, exists & border],
        "single": [single] * 3,
        "one image": [exists, one_image, nowhere],
    }[pattern]


def differentiate(
    block: AdaptiveBlock, start: Callable[[Tensor], Run], x: Tensor, masks: list[Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Output, scores and all gradients of a run over prescribed masks; its weights p^l have gradients as well."""
    generator = torch.Generator().manual_seed(7)
    x = x.to(dtype).requires_grad_()
    run = start(x)
    left, loss, found, leaves = torch.ones(masks[0].shape), torch.zeros((), dtype=dtype), {}, {}
    for index, (unit, active, after) in enumerate(zip(block.units, masks, [*masks[1:], masks[0] & False])):
        if index > 0:
            run.evaluate(unit, active)
        if unit.halting is not None:
            scores = run.scores(unit.halting)
            found[f"scores {index}"] = scores[active]
            loss = loss + (scores * torch.rand(left.shape, generator=generator))[active].sum()
        weight = torch.where(after, left * 0.3, left) * active
        left = left - weight
        leaves[f"weight {index}"] = weight.to(dtype).requires_grad_()
        run.add(leaves[f"weight {index}"])
    found["output"] = run.result()
    loss = loss + (found["output"] * torch.randn(found["output"].shape, generator=generator)).sum()
    parameters = {name: p for name, p in block.named_parameters() if p.requires_grad}
    wanted = {**parameters, **leaves, "x": x}
    gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    # The first weight says what the first unit's output weighs; runs may take it from the others, as all sum to 1.
    first = gradients[list(wanted).index("weight 0")]
    found.update({f"gradient of {name}": gradient for name, gradient in zip(wanted, gradients)})
    for index, active in enumerate(masks):
        gradient = found.pop(f"gradient of weight {index}")
        found[f"gradient of weight {index}"] = (_or_zeros(gradient, left) - _or_zeros(first, left))[active]
    return {name: value.detach() for name, value in found.items() if value is not None}


def _or_zeros(gradient: Optional[Tensor], like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


def errors_of_run(
    block: AdaptiveBlock, start: Start, x: Tensor, pattern: str, sizes: Optional[Sizes]
) -> dict[str, float]:
    """How far a run is from the dense one in double precision, relative in the Euclidean norm, by name."""
    stride = block.units[0].stride
    map_size = tuple(-(-side // stride) for side in x.shape[2:])
    valid_in = valid_mask(sizes, x.shape[2:], x.device)
    valid = valid_mask(strided_sizes(sizes, stride), map_size, x.device)
    exists = torch.ones(len(x), *map_size, dtype=torch.bool) if valid is None else valid[:, 0]
    masks = [exists, *shrinking_masks(pattern, exists)]
    actual = differentiate(block, lambda x: start(x, valid_in, valid), x, masks, torch.float32)
    exact = copy.deepcopy(block).double()
    dense = lambda x: DenseRun(exact.units[0](x, None, valid_in, valid), valid)  # noqa: E731
    errors = {}
    for name, value in differentiate(exact, dense, x, masks, torch.float64).items():
        got = actual.get(name)
        if got is None or not value.numel():
            assert not value.any(), name
            continue
        errors[name] = float((got - value).norm() / max(float(value.norm()), 1e-4 * value.numel() ** 0.5))
    return errors


def step(
    block: AdaptiveBlock, execution: str, x: Tensor, sizes: Optional[Sizes] = None, loss: str = "both"
) -> dict[str, Tensor]:
    """Gradients and statistics of one step; `loss`: of what."""
    block = copy.deepcopy(block)
    set_execution(block, execution)
    x = x.clone().requires_grad_()
    features, ponder = block(x, sizes)
    parts = {"features": features.square().mean(), "ponder": 0.1 * ponder.ponder_cost.mean()}
    (sum(parts.values()) if loss == "both" else parts[loss]).backward()
    gradients = {name: p.grad for name, p in block.named_parameters() if p.grad is not None}
    found = {**gradients, **dict(block.named_buffers()), "features": features.detach()}
    return found if x.grad is None else {**found, "x": x.grad}


def compare(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        error = (actual[name] - value).float().norm() / value.float().norm().clamp_min(1e-6)
        assert error < tolerance, f"{name}: {error:.1e}"
