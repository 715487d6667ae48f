"""A video under a trained network: what it finds, frame by frame, beside where it computes."""

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Optional

import numpy as np
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.base.files import check_output
from sact_det.base.stopping import stops_when_asked
from sact_det.pictures.colors import blend, colorize
from sact_det.pictures.frames import FramePage, fitted, shown_size
from sact_det.pictures.image_sets import block_costs, check_drawable, without_photograph
from sact_det.pictures.panels import display_scale
from sact_det.pictures.scales import SharedLimits
from sact_det.pictures.style import ON_SCREEN, Limits, Style
from sact_det.pictures.video import Camera, FrameSource, VideoFile, VideoWriter
from sact_det.viewer.look import Look, Viewer

_SAMPLE = 8  # frames that the colour scale of all of them is made of
_LONGEST = "9999 GFLOPs, 100.0% of the plain network's, in 99999 ms"

logger = logging.getLogger(__name__)


def check_clip(output: str, video: Optional[str]) -> None:
    """Raises InputError or OSError if a clip cannot be written, before any work: its name, its folder, its source."""
    path = Path(output)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{output}: the output of a video must be called something.mp4")
    if not path.parent.is_dir():
        raise InputError(f"{output}: there is no folder {path.parent}")
    check_output(path)
    if video is not None and path.exists() and Path(video).exists() and path.samefile(video):
        raise InputError(f"{output}: would replace the video that it is made of")


def open_frames(video: Optional[str], camera: Optional[int]) -> FrameSource:
    """The frames of a file, or else of a camera. Raises InputError if they cannot be had."""
    if video is not None:
        return VideoFile(video)
    assert camera is not None
    return Camera(camera)


def colour_scale(viewer: Viewer, source: FrameSource) -> Limits:
    """One scale for all maps of a video: the percentiles of a few frames, spread over it where it has an end."""
    total = min(_SAMPLE, source.total or _SAMPLE)
    scale = SharedLimits()
    for pixels in tqdm(source.sample(total), desc="colour scale", total=total, unit="frame", disable=None):
        check_drawable(source.name, pixels.shape[:2])
        look = viewer(pixels)
        scale.add(look.ponder_map(look.image.shape[:2]))
    return scale.limits()


def draw_clip(
    viewer: Viewer,
    source: FrameSource,
    output: str,
    score: float,
    *,
    style: Style = ON_SCREEN,
    overlay: bool = False,
    photographs: bool = True,
) -> int:
    """Writes a film of what a network makes of every frame, at the times of the frames.

    SIGINT and SIGTERM end it behind a frame, with a line that says how far it came; the signal's number is returned.
    Whatever ends it, the file can be played as far as it came.

    Args:
        viewer: the network.
        source: of the frames.
        output: something.mp4, which `check_clip` has looked at.
        score: the least of what is drawn.
        style: of the maps; without limits they are those of `colour_scale`.
        overlay: adds the map blended on the frame, between the two.
        photographs: whether frames are shown, or white in their place.

    Returns:
        128 + the number of the signal that ended it; 0: it came to the end.

    Raises:
        InputError: a frame cannot be read; what was written before is there.
        OSError: the output cannot be written.
    """
    limits = style.limits or colour_scale(viewer, source)
    style = replace(style, limits=limits)
    page, number, seconds = None, 0, 0.0
    progress = tqdm(source, total=source.total, unit="frame", disable=None)  # silent where stderr is no terminal
    with stops_when_asked() as asked, VideoWriter(output, source.rate) as writer, progress:
        for frame in progress:
            look = viewer(frame.pixels)
            if page is None:
                page = FramePage(shown_size(look.image.shape[:2]), 3 if overlay else 2, limits, _LONGEST, style)
            writer.add(_draw(page, look, score, style, overlay, photographs), frame.time)
            number, seconds = number + 1, float(frame.time)
            progress.set_postfix_str(f"FLOPs {look.flops_percent:.0f}%", refresh=False)
            if asked.signal:
                break
    if not asked.signal:
        logger.info("%d frames, %.2f s, are in %s", number, seconds, output)
        return 0
    of_all = f" of {source.total}" if source.total else ""
    sys.stderr.write(f"stopped behind frame {number}{of_all}, at {seconds:.2f} s: {output} plays to there\n")
    return 128 + asked.signal


def _draw(page: FramePage, look: Look, score: float, style: Style, overlay: bool, photographs: bool) -> np.ndarray:
    ponder_map = style.spread(block_costs(look.ponder).values(), page.size)
    image = look.image if photographs else without_photograph(look.image)
    pictures = [
        look.draw(score, display_scale(*image.shape[:2]), image),
        colorize(ponder_map, style.limits, style.colormap),
    ]
    titles = [look.title(score), f"ponder map, mean {float(look.ponder.mean_cost()):.2f}"]
    if overlay:
        pictures.insert(1, blend(fitted(image, page.size), ponder_map, style.limits, colormap=style.colormap))
        titles.insert(1, "ponder map on the image")
    return page.draw(pictures, titles, look.price())
