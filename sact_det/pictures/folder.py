"""A folder of pictures whose names sort by ponder cost, with a contact sheet and the numbers; a set on one scale."""

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Protocol, Sequence, Union

import numpy as np
from PIL import Image
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.base.files import replacing, writable_folder, write_json
from sact_det.base.text_files import read_json
from sact_det.pictures.canvas import Limits
from sact_det.pictures.panels import ContactSheet, draw_panel, resize_nearest, sorted_name
from sact_det.pictures.ponder_file import PonderFile
from sact_det.pictures.scales import SharedLimits
from sact_det.rule.ponder import PonderRecord

_NUMBERS = "ponder.json"
_OWN_NAME = re.compile(r"(\d+\.\d\d_[^/\0]+|sheet(_\d+)?)\.png")
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

    def ponder_map(self) -> np.ndarray:
        """float32 [H, W], as `PonderRecord.map`."""
        height, width = self.image.shape[:2]
        return np.sum([resize_nearest(cost, (height, width)) for cost in self.block_costs.values()], axis=0)


class PonderedImages(Protocol):
    """Images that can be gone through more than once."""

    def __iter__(self) -> Iterator[PonderedImage]:
        """From the first."""

    def __len__(self) -> int: ...


def block_costs(record: PonderRecord) -> dict[str, np.ndarray]:
    """What `PonderedImage` keeps of a record with N = 1."""
    return {name: block.ponder_cost[0].numpy() for name, block in record.blocks.items()}


class StoredImages(PonderedImages):
    """The images of a ponder file (sact_det/pictures/ponder_file.py), read one by one.

    Raises InputError for a plain network, and for images that are larger than what can be drawn.
    """

    def __init__(self, file: PonderFile):
        file.check_adaptive()
        if max(file.size) > MAX_SIDE:
            raise InputError(f"{file.path}: sides of more than {MAX_SIDE} pixels cannot be drawn; got {file.size}")
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


class WithoutPhotographs(PonderedImages):
    """Images in whose place white is shown; their maps stay."""

    def __init__(self, images: PonderedImages):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[PonderedImage]:
        for item in self._images:
            yield replace(item, image=without_photograph(item.image))


class PictureFolder:
    """The folder of pictures, sheets and ponder.json; made if missing.

    Pictures that an earlier ponder.json in the folder lists, of another model say, give way to the new ones: those that
    have no successor are removed when the new ponder.json is written, and nothing else is.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Union[str, Path]):
        self._path = writable_folder(path)
        self._pictures: list[str] = []
        self._sheets: list[str] = []

    def save(self, stem: str, mean_cost: float, pixels: np.ndarray) -> str:
        """Saves a picture, uint8 RGB, as <mean ponder cost>_<stem>.png; returns this name."""
        name = f"{sorted_name(mean_cost, stem)}.png"
        self._save(name, pixels)
        self._pictures.append(name)
        return name

    def save_sheet(self, sheet: ContactSheet) -> None:
        """Saves a contact sheet as sheet.png, or as sheet_1.png, ... if it has many pages."""
        pages = sheet.number_of_pages
        for number, page in enumerate(sheet.pages(), 1):
            name = "sheet.png" if pages == 1 else f"sheet_{number:0{len(str(pages))}}.png"
            self._save(name, page)
            self._sheets.append(name)

    def save_numbers(self, **content: Any) -> None:
        """Writes ponder.json; `sheets` in it lists the contact sheets. Removes the pictures of the one before."""
        for name in self._earlier() - {*self._pictures, *self._sheets}:
            with contextlib.suppress(OSError):
                (self._path / name).unlink()
        write_json(self._path / _NUMBERS, {**content, "sheets": self._sheets})

    def _earlier(self) -> set[str]:
        """What ponder.json says that there is, as far as the names are such as are given here."""
        try:
            content = read_json(self._path / _NUMBERS)
            listed = [*(row["picture"] for row in content["images"]), *content.get("sheets", [])]
        except (InputError, AttributeError, KeyError, TypeError):  # there is none, or it is something else
            return set()
        return {name for name in listed if isinstance(name, str) and _OWN_NAME.fullmatch(name)}

    def _save(self, name: str, pixels: np.ndarray) -> None:
        with replacing(self._path / name) as temporary:
            Image.fromarray(pixels).save(temporary)


def draw_on_one_scale(
    images: PonderedImages,
    stems: Sequence[str],
    folder: PictureFolder,
    *,
    per_block: bool = False,
    overlay: bool = False,
    sheet: Optional[ContactSheet] = None,
) -> tuple[Limits, list[dict[str, Any]]]:
    """Draws every image beside its ponder map, all maps between the 0.1 and 99.9 percentiles of the set.

    The images are gone through twice: for the scale, and to draw.

    Args:
        images: at least one.
        stems: names of the pictures, without suffix and cost.
        folder: where they go.
        per_block: adds a row with the map of every block, each on its own scale.
        overlay: adds the ponder map blended on the image.
        sheet: takes every image.

    Returns:
        The scale, and a row for every picture: file, picture, and the image's own numbers.
    """
    scale = SharedLimits()
    for item in tqdm(images, desc="ponder costs", unit="image", disable=None):  # silent where stderr is no terminal
        scale.add(item.ponder_map())
    limits = scale.limits()
    rows = []
    for item, stem in zip(tqdm(images, desc="pictures", unit="image", disable=None), stems):
        ponder_map, cost = item.ponder_map(), item.numbers["mean_ponder_cost"]
        picture = draw_panel(
            item.image,
            ponder_map,
            image_title=item.title,
            mean_cost=cost,
            limits=limits,
            block_maps=titled(item.block_costs) if per_block else None,
            overlay=item.image if overlay else None,
        )
        rows.append({"file": item.name, "picture": folder.save(stem, cost, picture), **item.numbers})
        if sheet is not None:
            sheet.add(Path(item.name).name, item.image, ponder_map, cost)
    return limits, rows


def titled(costs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The maps of blocks under the titles that a picture gives them."""
    return {f"{name}, mean {float(cost.mean()):.2f}": cost for name, cost in costs.items()}
