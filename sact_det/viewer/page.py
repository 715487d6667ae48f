"""A page on which a trained network looks at pictures: drop one, move sliders, see where it computes and what it costs.

It is built of gradio, the extra `live`; server.py serves it.
"""

import base64
import html
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional

import matplotlib
import numpy as np

from sact_det.base.errors import InputError, one_line
from sact_det.data.decoding import decode_rgb, decode_size
from sact_det.data.image_files import naming_image, read_checked
from sact_det.pictures.colors import colorize
from sact_det.pictures.frames import fitted, shown_size
from sact_det.pictures.panels import display_scale
from sact_det.pictures.style import COLORMAP, Limits
from sact_det.viewer.dial import Dial
from sact_det.viewer.look import DetectorLook, Look, Viewer

_MEGA = 1_000_000
_SCORE = 0.5  # where its slider starts
_FORGET = 600  # seconds after which a picture that was sent or drawn is removed


# gradio puts pictures into buttons without a name, which a screen reader would not say.
_NAMES = """() => {
  for (const [place, name] of [["found", "What the network finds"], ["ponder", "Ponder map"]]) {
    const field = document.getElementById(place);
    const say = () => field.querySelectorAll("button").forEach((button) => button.setAttribute("aria-label", name));
    new MutationObserver(say).observe(field, {childList: true, subtree: true});
    say();
  }
}"""


class Picture(NamedTuple):
    """A file that was sent: what its sender calls it, and its content."""

    name: str
    encoded: bytes


class Seen(NamedTuple):
    """A picture, its pixels, uint8 RGB [H, W, 3], and what the network makes of them."""

    picture: Picture
    pixels: np.ndarray
    look: Look


@dataclass(frozen=True)
class PageLimits:
    """What may be sent, and how large a picture may be: bytes and pixels."""

    bytes: int = 20 * _MEGA
    pixels: int = 50 * _MEGA


class Watched:
    """A network that several people turn and look through, one after the other.

    Args:
        viewer: the network.
        limits: of pictures.

    Attributes:
        dial: what turns it; None: it always spends the same.
    """

    def __init__(self, viewer: Viewer, limits: PageLimits):
        self._viewer, self._limits = viewer, limits
        self._lock = threading.Lock()
        self.dial = Dial.of(viewer.model)
        viewer(np.zeros((64, 64, 3), np.uint8))  # weights are packed before the first picture is timed

    @property
    def scale(self) -> Limits:
        """Of the colours of all maps."""
        return self._viewer.limits

    def decode(self, picture: Picture) -> np.ndarray:
        """uint8 RGB [H, W, 3], upright. Raises InputError, in one line, if it is no picture or too large a one."""
        if len(picture.encoded) > self._limits.bytes:
            raise InputError(f"{picture.name}: has more than {self._limits.bytes / _MEGA:g} MB")
        with naming_image(picture.name):
            height, width = decode_size(picture.encoded)  # from its head: a small file may unfold to gigabytes
            if height * width > self._limits.pixels:
                said = f"{width}x{height} pixels are more than {self._limits.pixels / _MEGA:g} millions"
                raise InputError(f"{picture.name}: {said}")
            return decode_rgb(picture.encoded)

    def look(self, pixels: np.ndarray, value: float) -> Look:
        """Runs the network, with its dial at `value`."""
        with self._lock:
            if self.dial is not None:
                self.dial.turn(value)
            return self._viewer(pixels)


def facts(look: Look, score: float) -> str:
    """What was found and spent, as HTML."""
    rows = {"of the plain network's FLOPs": f"{look.flops_percent:.1f}%", "GFLOPs": f"{look.flops / 1e9:.3g}"}
    if isinstance(look, DetectorLook):
        rows["of the plain extractor's"] = f"{look.extractor_percent:.1f}%"
    rows["units of a position"] = f"{float(look.ponder.mean_units()):.1f}"
    rows["milliseconds"] = f"{1000 * look.seconds:.0f}"
    items = "".join(f"<div><dd>{value}</dd><dt>{html.escape(name)}</dt></div>" for name, value in rows.items())
    return f"<dl class='facts'>{items}</dl><p class='found'>{html.escape(look.title(score))}</p>"


def fault(error: Exception) -> str:
    """What is wrong with a picture, as HTML."""
    return f"<p class='fault' role='alert'>{html.escape(one_line(error))}</p>"


def colour_bar(limits: Limits) -> str:
    """The colours of costs from limits[0] to limits[1], as HTML."""
    stops = ", ".join(matplotlib.colors.to_hex(matplotlib.colormaps[COLORMAP](step / 16)) for step in range(17))
    low, high = limits
    ticks = "".join(f"<span>{low + share * (high - low):.3g}</span>" for share in (0, 0.25, 0.5, 0.75, 1))
    bar = f"<div class='bar' style='background: linear-gradient(to right, {stops})'></div>"
    return f"{bar}<div class='ticks'>{ticks}</div><p class='unit'>ponder cost of a position: units + remainder</p>"


def drawn(look: Look, score: float) -> np.ndarray:
    """The picture with what was found, at the size at which it is shown."""
    return fitted(look.draw(score, display_scale(*look.image.shape[:2])), shown_size(look.image.shape[:2]))


def drawn_map(look: Look, limits: Limits) -> np.ndarray:
    """The ponder map, likewise."""
    return colorize(look.ponder_map(shown_size(look.image.shape[:2])), limits)


def import_gradio() -> Any:
    """The package, late. Raises InputError, naming the extra, if it is missing."""
    try:
        import gradio
    except ImportError as error:
        raise InputError('the page needs gradio: pip install "sact_det[live]"') from error
    return gradio


def _picture_field(gradio: Any, **kwargs: Any) -> Any:
    """gradio's field for an image, which hands over what was sent as a Picture, and fetches nothing itself."""
    field = gradio.Image(**kwargs)  # a subclass would have gradio write a file beside this one
    keep = field.async_move_resource_to_block_cache

    def picture_of(payload: Any) -> Optional[Picture]:
        if payload is None:
            return None
        if payload.path is None:  # a camera's pictures come in line
            return Picture("camera", base64.b64decode((payload.url or "").partition(",")[2]))
        return Picture(payload.orig_name or "picture", Path(payload.path).read_bytes())

    async def keep_own(place: Any) -> Optional[str]:
        if "://" in str(place):
            raise gradio.Error("pictures are not fetched from elsewhere")
        return await keep(place)

    field.preprocess, field.async_move_resource_to_block_cache = picture_of, keep_own
    return field


def build_page(watched: Watched, title: str, first: Optional[Path] = None) -> Any:
    """The page, as gradio's Blocks.

    Args:
        watched: the network.
        title: above all.
        first: a picture to begin with.

    Raises:
        InputError: gradio is missing, or `first` cannot be read.
    """
    gradio = import_gradio()
    if first is not None:
        read_checked(first)

    def look_at(picture: Picture, pixels: np.ndarray, value: float, score: float) -> tuple[Any, ...]:
        look = watched.look(pixels, value)
        return Seen(picture, pixels, look), drawn(look, score), drawn_map(look, watched.scale), facts(look, score)

    def see(picture: Optional[Picture], seen: Optional[Seen], value: float, score: float) -> tuple[Any, ...]:
        if picture is None:
            return None, None, None, ""
        if seen is not None and seen.picture == picture:  # browsers say twice that it is a new one
            return (gradio.skip(),) * 4
        try:
            return look_at(picture, watched.decode(picture), value, score)
        except (InputError, OSError) as error:
            return None, None, None, fault(error)

    def see_again(seen: Optional[Seen], value: float, score: float) -> tuple[Any, ...]:
        return (gradio.skip(),) * 4 if seen is None else look_at(seen.picture, seen.pixels, value, score)

    def redraw(seen: Optional[Seen], score: float) -> tuple[Any, ...]:
        return (gradio.skip(),) * 2 if seen is None else (drawn(seen.look, score), facts(seen.look, score))

    shown = {"interactive": False, "buttons": [], "show_label": False}
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(60, _FORGET), fill_width=True) as page:
        seen = gradio.State(None, time_to_live=_FORGET)
        gradio.HTML(f"<h1>{html.escape(title)}</h1>", elem_classes="title")
        with gradio.Row(elem_classes="columns"):
            with gradio.Column(scale=2, min_width=320):
                with gradio.Tab("Picture"):
                    picture = _picture_field(
                        gradio,
                        sources=["upload", "webcam", "clipboard"],
                        value=None if first is None else str(first),
                        label="Picture",
                        buttons=[],
                        height=300,
                    )
                with gradio.Tab("Live camera"):
                    camera = _picture_field(
                        gradio, sources=["webcam"], streaming=True, label="Camera", buttons=[], height=300
                    )
                value = _dial_slider(gradio, watched.dial)
                score = gradio.Slider(0, 1, _SCORE, step=0.01, label="Least score", elem_id="score")
            with gradio.Column(scale=5, min_width=320):
                said = gradio.HTML("", elem_id="facts")
                with gradio.Row():
                    with gradio.Column(min_width=280):
                        gradio.HTML("<h2>What it finds</h2>")
                        found = gradio.Image(label="What the network finds", format="jpeg", elem_id="found", **shown)
                    with gradio.Column(min_width=280):
                        gradio.HTML("<h2>Where it computes</h2>")
                        ponder = gradio.Image(label="Ponder map", format="png", elem_id="ponder", **shown)
                        gradio.HTML(colour_bar(watched.scale), elem_classes="scale")
        everything = [seen, found, ponder, said]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        picture.change(see, [picture, seen, value, score], everything, **quiet)
        page.load(None, js=_NAMES)
        page.load(see, [picture, seen, value, score], everything, **quiet)  # which is no change
        camera.stream(see, [camera, seen, value, score], everything, stream_every=0.2, **quiet)
        value.change(see_again, [seen, value, score], everything, trigger_mode="always_last", **quiet)
        score.change(redraw, [seen, score], [found, said], trigger_mode="always_last", **quiet)
    return page


def _dial_slider(gradio: Any, dial: Optional[Dial]) -> Any:
    if dial is None:
        return gradio.Slider(0, 1, 0, label="A plain network: nothing halts", interactive=False, elem_id="dial")
    if dial.is_budget:
        label, info = "Budget", "Share of the plain network's FLOPs that the network may take"
    else:
        label, info = "Shift of the halting scores", "0: as trained; to the right, positions halt earlier"
    return gradio.Slider(dial.low, dial.high, dial.start, step=0.01, label=label, info=info, elem_id="dial")
