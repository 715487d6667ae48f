"""Batch normalisation as the original program defines it, aware of padding and of other processes.

Shape shorthand in this module:
    N: images in the batch; C: channels; H, W: height and width of the feature map, padding included.

Differences from `torch.nn.BatchNorm2d`, each of which changes numbers:

* the moving variance averages the *biased* batch variance (TensorFlow's rule);
* `valid`, a bool mask [N, 1, H, W], keeps the padding of images of different size out of the statistics;
* a batch without any position teaches nothing, and is no error;
* "SyncBN" takes the statistics over all processes, weighted by the positions each of them holds;
* "MovingBN" normalises by the moving statistics in training too. A halting branch normalises *one vector per image*
  (the global mean), so with one or two images per process batch statistics carry no information at all.

Processes talk in one collective per norm and step, the same whatever computes the features (process_sums.py). "BN"
leaves it to whoever trains to make one set of the moving statistics of several processes.
"""

from functools import partial
from typing import Any, Callable, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d as _FrozenBatchNorm2d
from typing_extensions import override

from sact_det.base.precision import widened
from sact_det.base.recording import is_recomputing
from sact_det.network.process_sums import of_all_processes, spans_processes
from sact_det.rule.padding import Mask

Norm = Callable[[int], nn.Module]

TF_EPSILON = 1e-5
TF_DECAY = 0.997


def _check_channels(x: Tensor, channels: int) -> None:
    """Raises ValueError where arithmetic would make several channels of one; F.batch_norm has a check of its own."""
    if x.shape[1] != channels:
        raise ValueError(f"a norm of {channels} channels got a feature map of {list(x.shape)}")


class BatchNorm2d(nn.BatchNorm2d):
    """Normalises by the batch in training and by the moving statistics in evaluation ("BN").

    Attributes:
        substituted_mean, substituted_var: [C], by which it normalises in evaluation instead; None: by the moving ones.
            They are no part of the weights.
        fixed: whether it stays in evaluation, whatever it is told (sact_det/network/freeze.py).
    """

    fixed = False
    synchronized = False
    running_mean: Tensor  # always tracked here
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float
    substituted_mean: Optional[Tensor]
    substituted_var: Optional[Tensor]

    def __init__(self, num_features: int, eps: float = TF_EPSILON, momentum: float = 1 - TF_DECAY):
        super().__init__(num_features, eps=eps, momentum=momentum)
        # Buffers, so that what is packed of weights is made of these, too.
        for name in ("substituted_mean", "substituted_var"):
            self.register_buffer(name, None, persistent=False)

    def train(self, mode: bool = True) -> "BatchNorm2d":
        """nn.Module's; a fixed norm does not learn."""
        return super().train(mode and not self.fixed)

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and variance [C] of evaluations."""
        if self.substituted_mean is None or self.substituted_var is None:
            return self.running_mean, self.running_var
        return self.substituted_mean, self.substituted_var

    def substitute(self, mean: Optional[Tensor] = None, var: Optional[Tensor] = None) -> None:
        """Evaluations normalise by these [C] from now on; None: by the moving statistics.

        Tensors on the norm's device, of its type, are taken as they are: where they come again, what was packed with
        them is known.
        """
        self.substituted_mean = None if mean is None else mean.to(self.running_mean)
        self.substituted_var = None if var is None else var.to(self.running_var)

    def forward(self, x: Tensor, valid: Mask = None) -> Tensor:
        """x: [N, C, H, W]; valid: bool [N, 1, H, W] or None (every position). Returns [N, C, H, W]."""
        if not self.training:
            return self._normalize(x, *self.statistics)
        if valid is None and len(x) > 0 and not (self.synchronized and spans_processes()):
            return self._native_training_step(x)
        _check_channels(x, self.num_features)
        count, mean, var = self._batch_statistics(widened(x), valid)
        self._update(count, mean, var)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return ((x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def _normalize(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return F.batch_norm(x, mean, var, self.weight, self.bias, training=False, eps=self.eps)

    def _native_training_step(self, x: Tensor) -> Tensor:
        count = x.numel() // x.shape[1]
        if count == 1 and x.shape[1] == self.num_features:  # the batch is its own mean; torch's kernel refuses it
            self._update(count, widened(x).flatten(), torch.zeros_like(self.running_var))
            return (x * 0 * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)
        mean, unbiased_var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        y = F.batch_norm(x, mean, unbiased_var, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps)
        self._update(count, mean, unbiased_var * ((count - 1) / count))
        return y

    def _batch_statistics(self, x: Tensor, valid: Mask) -> tuple[Tensor, Tensor, Tensor]:
        """Count, mean and biased variance [C] of the valid positions (of all processes, when synchronized)."""
        weight = torch.ones_like(x[:, :1]) if valid is None else valid.to(x.dtype)
        count = weight.sum()
        mean = (x * weight).sum((0, 2, 3)) / count.clamp(min=1)
        centred = (x - mean[:, None, None]) * weight
        var = centred.square().sum((0, 2, 3)) / count.clamp(min=1)
        if not (self.synchronized and spans_processes()):
            return count, mean, var
        own_count, own_mean, own_var = count.double(), mean.double(), var.double()
        squares = own_count * (own_var + own_mean.square())
        count, mean, var = of_all_processes(own_count, own_count * own_mean, squares)
        return count, mean.to(x.dtype), var.to(x.dtype)

    @torch.no_grad()
    def _update(self, count: Union[Tensor, int], mean: Tensor, var: Tensor) -> None:
        """Moves the statistics towards those of a batch of so many positions, if there are any; once for a batch."""
        if is_recomputing():
            return
        self.num_batches_tracked.add_(count > 0)
        rate = self.momentum * (count > 0)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(var.to(self.running_var.dtype), rate)


class SyncBatchNorm2d(BatchNorm2d):
    """`BatchNorm2d` whose batch is that of all processes together ("SyncBN"); works on CPU and GPU."""

    synchronized = True


class MovingBatchNorm2d(SyncBatchNorm2d):
    """Normalises by the moving statistics in training too; no gradient flows through them ("MovingBN").

    The moving statistics are exact averages of first and second moments, over all processes. The initial mean 0 and
    variance 1 count as one step and fade as 1/steps, so that the first steps are neither biased nor unbounded.
    """

    def forward(self, x: Tensor, valid: Mask = None) -> Tensor:
        """x: [N, C, H, W]; valid: bool [N, 1, H, W] or None (every position). Returns [N, C, H, W]."""
        if self.training:
            _check_channels(x, self.num_features)
            with torch.no_grad():
                self._update(*self._batch_statistics(widened(x), valid))
            # A copy: the next forward pass before backward must not change what this one normalised by.
            return self._normalize(x, self.running_mean.clone(), self.running_var.clone())
        return self._normalize(x, self.running_mean, self.running_var)

    @torch.no_grad()
    def observe(self, count: Tensor, total: Tensor, squares: Tensor) -> None:
        """Updates the moving statistics as a forward pass does, from sums instead of a feature map: in training only.

        Args:
            count: float64 [], number of positions of this process.
            total, squares: float64 [C], sums of the features and of their squares over these positions.
        """
        if self.training:
            self._update(*of_all_processes(count, total, squares))

    @override
    @torch.no_grad()
    def _update(self, count: Union[Tensor, int], mean: Tensor, var: Tensor) -> None:
        if is_recomputing():
            return
        mean, var = mean.to(self.running_mean.dtype), var.to(self.running_var.dtype)
        self.num_batches_tracked.add_(count > 0)
        rate = (self.num_batches_tracked + 1).to(mean.dtype).reciprocal().clamp(min=self.momentum) * (count > 0)
        spread = rate * (1 - rate) * (mean - self.running_mean).square()  # variance between old mean and new
        self.running_var.lerp_(var, rate).add_(spread)
        self.running_mean.lerp_(mean, rate)


class FrozenBatchNorm2d(_FrozenBatchNorm2d):
    """Fixed statistics and fixed affine parameters ("FrozenBN"); keeps the dtype of its input."""

    def __init__(self, num_features: int, eps: float = TF_EPSILON):
        super().__init__(num_features, eps)

    def forward(self, x: Tensor, valid: Mask = None) -> Tensor:
        """x: [N, C, H, W]; valid is accepted for symmetry and has no effect."""
        if not x.requires_grad:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        _check_channels(x, len(self.weight))
        # F.batch_norm would keep x for the gradients of the constant weight and bias.
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]


NORMS: dict[str, type[nn.Module]] = {
    "BN": BatchNorm2d,
    "SyncBN": SyncBatchNorm2d,
    "MovingBN": MovingBatchNorm2d,
    "FrozenBN": FrozenBatchNorm2d,
}


def get_norm(name: str, decay: float = TF_DECAY, eps: float = TF_EPSILON) -> Norm:
    """A constructor of norms, from a number of channels.

    Args:
        name: a key of NORMS.
        decay: of the moving statistics, in [0, 1); frozen norms have none.
        eps: added to the variance.

    Raises:
        ValueError: an argument is out of range.
    """
    if name not in NORMS:
        raise ValueError(f"`norm` must be one of {', '.join(NORMS)}; got {name!r}")
    if not 0 <= decay < 1:
        raise ValueError(f"`decay` of the moving statistics must lie in [0, 1); got {decay}")
    if name == "FrozenBN":
        return partial(FrozenBatchNorm2d, eps=eps)
    return partial(NORMS[name], eps=eps, momentum=1 - decay)


def learns_from_batch(norm: Optional[nn.Module]) -> bool:
    """Whether a norm, in its present mode, updates its statistics; no other module does."""
    return norm is not None and norm.training and isinstance(norm, BatchNorm2d)


def depends_on_batch(norm: Optional[nn.Module]) -> bool:
    """Whether a norm, in its present mode, normalises by statistics of the batch."""
    return learns_from_batch(norm) and not isinstance(norm, MovingBatchNorm2d)


def norm_affine(norm: nn.Module, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Scale and shift [C] of a norm that does not depend on the batch; differentiable."""

    def read(tensor: Any) -> Tensor:
        return tensor.to(dtype, copy=not tensor.requires_grad)  # a step in training changes statistics in place

    statistics = norm.statistics if isinstance(norm, BatchNorm2d) and not norm.training else None
    mean, var = statistics or (norm.running_mean, norm.running_var)
    weight, bias, mean, var = map(read, (norm.weight, norm.bias, mean, var))
    scale = weight * torch.rsqrt(var + norm.eps)  # type: ignore[operator]
    return scale, bias - mean * scale


def freeze_norms(module: nn.Module, skip: str = "") -> None:
    """Replaces every learning norm below `module` by a FrozenBatchNorm2d with its values, in place.

    Args:
        skip: children of this name are left alone.
    """
    for name, child in module.named_children():
        if name == skip:
            continue
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, frozen_norm(child))
        else:
            freeze_norms(child, skip)


def frozen_norm(norm: nn.Module) -> nn.Module:
    """A FrozenBatchNorm2d with the values of a learning norm; any other norm itself."""
    if not isinstance(norm, nn.BatchNorm2d):
        return norm
    frozen = FrozenBatchNorm2d(norm.num_features, norm.eps)
    frozen.load_state_dict({key: value.clone() for key, value in norm.state_dict().items()}, assign=True)
    return frozen
