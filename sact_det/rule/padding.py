"""Images of different size share a batch; this is where each of them ends.

A `Sizes` lists, per image, the (height, width) of its own part of a padded feature map, top left. `None` stands for
"every image fills the map", which costs nothing. A `Mask` is bool [N, 1, H, W], or `None` for "True everywhere". Every
stride-2 layer of the network maps a size n to ceil(n / 2).
"""

from typing import Any, Optional, Sequence

import torch
from torch import Tensor

from sact_det.base.recording import is_recording
from sact_det.base.transfer import to_device

Sizes = Sequence[tuple[int, int]]
Mask = Optional[Tensor]


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


class Geometry(Sequence[tuple[int, int]]):
    """The sizes of a batch's images on one feature map, and what is made of them: once, and shared by all who ask.

    A GPU gets them in one small tensor, without a wait; those behind strided layers are made of it there.

    Args:
        sizes: (height, width) of every image.
        before: the geometry in front of a layer that led here, and the layer's stride.
    """

    def __init__(self, sizes: Sizes, before: Optional[tuple["Geometry", int]] = None):
        self._sizes = [(_number(height), _number(width)) for height, width in sizes]
        self._before = before
        self._behind: dict[int, Geometry] = {}
        self._tensors: dict[torch.device, Tensor] = {}
        self._counts: dict[torch.device, Tensor] = {}
        self._masks: dict[tuple[torch.device, tuple[int, int]], Tensor] = {}

    @classmethod
    def of(cls, sizes: Sizes) -> "Geometry":
        """The geometry of some sizes, which may be one already."""
        return sizes if isinstance(sizes, cls) else cls(sizes)

    def behind(self, stride: int) -> "Geometry":
        """That behind a layer of a stride; itself for stride 1."""
        if stride == 1:
            return self
        if stride not in self._behind:
            sizes = [strided_size(size, stride) for size in self._sizes]
            self._behind[stride] = Geometry(sizes, (self, stride))
        return self._behind[stride]

    def tensor(self, device: torch.device) -> Tensor:
        """int64 [N, 2], heights and widths."""
        if device not in self._tensors:
            if self._before is None:
                made = to_device(self._sizes, device).view(-1, 2)
            else:
                geometry, stride = self._before
                made = torch.div(geometry.tensor(device) + (stride - 1), stride, rounding_mode="floor")
            self._tensors[device] = made
        return self._tensors[device]

    def counts(self, device: torch.device) -> Tensor:
        """int64 [N]: positions of every image."""
        if device not in self._counts:
            self._counts[device] = self.tensor(device).prod(1)
        return self._counts[device]

    def mask(self, map_size: tuple[int, int], device: torch.device) -> Tensor:
        """bool [N, 1, H, W], True inside each image."""
        key = (device, map_size)
        if key not in self._masks:
            height, width = self.tensor(device)[:, :, None].unbind(1)
            rows = torch.arange(map_size[0], device=device) < height
            columns = torch.arange(map_size[1], device=device) < width
            self._masks[key] = (rows[:, :, None] & columns[:, None, :])[:, None]
        return self._masks[key]

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: Any) -> Any:
        return self._sizes[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._sizes == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        return f"Geometry({self._sizes})"


def own_sizes(sizes: Optional[Sizes], map_size: tuple[int, int]) -> Optional[Geometry]:
    """`sizes`, or None if every image fills the map. Raises ValueError if an image is larger than the map."""
    if sizes is None:
        return None
    if any(_is_recorded(side) for size in sizes for side in size):  # for images that fill the map and for others
        return Geometry.of(sizes)
    for h, w in sizes:
        if not (0 < h <= map_size[0] and 0 < w <= map_size[1]):
            raise ValueError(f"`sizes`: an image of {h}x{w} does not fit a map of {map_size[0]}x{map_size[1]}")
    return None if all((h, w) == tuple(map_size) for h, w in sizes) else Geometry.of(sizes)


def strided_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """(height, width) of a map behind a layer of that stride."""
    # Not -(-side // stride): ONNX rounds towards zero, and a recorded side is a number of the recording.
    return (size[0] + stride - 1) // stride, (size[1] + stride - 1) // stride


def strided_sizes(sizes: Optional[Sizes], stride: int) -> Optional[Geometry]:
    """The sizes behind a layer of that stride."""
    return None if sizes is None else Geometry.of(sizes).behind(stride)


def valid_mask(sizes: Optional[Sizes], map_size: tuple[int, int], device: torch.device) -> Mask:
    """bool [N, 1, H, W], True inside each image; None if there is no padding."""
    return None if sizes is None else Geometry.of(sizes).mask(tuple(map_size), device)  # type: ignore[arg-type]


def positions(sizes: Optional[Sizes], map_size: tuple[int, int], batch: int, device: torch.device) -> Tensor:
    """int64 [N]: the number of positions each image has on the map."""
    if sizes is None:
        return torch.full((batch,), map_size[0] * map_size[1], dtype=torch.int64, device=device)
    return Geometry.of(sizes).counts(device)


def _is_recorded(side: Any) -> bool:
    """Whether a size is no number yet: torch.jit.trace and torch.export record what is made of it."""
    return is_recording() and not isinstance(side, int)


def _number(side: Any) -> Any:
    return side if _is_recorded(side) else int(side)
