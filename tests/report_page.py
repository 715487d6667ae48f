"""A page with a gallery whose every value is known, for tests that look at it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from sact_det.report.bars import BarChart
from sact_det.report.gallery import Box, Gallery, Layer, Number, PackedGallery, Seen, View
from sact_det.report.page import Page, Section, Table
from sact_det.report.plots import Plot, Series
from sact_det.report.shapes import Shape

CLASSES = ("cat", "dog", "bird")
VIEWS = (View("SACT"), View("SACT", 0.5), View("plain"))


def block_maps(number: int, budget: float | None, size: tuple[int, int] = (12, 16)) -> list[np.ndarray]:
    """Two maps of image `number`, the second of half the size; lower at a budget."""
    rng = np.random.default_rng([number, 0 if budget is None else 1])
    scale = 1.0 if budget is None else 0.4
    return [
        scale * (1 + 5 * rng.random(size)).astype(np.float32),
        scale * (1 + 3 * rng.random((size[0] // 2, size[1] // 2))).astype(np.float32),
    ]


def photograph(number: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 RGB [H, W, 3] that is neither flat nor noise."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.stack([rows % 256, columns % 256, (rows + columns + 40 * number) % 256], -1).astype(np.uint8)


def boxes(number: int) -> list[Box]:
    """Two boxes: one of a sure cat, one of class `number` % 3 whose score rises with the number."""
    return [Box(10, 20, 60, 50, 0, 0.95), Box(80, 30, 70, 60, number % 3, 0.1 + 0.1 * (number % 8))]


SKELETON = ((0, 1), (1, 2))


def shapes(number: int, size: tuple[int, int]) -> list[Shape]:
    """For the boxes of image `number`: a ring and three keypoints, one of them unsure; a rectangle."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = ((columns - 40) / 30) ** 2 + ((rows - 45) / 25) ** 2
    ring = (distance < 1) & (distance > 0.1)
    points = np.array([[20, 30, 0.9], [40, 45, 0.8], [60, 60, 0.01]], np.float32)
    return [Shape(ring, points), Shape((rows >= 30) & (rows < 90) & (columns >= 80) & (columns < 150))]


def make_gallery(
    images: int = 6,
    size: tuple[int, int] = (120, 160),
    cells: tuple[int, int] = (12, 16),
    expected: Optional[int] = None,
    shaped: bool = False,
    **about: Any,
) -> PackedGallery:
    """Image number n is called "photo n.jpg" and has ponder cost n + 1 as trained."""
    layers = [Layer("all blocks", (0, 1)), Layer("block1", (0,)), Layer("block2", (1,))]
    numbers = [Number("ponder cost"), Number("FLOPs", 1, "%")]
    gallery = Gallery(VIEWS, layers, numbers, CLASSES, expected or images, skeleton=SKELETON)
    for number in range(images):
        seen = [
            Seen(
                block_maps(number, None, cells),
                (number + 1, 60 + number),
                boxes(number),
                shapes=shapes(number, size) if shaped else (),
            ),
            Seen(block_maps(number, 0.5, cells), (0.4 * (number + 1), 50), boxes(number)[:1]),
            Seen((), (20, 100), boxes(number)),
        ]
        gallery.add(f"photo {number}.jpg", photograph(number, size), seen, [Box(12, 22, 58, 48, 0)])
    return gallery.packed(**about)


def repeated(gallery: PackedGallery, times: int) -> PackedGallery:
    """A gallery whose images come so many times."""
    about = {**gallery.about, "items": gallery.about["items"] * times}
    return replace(gallery, about=about, payloads=[*gallery.payloads] * times)


def make_page(path: Path, *galleries: PackedGallery) -> Path:
    """Writes a page with a table, a plot, bars and galleries."""
    plot = Plot(
        "AP against FLOPs", "%", "AP", [Series("SACT", [60, 80], [30, 33], dots=True), Series("plain", [100], [34], 1)]
    )
    bars = BarChart("By category", "AUC", ["Action", "Art"], {"centre": [0.7, 0.6], "SACT": [0.8, None]})
    table = Table("Evaluated", ["network", "AP"], [["SACT", "33.0"], ["plain", "34.0"]], "A note.")
    sections = [Section("Results", "On six photographs.", [table, plot, bars])]
    sections += [Section("Images", "", [gallery]) for gallery in galleries]
    Page("A report", sections, [("33.0", "AP of SACT")], ["Made by a test"]).write(path)
    return path
