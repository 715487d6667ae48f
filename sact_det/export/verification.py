"""Whether a program computes what PyTorch does: the same detections, features and ponder costs."""

from typing import Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sact_det.base.errors import InputError

NUMBER_OF_SIZES = 3
_PIXELS, _SCORES, _FEATURES = 0.05, 1e-3, 1e-3  # largest differences; of features, in times the largest
# A halting score may hang on rounding, and other libraries round otherwise: so many positions may halt elsewhere.
_POSITIONS, _COST = 1 / 500, 1e-3


def of_different_sizes(images: Sequence[Tensor]) -> list[Tensor]:
    """The images [..., H, W], and crops of them until there are NUMBER_OF_SIZES sizes.

    Raises:
        InputError: they are too small to be cropped to other sizes.
    """
    found = list(images)
    crops = (
        image[..., : image.shape[-2] * rows // 8, : image.shape[-1] * columns // 8].contiguous()
        for image in images
        for rows, columns in ((8, 6), (6, 7), (5, 5))
    )
    while len({image.shape[-2:] for image in found}) < NUMBER_OF_SIZES:
        crop = next(crops, None)
        if crop is None:
            raise InputError(f"--images: they are too small for {NUMBER_OF_SIZES} different sizes")
        found.append(crop)
    return found


def differences(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> dict[str, float]:
    """The largest difference in every output.

    Detections may change places where their scores are equal to rounding. Ponder costs and FLOPs may differ where a
    halting score is equal to its threshold to rounding.

    Args:
        expected: what PyTorch computes.
        actual: what the program does.

    Raises:
        InputError: they differ by more than rounding.
    """
    if list(expected) != list(actual):
        raise InputError(f"it has the outputs {', '.join(actual)}, not {', '.join(expected)}")
    if "scores" in expected:
        _check_number(len(expected["scores"]), len(actual["scores"]))
        actual = _in_order(expected, actual)
    found = {}
    for name, value in expected.items():
        other = actual[name]
        if value.shape != other.shape:
            raise InputError(f"{name} is {list(other.shape)}, not {list(value.shape)}")
        found[name] = _difference(name, value.double(), other.double())
    return found


def _check_number(expected: int, actual: int) -> None:
    if expected != actual:
        raise InputError(f"it finds {actual} objects where PyTorch finds {expected}")


def _in_order(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The program's detections in the order of PyTorch's: each beside the nearest of its class."""
    distance = (expected["boxes"][:, None] - actual["boxes"]).abs().amax(2).double()
    distance = distance + (expected["scores"][:, None] - actual["scores"]).abs()
    distance[expected["classes"][:, None] != actual["classes"]] = 1e9
    order = torch.from_numpy(np.asarray(linear_sum_assignment(distance.numpy())[1], dtype=np.int64))
    number = len(expected["scores"])
    is_of_detections = {name: not _is_spent(name) and len(value) == number for name, value in expected.items()}
    return {name: value[order] if is_of_detections[name] else value for name, value in actual.items()}


def _is_spent(name: str) -> bool:
    return name.startswith("ponder_") or name == "flops"


def _difference(name: str, expected: Tensor, actual: Tensor) -> float:
    if not expected.numel():
        return 0.0
    difference = (expected - actual).abs()
    most = float(difference.max())
    if name.startswith("ponder_") or name == "masks":
        share = float((difference > _COST).double().mean())
        _check(name, share <= _POSITIONS, f"differs at {share:.2%} of the positions")
    elif name == "flops":
        share = most / float(expected.max())
        _check(name, share <= _POSITIONS, f"differs by {share:.2%}")
    elif name in ("boxes", "keypoints"):
        _check(name, most <= _PIXELS, f"differ by {most:.3g} pixels")
    elif name in ("classes", "scores"):
        _check(name, most <= _SCORES, f"differ by {most:.3g}")
    else:
        most /= max(float(expected.abs().max()), 1e-12)
        _check(name, most <= _FEATURES, f"differ by {most:.3g} of the largest")
    return most


def _check(name: str, agrees: bool, said: str) -> None:
    if not agrees:
        raise InputError(f"{name} {said}")
