"""Sets of images with what a network spent on them, and their pictures under one colour scale."""

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.pictures.folder import PictureFolder
from sact_det.pictures.panels import panel
from sact_det.pictures.ponder_file import PonderFile
from sact_det.pictures.scales import SharedLimits
from sact_det.pictures.style import ON_SCREEN, Limits, Style
from sact_det.rule.ponder import PonderRecord

MAX_SIDE = 16384  # pixels; three panels of this side are as much as matplotlib draws


@dataclass(frozen=True)
class PonderedImage:
    """An image and what a network spent on it.

    Attributes:
        name: of the file, for the numbers.
        image: uint8 RGB [H, W, 3], at the size that the network saw.
        block_costs: name -> rho of a block, float32 [h, w] ([1, 1] under ACT).
        title: above the image.
        numbers: for ponder.json; `mean_ponder_cost` is one of them.
    """

    name: str
    image: np.ndarray
    block_costs: Mapping[str, np.ndarray]
    title: str
    numbers: Mapping[str, Any]

    def ponder_map(self, style: Style = ON_SCREEN) -> np.ndarray:
        """The ponder cost of every pixel, float32 [H, W], by the rule of `PonderRecord.map`, or smoothly."""
        return style.spread(self.block_costs.values(), (self.image.shape[0], self.image.shape[1]))


class PonderedImages(Sized, Iterable[PonderedImage]):
    """Images that can be gone through more than once."""


def check_drawable(name: object, size: tuple[int, int]) -> None:
    """Raises InputError, naming the image or file, if images of this (height, width) are too large for a picture."""
    if max(size) > MAX_SIDE:
        raise InputError(f"{name}: sides of more than {MAX_SIDE} pixels cannot be drawn; got {size}")


def block_costs(record: PonderRecord) -> dict[str, np.ndarray]:
    """The ponder cost of every block, float32 [h, w], of a record of one image."""
    return {name: block.ponder_cost[0].numpy() for name, block in record.blocks.items()}


class StoredImages(PonderedImages):
    """The images of a ponder file (sact_det/pictures/ponder_file.py), read one by one.

    Raises InputError for a plain network, and for images that are larger than what can be drawn.
    """

    def __init__(self, file: PonderFile):
        file.check_adaptive()
        check_drawable(file.path, file.size)
        self._file = file

    def __len__(self) -> int:
        return len(self._file)

    def __iter__(self) -> Iterator[PonderedImage]:
        for index, name in enumerate(self._file.names):
            pixels, record = self._file.image(index), self._file.record(index)
            yield PonderedImage(
                name=name,
                image=np.rint(127.5 * (np.clip(pixels, -1, 1) + 1)).astype(np.uint8),
                block_costs=block_costs(record),
                title="image",
                numbers={"height": pixels.shape[0], "width": pixels.shape[1], **record.numbers()},
            )


def without_photograph(image: np.ndarray) -> np.ndarray:
    """White, uint8 [H, W, 3], in the place of an image whose licence forbids showing it."""
    return np.full_like(image, 255)


def draw_on_one_scale(
    images: PonderedImages,
    stems: Sequence[str],
    folder: PictureFolder,
    *,
    per_block: bool = False,
    overlay: bool = False,
    photographs: bool = True,
) -> tuple[Limits, list[dict[str, Any]]]:
    """Draws every image beside its ponder map, all maps between the 0.1 and 99.9 percentiles of the set.

    The images are gone through twice: for the scale, and to draw.

    Args:
        images: at least one.
        stems: names of the pictures, without suffix and cost.
        folder: where they go.
        per_block: adds a row with the map of every block, each on its own scale.
        overlay: adds the ponder map blended on the image.
        photographs: whether the images are shown, or only their maps.

    Returns:
        The scale, and a row for every picture: file, picture, and the image's own numbers.
    """
    scale, style = SharedLimits(), folder.style
    for item in tqdm(images, desc="ponder costs", unit="image", disable=None):  # silent where stderr is no terminal
        scale.add(item.ponder_map(style))
    limits = style.limits or scale.limits()
    rows = []
    for item, stem in zip(tqdm(images, desc="pictures", unit="image", disable=None), stems):
        ponder_map, cost = item.ponder_map(style), item.numbers["mean_ponder_cost"]
        picture = panel(
            style.enlarged(item.image) if photographs else None,
            ponder_map,
            image_title=item.title,
            mean_cost=cost,
            limits=None if scale.flat else limits,
            block_maps=titled(item.block_costs) if per_block else None,
            overlay=item.image if overlay and photographs else None,
            style=style,
        )
        image = item.image if photographs else None
        file = folder.save(stem, cost, picture, Path(item.name).name, image, ponder_map)
        rows.append({"file": item.name, "picture": file, **item.numbers})
    return limits, rows


def titled(costs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The maps of blocks under the titles that a picture gives them."""
    return {f"{name}, mean {float(cost.mean()):.2f}": cost for name, cost in costs.items()}
