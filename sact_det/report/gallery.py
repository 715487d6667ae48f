"""A gallery: images with what networks made of them, packed one by one, so that hundreds fit into memory and page.

Shape shorthand in this module:
    H, W: size of an image in pixels; h, w: size of a map.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence, Union

import cv2
import matplotlib
import numpy as np

from sact_det.base.errors import InputError, naming, shown
from sact_det.base.files import write_json
from sact_det.base.text_files import read_json
from sact_det.pictures.canvas import colorbar_ticks
from sact_det.pictures.scales import SharedLimits
from sact_det.pictures.style import COLORMAP
from sact_det.report.packing import pack_maps, pack_photograph
from sact_det.report.shapes import Shape, pack_shapes

_PHOTOGRAPH = 0.4  # of what an image may take
_SHAPES = 0.25
_MOST_CHARACTERS = 600_000  # of an image, however few there are
_BAR = 240  # pixels of the colour bar


class Box(NamedTuple):
    """In pixels of the image, with the number of its class; a box that was annotated has no score."""

    x: float
    y: float
    width: float
    height: float
    label: int
    score: float = 1.0


class Number(NamedTuple):
    """A number of every image, to sort by: its name, digits after the point, and its unit."""

    name: str
    digits: int = 2
    unit: str = ""


class View(NamedTuple):
    """What may be looked at: a network, as it was trained (None) or at a budget, its share of the plain FLOPs."""

    network: str
    budget: Optional[float] = None


class Layer(NamedTuple):
    """What lies over the image: the sum of some of its maps, by the numbers they have in `Seen.maps`."""

    name: str
    maps: Sequence[int]
    unit: str = "units"


@dataclass(frozen=True)
class Seen:
    """What a view makes of an image.

    Attributes:
        maps: float [h, w] each, 0 or above, of any sizes; none of a network that spends the same everywhere.
        numbers: one for every `Number` of the gallery; None where there is none.
        boxes: what was found.
        caption: under the image.
        shapes: masks and keypoints, one for every box, or none.
    """

    maps: Sequence[np.ndarray]
    numbers: Sequence[Optional[float]]
    boxes: Sequence[Box] = ()
    caption: str = ""
    shapes: Sequence[Shape] = ()


@dataclass(frozen=True)
class PackedGallery:
    """A gallery as the page draws it, and as a file keeps it (`write`, `read`).

    Attributes:
        title, note: above it; without a title the section's stands for it.
        what: a class is called, for the filter.
        about: what the page's program is told of all images: views, layers, numbers, classes, items.
        payloads: the photograph, maps and boxes of each image.
    """

    title: str
    note: str
    what: str
    about: dict[str, Any]
    payloads: Sequence[dict[str, Any]]
    kind = "gallery"

    def write(self, path: Union[str, Path]) -> None:
        """Writes a JSON file. Raises OSError if it cannot be written."""
        write_json(path, {key: getattr(self, key) for key in _PARTS})

    @classmethod
    def read(cls, path: Union[str, Path]) -> "PackedGallery":
        """Reads a file. Raises InputError, naming it, if it is missing or none of a gallery."""
        content = read_json(path)
        if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in _PARTS.items()):
            raise InputError(f"{path}: no file of a gallery; expected an object with {', '.join(_PARTS)}")
        with naming(f"{path}: not a gallery as tools/evaluate_saliency.py writes it"):
            about, payloads = content["about"], content["payloads"]
            for key in ("views", "layers", "numbers", "classes", "items"):
                if not isinstance(about[key], list):
                    raise InputError(f"{path}: {key} must be a list; got {shown(repr(about[key]))}")
            for each, key in (("views", "network"), ("layers", "name"), ("numbers", "name")):
                [one[key] for one in about[each]]  # what the page's template reads
            if len([payload["truth"] for payload in payloads]) != len(about["items"]) or "scored" not in about:
                raise InputError(f"{path}: there must be a payload for every one of the items")
        return cls(**{key: content[key] for key in _PARTS})

    @property
    def networks(self) -> list[str]:
        """The names of the views' networks."""
        return list(dict.fromkeys(view["network"] for view in self.about["views"]))

    @property
    def has_budgets(self) -> bool:
        """Whether a network is seen at budgets."""
        return len(self.about["views"]) > len(self.networks)

    @property
    def has_shapes(self) -> bool:
        """Whether masks or keypoints were found."""
        return any(any(view.get("shapes", ())) for payload in self.payloads for view in payload["views"])

    @property
    def has_truth(self) -> bool:
        """Whether boxes were annotated."""
        return any(payload["truth"] for payload in self.payloads)


_PARTS = {"title": str, "note": str, "what": str, "about": dict, "payloads": list}


@dataclass
class Gallery:
    """Images under views; `add` packs one, `packed` is all of them.

    Attributes:
        views: networks; those of one name are budgets of it.
        layers: of the overlay.
        numbers: the first is what images are sorted by, highest first.
        classes: names, in the order of their numbers.
        expected: how many images there will be.
        scored: whether the boxes have scores.
        skeleton: pairs of numbers of keypoints that a line connects.
        characters: that all of them may take.
    """

    views: Sequence[View]
    layers: Sequence[Layer]
    numbers: Sequence[Number]
    classes: Sequence[str]
    expected: int
    scored: bool = True
    skeleton: Sequence[tuple[int, int]] = ()
    characters: float = 23e6

    def __post_init__(self) -> None:
        self._scales = [SharedLimits() for _ in self.layers]
        self._items: list[dict[str, Any]] = []
        self._payloads: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        image: np.ndarray,
        seen: Sequence[Seen],
        truth: Sequence[Box] = (),
        labels: Sequence[int] = (),
    ) -> None:
        """Takes an image.

        Args:
            name: of it.
            image: uint8 RGB [H, W, 3].
            seen: by every view.
            truth: boxes that were annotated.
            labels: its classes, where there are no boxes to tell them.
        """
        room = min(self.characters / max(self.expected, 1), _MOST_CHARACTERS)
        picture = pack_photograph(image, _PHOTOGRAPH * room)
        shapes = [pack_shapes(own.shapes, _SHAPES * room / len(seen)) for own in seen]
        room -= len(picture) + len(json.dumps(shapes))
        maps = [one for own in seen for one in own.maps]
        packed = iter(pack_maps(maps, room) if maps else ())
        found = [self._best(own.boxes) for own in seen]
        self._items.append(
            {
                "name": name,
                "size": [image.shape[1], image.shape[0]],
                "numbers": [own.numbers for own in seen],
                "captions": [own.caption for own in seen],
                "found": found,
                "labels": sorted({*labels, *(box.label for box in truth)}),
            }
        )
        self._payloads.append(
            {
                "picture": picture,
                "views": [
                    {
                        "maps": [next(packed) for _ in own.maps],
                        "boxes": [_rounded(box) for box in own.boxes],
                        **({"shapes": found} if found else {}),
                    }
                    for own, found in zip(seen, shapes)
                ],
                "truth": [_rounded(box) for box in truth],
            }
        )
        for layer, scale in zip(self.layers, self._scales):
            for own in (own for own in seen if own.maps):
                chosen = [own.maps[number] for number in layer.maps]
                size = max((one.shape[::-1] for one in chosen), key=lambda size: size[0] * size[1])
                fine = (cv2.resize(one, size, interpolation=cv2.INTER_NEAREST_EXACT) for one in chosen)
                scale.add(np.sum(list(fine), axis=0))

    @staticmethod
    def _best(boxes: Sequence[Box]) -> list[tuple[int, float]]:
        """The best score of every class that was found."""
        best: dict[int, float] = {}
        for box in boxes:
            best[box.label] = max(best.get(box.label, 0.0), round(box.score, 3))
        return sorted(best.items())

    def packed(self, title: str = "", note: str = "", what: str = "class") -> PackedGallery:
        """What was added. Arguments: PackedGallery's."""
        mapped = any(view["maps"] for payload in self._payloads for view in payload["views"])
        layers = []
        for layer, scale in zip(self.layers, self._scales) if mapped else ():
            limits = scale.limits()
            ticks, labels = colorbar_ticks(limits, _BAR, 12)
            known = {"limits": limits, "ticks": list(zip(ticks, labels))}
            layers.append({"name": layer.name, "maps": list(layer.maps), "unit": layer.unit, **known})
        about = {
            "views": [view._asdict() for view in self.views],
            "layers": layers,
            "numbers": [number._asdict() for number in self.numbers],
            "classes": list(self.classes),
            "scored": self.scored,
            "skeleton": [list(pair) for pair in self.skeleton],
            "items": self._items,
        }
        return PackedGallery(title, note, what, about, self._payloads)


def colours() -> list[str]:
    """The 256 colours of the scale, as hexadecimal digits."""
    return [bytes(colour[:3]).hex() for colour in matplotlib.colormaps[COLORMAP](np.arange(256), bytes=True)]


def _rounded(box: Box) -> list[float]:
    return [*(round(float(value), 1) for value in box[:4]), box.label, round(float(box.score), 3)]
