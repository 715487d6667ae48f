"""Algorithms 1 and 2 of the paper, line by line: loops over units and positions, and nothing from sact_det."""

# ruff: noqa: E741 (the paper's `l`)

from typing import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def algorithm_1(
    x: Tensor, units: Sequence[Function], scores: Sequence[Function], eps: float
) -> tuple[Tensor, float, int]:
    """Adaptive computation time for one image x [1, C, H, W].

    Args:
        units: F^1 ... F^L, [1, C, H, W] -> [1, C, H, W].
        scores: H^1 ... H^(L-1), [1, C, H, W] -> one number.

    Returns:
        output, rho and N.
    """
    c, R, output, rho = (torch.tensor(value, dtype=x.dtype) for value in (0.0, 1.0, 0.0, 0.0))
    for l in range(1, len(units) + 1):
        x = units[l - 1](x)
        h = scores[l - 1](x).squeeze() if l < len(units) else torch.tensor(1.0, dtype=x.dtype)
        c = c + h
        rho = rho + 1
        if c < 1 - eps:
            output = output + h * x
            R = R - h
        else:
            output = output + R * x
            rho = rho + R
            break
    return output, rho.item(), l


def algorithm_2(
    x: Tensor, units: Sequence[Function], scores: Sequence[Function], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Spatially adaptive computation time for one image x [1, C, H, W].

    Args:
        units: F^1 ... F^L, evaluated everywhere, [1, C, H, W] -> [1, C, H, W]; the first may change the shape.
        scores: H^1 ... H^(L-1), [1, C, H, W] -> [1, H, W].

    Returns:
        output [1, C, H, W], rho [H, W] and N [H, W].
    """
    L = len(units)
    height, width = units[0](x).shape[2:]
    X = [(i, j) for i in range(height) for j in range(width)]
    a = dict.fromkeys(X, True)
    ones = torch.ones(height, width, dtype=x.dtype)
    c, R, rho = 0 * ones, 1 * ones, 0 * ones
    N = torch.zeros(height, width, dtype=torch.int64)
    output = torch.zeros_like(units[0](x))
    for l in range(1, L + 1):
        if not any(a.values()):
            break
        F = units[l - 1](x)
        previous, x = x, torch.empty_like(F)
        for i, j in X:
            x[:, :, i, j] = F[:, :, i, j] if a[i, j] else previous[:, :, i, j]
        h = scores[l - 1](x)[0] if l < L else ones
        for i, j in X:
            if not a[i, j]:
                continue
            c[i, j] += h[i, j]
            rho[i, j] += 1
            N[i, j] = l
            if c[i, j] < 1 - eps:
                output[:, :, i, j] += h[i, j] * x[:, :, i, j]
                R[i, j] -= h[i, j]
            else:
                output[:, :, i, j] += R[i, j] * x[:, :, i, j]
                rho[i, j] += R[i, j]
                a[i, j] = False
    return output, rho, N
