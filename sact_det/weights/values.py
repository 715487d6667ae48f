"""What weights may hold: finite numbers, and variances that are not negative."""

from typing import Sequence

import numpy as np
import torch
from torch import Tensor

from sact_det.base.errors import InputError

COUNTER = "num_batches_tracked"  # of the steps of a norm; the one integer among weights
_VARIANCES = ("running_var", "moving_variance")  # PyTorch's name and TF-Slim's


def check_dense(name: str, values: Tensor) -> None:
    """Raises InputError, which starts with `name`, if a tensor has no place in memory for each of its values."""
    if values.layout is not torch.strided or values.is_quantized or values.is_meta:
        raise InputError(f"{name}: is a sparse, quantised or meta tensor; expected a dense one")


def check_values(name: str, values: Tensor) -> None:
    """Raises InputError if a tensor has no values, or one that no network computes with.

    Floats have to be finite as float32, in which networks have them.

    Args:
        name: the error starts with it; those of variances end as PyTorch's or TF-Slim's do.
        values: a dense tensor; one on the meta device has nothing to look at.
    """
    if not values.numel():
        raise InputError(f"{name}: is empty, {describe(values)}; expected numbers")
    if values.is_meta or not values.is_floating_point():
        return
    numbers = _distinct(values).float()
    if count := int((~torch.isfinite(numbers)).sum()):
        raise InputError(f"{name}: {count} of {numbers.numel()} values are NaN, infinite or beyond float32")
    if name.endswith(_VARIANCES) and (count := int((numbers < 0).sum())):
        least = float(numbers.min())
        raise InputError(f"{name}: {count} of {numbers.numel()} variances are negative, down to {least:.3g}")


def float32_tensor(name: str, values: np.ndarray, shape: Sequence[int], axes: Sequence[int]) -> Tensor:
    """An array of floats as a float32 tensor of its own.

    Args:
        name: as of `check_values`.
        values: floats of any precision.
        shape: of the result.
        axes: where in the array PyTorch's sides of a convolution's weights, [out, in, height, width], are; arrays of
            fewer sides stay as they are.

    Raises:
        InputError: the array has another shape or type, or holds what no weight does.
    """
    expected = [shape[axes.index(side)] for side in range(4)] if len(shape) == 4 else list(shape)
    if list(values.shape) != expected or values.dtype.kind != "f":
        raise InputError(f"{name}: is {values.dtype} {list(values.shape)}; expected floats {expected}")
    values = values.transpose(axes) if values.ndim == 4 else values
    with np.errstate(over="ignore"):  # beyond float32: refused below
        tensor = torch.from_numpy(np.array(values, np.float32, order="C"))
    check_values(name, tensor)
    return tensor


def describe(values: Tensor) -> str:
    """Type and shape: "float32 [64, 3, 7, 7]"."""
    return f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"


def kind(name: str) -> str:
    """What a weight of this name is: "floats" or "an integer"."""
    return "an integer" if name.endswith(COUNTER) else "floats"


def is_of_kind(name: str, values: Tensor) -> bool:
    """Whether a tensor holds what its name promises; booleans and complex numbers are neither floats nor integers."""
    if kind(name) == "floats":
        return values.is_floating_point()
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def _distinct(values: Tensor) -> Tensor:
    """The values, or, where a tensor names them again and again, all of its storage: it may be much smaller."""
    stored = values.untyped_storage()
    if values.numel() * values.element_size() <= stored.nbytes():
        return values
    return values.new_empty(0).set_(stored)
