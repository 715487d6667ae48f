"""How pictures are drawn, for screens and for papers: files, resolution, font, colours, and how maps are spread."""

import argparse
import difflib
import math
from dataclasses import dataclass
from typing import Any, Iterable, Optional

import cv2
import matplotlib
import numpy as np

from sact_det.base.errors import InputError

Limits = tuple[float, float]

COLORMAP = "viridis"
FORMATS = ("png", "pdf", "svg")
# Of matplotlib, for pdf and svg: fonts as TrueType, as journals ask for; the same names in every svg.
EMBEDDED: Any = {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "sact_det"}

_PER_INCH = 100  # pixels of a page
_POINTS = (4, 72)  # of a font
_DPI = (20, 1200)


@dataclass(frozen=True)
class Style:
    """How pictures are drawn.

    Attributes:
        format: of files: "png", "pdf" or "svg".
        dpi: dots per inch of a png, and of boxes drawn into a pdf or svg; a page has 100 pixels per inch, so that at
            100 a pixel of an image is a pixel of the picture. None: 100 of pages, and of a figure its own.
        font_size: of text, in points; None: what suits the size of the images.
        colormap: matplotlib's name for the colours of maps.
        limits: ponder costs of the darkest and the brightest colour of all maps but the blocks'; None: of each picture.
        smooth: whether maps are interpolated between the middles of their cells, or cells are drawn as they are.
    """

    format: str = "png"
    dpi: Optional[float] = None
    font_size: Optional[float] = None
    colormap: str = COLORMAP
    limits: Optional[Limits] = None
    smooth: bool = False

    @property
    def dots_per_inch(self) -> float:
        """Of pages."""
        return _PER_INCH if self.dpi is None else self.dpi

    @property
    def density(self) -> float:
        """Dots per pixel of a page."""
        return self.dots_per_inch / _PER_INCH

    @property
    def font_pixels(self) -> Optional[int]:
        """The font size in pixels of a page."""
        return None if self.font_size is None else max(1, round(self.font_size * _PER_INCH / 72))

    def enlarged(self, image: np.ndarray, scale: int = 1) -> np.ndarray:
        """An image, uint8 RGB [H, W, 3], `scale` times as large on the page, in all the dots that it has there."""
        factor = scale * self.density
        if factor == 1:
            return image
        size = (round(factor * image.shape[1]), round(factor * image.shape[0]))
        return cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_NEAREST_EXACT)

    def resize(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """[h, w] -> [H, W] for `size` = (H, W): cells by the original's nearest-neighbour rule, or smoothly."""
        if self.smooth:
            return cv2.resize(np.asarray(values, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        return resize_nearest(values, size)

    def spread(self, costs: Iterable[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """The sum of blocks' ponder costs, float32 [h, w] each, at every pixel of an image of `size`, float32 [H, W].

        As cells it is that of `PonderRecord.map`.
        """
        return np.stack([self.resize(cost, size) for cost in costs]).sum(0)


ON_SCREEN = Style()


def resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[h, w] -> [H, W] for `size` = (H, W), by the original's nearest-neighbour rule."""
    from sact_det.rule.ponder import legacy_nearest_index  # late: it imports torch, which saliency does without

    rows, columns = (legacy_nearest_index(n_in, n_out) for n_in, n_out in zip(values.shape, size))
    return np.asarray(values)[rows][:, columns]


def add_page_style(parser: argparse.ArgumentParser) -> None:
    """Adds --format, --dpi and --font-size, for `style_of`."""
    group = parser.add_argument_group("pictures for a paper")
    group.add_argument("--format", choices=FORMATS, default="png", help="of the pictures; default: png")
    group.add_argument(
        "--dpi",
        type=float,
        metavar="DPI",
        help="of a png (by default a pixel of an image is one of the picture), or of boxes in pdf and svg (300)",
    )
    group.add_argument("--font-size", type=float, metavar="POINTS", help="default: what suits the size of the images")


def add_map_style(parser: argparse.ArgumentParser, cells: bool = True) -> None:
    """Adds --colormap and --limits, and --smooth and --cells where maps are drawn from their cells, for `style_of`."""
    group = parser.add_argument_group("ponder maps")
    group.add_argument(
        "--colormap", default=COLORMAP, metavar="NAME", help=f"of matplotlib, such as magma; default: {COLORMAP}"
    )
    group.add_argument(
        "--limits",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="ponder costs of the darkest and the brightest colour, in all pictures; blocks' maps keep their own",
    )
    if not cells:
        return
    how = group.add_mutually_exclusive_group()
    how.add_argument("--smooth", action="store_true", help="interpolates maps between the middles of their cells")
    how.add_argument("--cells", action="store_true", help="draws the cells of maps as they are, the default")


def style_of(args: argparse.Namespace) -> Style:
    """The style of a command line. Raises InputError, naming the option, for a value that cannot be drawn with."""
    for option, value, allowed in (("--dpi", args.dpi, _DPI), ("--font-size", args.font_size, _POINTS)):
        if value is not None:
            _check_range(option, value, allowed)
    dpi = args.dpi if args.dpi is not None or args.format == "png" else 3 * _PER_INCH
    own = {"format": args.format, "dpi": dpi, "font_size": args.font_size}
    if "colormap" not in args:
        return Style(**own)
    if args.colormap not in matplotlib.colormaps:
        near = difflib.get_close_matches(args.colormap, list(matplotlib.colormaps), 3) or ["viridis", "magma", "gray"]
        raise InputError(f"--colormap: matplotlib has none called {args.colormap!r}; expected, say, {', '.join(near)}")
    if args.limits is not None and not -math.inf < args.limits[0] < args.limits[1] < math.inf:
        low, high = args.limits
        raise InputError(f"--limits must be LOW HIGH with LOW < HIGH, both finite; got {low:g} {high:g}")
    limits = None if args.limits is None else (args.limits[0], args.limits[1])
    return Style(**own, colormap=args.colormap, limits=limits, smooth=getattr(args, "smooth", False))


def _check_range(option: str, value: float, allowed: tuple[int, int]) -> None:
    low, high = allowed
    if not low <= value <= high:
        raise InputError(f"{option} must be from {low} to {high}; got {value:g}")
