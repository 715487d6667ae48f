"""One step of fine-tuning the extractor with frozen norms: forward and backward."""

import copy
from typing import Any, Callable, Optional, Sequence

import torch
from torch import Tensor, nn

from sact_det.benchmark.networks import AdaptivePart, PartSettings, dense_part
from sact_det.benchmark.parts import Disagreement, own_name
from sact_det.benchmark.report import Entry, Table
from sact_det.benchmark.setting import Setting
from sact_det.benchmark.timing import Candidate
from sact_det.execution import keep_half_states

TAU = 0.005
RIVALS = ("eager", "channels-last", "compile")  # of those in rivals.py, what can train
# Times that of features, in the Euclidean norm: behind many ReLUs, rounding moves single gradients far.
GRADIENT_TOLERANCE = 100


def training_part(settings: PartSettings) -> AdaptivePart:
    """A part in training mode; all its weights learn, halting branches included."""
    return settings.build().train()


def plain_step(network: nn.Module, x: Tensor, setting: Setting) -> None:
    """Forward and backward of the mean of the features."""
    with setting.autocast():
        loss = network(x).float().mean()
    loss.backward()


def adaptive_step(part: AdaptivePart, x: Tensor, setting: Setting) -> None:
    """Forward and backward of the mean of the features and the ponder loss."""
    with setting.autocast():
        features, ponders = part(x)
        loss = features.float().mean() + TAU * sum(ponder.mean_cost().mean() for ponder in ponders)
    loss.backward()


def rival_step(name: str, part: AdaptivePart, x: Tensor, setting: Setting) -> tuple[Callable[[], None], nn.Module]:
    """A step of the plain network in one of RIVALS' forms, and that network."""
    layout = torch.contiguous_format if name == "eager" else torch.channels_last
    network = dense_part(part).train().to(setting.device, memory_format=layout)  # type: ignore[call-overload]
    forward: Any = torch.compile(network, fullgraph=True, dynamic=False) if name == "compile" else network
    images = x.contiguous(memory_format=layout)
    return lambda: plain_step(forward, images, setting), network


def measure_training(
    title: str,
    settings: PartSettings,
    size: tuple[int, int],
    batch: int,
    ratios: Sequence[float],
    setting: Setting,
    half_states: bool = False,
) -> Table:
    """One step of ours beside dense ones in PyTorch. FLOP ratios are those of the forward pass.

    Args:
        title: of the table.
        settings: of the part; norms "FrozenBN", halting norms "MovingBN".
        size, batch: of the images.
        ratios: FLOP ratios to prescribe masks for.
        setting: its rivals that cannot train are left out.
        half_states: whether kernels keep states as of sact_det.execution.keep_half_states.

    Raises:
        InputError: a FLOP ratio is out of reach.
        Disagreement: an execution has other gradients than the masked dense one.
    """
    with setting.activated(), torch.enable_grad():
        part = training_part(settings)
        x = setting.random(*settings.input_shape(batch, size))
        dense_flops = part.dense_flops(x.shape)
        masks = part.masks(x.shape, ratios, setting.seed)
        part.to(setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if half_states:
            part.set_execution("perforated")
            keep_half_states(part)
        candidates, entries, reference = [], [], None
        for name in [name for name in setting.rivals if name in RIVALS]:
            step, network = rival_step(name, part, x, setting)
            step()
            gradient = _root_gradient(network)
            reference = gradient if reference is None else reference
            difference = _checked(name, gradient, reference, setting)
            candidates.append(_candidate(name, step, network))
            entries.append(Entry(name, rival=True, difference=difference))
        for ratio, depths in masks.items():
            part.prescribe(depths)
            flop_ratio = part.flops(x.shape, depths) / dense_flops
            reference = _own_gradient(part, x, "dense", Setting(device=setting.device))
            for execution in setting.executions:
                name = own_name(ratio, execution)
                difference = _checked(name, _own_gradient(part, x, execution, setting), reference, setting)
                candidates.append(_own_candidate(part, x, depths, name, execution, setting))
                entries.append(Entry(name, False, flop_ratio, difference, ratio, execution))
        times = setting.times(candidates, title)
    return Table(title, x.shape, dense_flops, entries, times)


def _candidate(name: str, step: Callable[[], None], network: nn.Module) -> Candidate:
    return Candidate(name, lambda _: step(), lambda: network.zero_grad(set_to_none=True))


def _own_candidate(
    part: AdaptivePart, x: Tensor, depths: Optional[Sequence[Tensor]], name: str, execution: str, setting: Setting
) -> Candidate:
    def prepare() -> None:
        part.zero_grad(set_to_none=True)
        part.set_up(execution, depths)

    return Candidate(name, lambda _: adaptive_step(part, x, setting), prepare)


def _own_gradient(part: AdaptivePart, x: Tensor, execution: str, setting: Setting) -> Tensor:
    """Of the root convolution, from the statistics that the part has now: a step moves them."""
    part = copy.deepcopy(part)
    part.set_execution(execution)
    adaptive_step(part, x, setting)
    return _root_gradient(part)


def _root_gradient(network: nn.Module) -> Tensor:
    gradient = next(network.parameters()).grad
    assert gradient is not None
    return gradient


def _checked(name: str, gradient: Tensor, reference: Tensor, setting: Setting) -> float:
    difference = float((gradient - reference).norm() / reference.norm())
    if not difference <= GRADIENT_TOLERANCE * setting.tolerance:
        raise Disagreement(f"{name}: the gradient is off by {difference:.1e} of its length")
    return difference
