"""Clips made from a photograph: a window that wanders over it."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np

RATE = Fraction(30000, 1001)
TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}  # clockwise -> a, b, c, d


def photograph() -> np.ndarray:
    """uint8 RGB [512, 512, 3]."""
    from skimage.data import astronaut

    return astronaut()


def frames(count: int, size: tuple[int, int] = (96, 128)) -> list[np.ndarray]:
    """Windows of (height, width), uint8 RGB, each a little further to the right and down."""
    wide = photograph()
    return [wide[2 * number :, 3 * number :][: size[0], : size[1]].copy() for number in range(count)]


def write_clip(path: Path, count: int, size: tuple[int, int] = (96, 128), clockwise: int = 0) -> Path:
    """An mp4 whose metadata ask players to turn it by so many degrees."""
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options={"crf": "10"})
        stream.height, stream.width = size
        for pixels in frames(count, size):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))
    content = path.read_bytes()
    # ISO/IEC 14496-12, 8.3.2: the matrix of a track's header, a b 0 c d 0 0 0 1 in fixed point, x' = a x + c y.
    unturned, turned = (
        struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        for a, b, c, d in (TURNS[0], TURNS[clockwise])
    )
    at = content.index(unturned, content.index(b"tkhd"))
    path.write_bytes(content[:at] + turned + content[at + len(turned) :])
    return path
