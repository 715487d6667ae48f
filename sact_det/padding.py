"""Images of different size share a batch; this is where each of them ends.

A `Sizes` lists, per image, the (height, width) of its own part of a padded feature map, top left. `None` stands for
"every image fills the map", which costs nothing. Every stride-2 layer of the network maps a size n to ceil(n / 2).
"""

from typing import Optional, Sequence

import torch
from torch import Tensor

Sizes = Sequence[tuple[int, int]]


def check_batch(name: str, x: Tensor, sizes: Optional[Sizes] = None) -> None:
    """Raises ValueError, naming the argument, unless x is [N, C, H, W] and `sizes` has a pair for each image."""
    if x.dim() != 4:
        raise ValueError(f"`{name}` must be a batch [N, C, H, W]; got {list(x.shape)}")
    if sizes is None:
        return
    if len(sizes) != x.shape[0]:
        raise ValueError(f"`sizes` must have a (height, width) for each of {x.shape[0]} images; got {len(sizes)}")
    for size in sizes:
        if len(size) != 2 or not all(hasattr(side, "__index__") for side in size):
            raise ValueError(f"`sizes` must be pairs of whole numbers, (height, width); got {size!r}")


def own_sizes(sizes: Optional[Sizes], map_size: tuple[int, int]) -> Optional[Sizes]:
    """`sizes`, or None if every image fills the map. Raises ValueError if an image is larger than the map."""
    if sizes is None:
        return None
    for h, w in sizes:
        if not (0 < h <= map_size[0] and 0 < w <= map_size[1]):
            raise ValueError(f"`sizes`: an image of {h}x{w} does not fit a map of {map_size[0]}x{map_size[1]}")
    return None if all((h, w) == tuple(map_size) for h, w in sizes) else sizes


def strided_sizes(sizes: Optional[Sizes], stride: int) -> Optional[Sizes]:
    """The sizes behind a layer of that stride."""
    return None if sizes is None else [(-(-h // stride), -(-w // stride)) for h, w in sizes]


def valid_mask(sizes: Optional[Sizes], map_size: tuple[int, int], device: torch.device) -> Optional[Tensor]:
    """bool [N, 1, H, W], True inside each image; None if there is no padding."""
    if sizes is None:
        return None
    height, width = (torch.tensor(side, device=device)[:, None] for side in zip(*sizes))
    rows = torch.arange(map_size[0], device=device) < height
    columns = torch.arange(map_size[1], device=device) < width
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def positions(sizes: Optional[Sizes], map_size: tuple[int, int], batch: int, device: torch.device) -> Tensor:
    """int64 [N]: the number of positions each image has on the map."""
    if sizes is None:
        return torch.full((batch,), map_size[0] * map_size[1], dtype=torch.int64, device=device)
    return torch.tensor([h * w for h, w in sizes], dtype=torch.int64, device=device)
