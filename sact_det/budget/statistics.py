"""What norms normalise by at a budget: statistics of the features that are there when so much has halted.

A norm's moving statistics are those of the training's features. Where positions halt earlier its features are others,
and normalised by the old statistics they are neither centred nor of unit variance: networks that run at several widths
have the same trouble, and the same remedy, statistics of each (Yu et al., "Slimmable Neural Networks", ICLR 2019).
"""

import base64
import binascii
from collections import OrderedDict
from typing import Any, Hashable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sact_det.execution.packing import MAX_SETTINGS
from sact_det.execution.plan import set_execution
from sact_det.network.freeze import halting_branches
from sact_det.network.norm import BatchNorm2d, MovingBatchNorm2d
from sact_det.network.plan import planned_parts

_STORED = "<f4"


def budgeted_norms(model: nn.Module) -> dict[str, BatchNorm2d]:
    """The norms of a model whose statistics a budget has, by name: all that learn, but for halting branches'.

    Those of halting branches stay as trained: what they do to the scores, a shift makes good.
    """
    branches = halting_branches(model)
    return {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, BatchNorm2d) and not isinstance(part, MovingBatchNorm2d) and not name.startswith(branches)
    }


class Substitutes:
    """Statistics of the budgets used last, as tensors: a budget that comes again has those that it had.

    By them whoever packs weights knows that they have been packed for it.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, dict[str, tuple[Tensor, Tensor]]] = OrderedDict()

    def of(
        self, statistics: Mapping[str, np.ndarray], norms: Mapping[str, BatchNorm2d]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and variance [C] of each norm that has other statistics, on its device and of its type.

        Args:
            statistics: [2, C] by the norm's name.
            norms: by their names, those at least.
        """
        moving = {name: norms[name].running_mean for name in sorted(statistics)}
        key = tuple((name, to.device, to.dtype, statistics[name].tobytes()) for name, to in moving.items())
        if key not in self._kept:
            with torch.inference_mode(False):  # whatever evaluates with them later
                made = {name: torch.tensor(statistics[name]).to(to) for name, to in moving.items()}
                self._kept[key] = {name: (mean, var) for name, (mean, var) in made.items()}
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_SETTINGS:
            self._kept.popitem(last=False)
        return self._kept[key]


@torch.no_grad()
def estimate_statistics(model: Any, batches: Iterable[Any]) -> dict[str, np.ndarray]:
    """The statistics that a model's norms have as it halts now.

    They are averages over batches, each of which is normalised by its own. Everything is computed densely, as in a
    training. The model is as before afterwards.

    Args:
        model: in evaluation mode.
        batches: of its inputs.

    Returns:
        For each of `budgeted_norms` that was reached, means and biased variances, float32 [2, C].
    """
    norms = budgeted_norms(model)
    if not norms:
        return {}
    plans = [(part, part.plan) for part in planned_parts(model)]
    trained = {name: [buffer.clone() for buffer in _buffers(norm)] for name, norm in norms.items()}
    momenta = {name: norm.momentum for name, norm in norms.items()}
    handles = [norm.register_forward_pre_hook(_count) for norm in norms.values()]
    try:
        set_execution(model, "dense")
        for norm in norms.values():
            norm.training = True  # fixed ones, too
            norm.num_batches_tracked.zero_()
        for batch in batches:
            model(batch)
        return {
            name: torch.stack([norm.running_mean, norm.running_var]).float().cpu().numpy()
            for name, norm in norms.items()
            if norm.num_batches_tracked > 0
        }
    finally:
        for handle in handles:
            handle.remove()
        for name, norm in norms.items():
            norm.eval().momentum = momenta[name]
            for buffer, values in zip(_buffers(norm), trained[name]):
                buffer.copy_(values)
        for part, plan in plans:
            part.plan = plan


def trained_statistics(model: nn.Module) -> dict[str, np.ndarray]:
    """Those that `budgeted_norms` have from the training, means and variances, float32 [2, C]."""
    return {
        name: torch.stack([norm.running_mean, norm.running_var]).float().cpu().numpy()
        for name, norm in budgeted_norms(model).items()
    }


def _count(norm: BatchNorm2d, inputs: Any) -> None:
    """So that each batch weighs as much as any other."""
    norm.momentum = 1 / (1 + int(norm.num_batches_tracked))


def _buffers(norm: BatchNorm2d) -> Sequence[Tensor]:
    return norm.running_mean, norm.running_var, norm.num_batches_tracked


def encoded(statistics: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Arrays [2, C] for JSON: the bytes of float32, little-endian, means before variances, in base64."""
    return {name: base64.b64encode(values.astype(_STORED).tobytes()).decode() for name, values in statistics.items()}


def decoded(text: str) -> np.ndarray:
    """One of `encoded`, float32 [2, C]. Raises ValueError if it is none, or no statistics."""
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), _STORED).reshape(2, -1)
    except (binascii.Error, ValueError):
        raise ValueError("expected float32 [2, C] in base64") from None
    if not values.size:
        raise ValueError("expected float32 [2, C] in base64")
    if not np.isfinite(values).all() or (values[1] < 0).any():
        raise ValueError("means must be finite, variances finite and not negative")
    return values.astype(np.float32)
