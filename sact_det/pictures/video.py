"""Videos: read upright frame by frame, from files and cameras; written so that a killed run leaves what it has done.

PyAV (FFmpeg), the extra `video`, reads and writes files; OpenCV reads cameras.
"""

import contextlib
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Iterator, Optional, Protocol, Union

import cv2
import numpy as np

from sact_det.base.errors import InputError, naming
from sact_det.base.files import check_input

_TICKS = 90_000  # a second, as videos usually have it: it divides by 24, 25, 30 and 30000 / 1001
_ENCODERS = ("libx264", "libopenh264", "mpeg4")  # the first one that this FFmpeg has
_X264 = {"preset": "veryfast", "crf": "20", "tune": "zerolatency"}  # the last: no frame waits in the encoder
# The file can be played from its first frame on, and is an ordinary one when it has been finished.
_MP4 = {"movflags": "hybrid_fragmented+frag_every_frame", "flush_packets": "1"}
_CAMERA_RATE = 30.0  # frames a second, of a camera that does not say


@dataclass(frozen=True)
class Frame:
    """One picture of a video: uint8 RGB [H, W, 3], upright, and its time in seconds since the first."""

    pixels: np.ndarray
    time: Fraction


class FrameSource(Protocol):
    """Frames of one size.

    Attributes:
        name: for messages.
        rate: frames a second.
        total: how many frames there are; None: nobody knows.
    """

    name: str
    rate: Fraction
    total: Optional[int]

    def __iter__(self) -> Iterator[Frame]:
        """All frames. Raises InputError, naming the source, where one cannot be read."""

    def sample(self, count: int) -> Iterator[np.ndarray]:
        """At most so many frames, [H, W, 3], spread over the whole if it has an end."""


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise InputError('videos need PyAV: pip install "sact_det[video]"') from error
    av.logging.set_level(None)  # what FFmpeg has to say comes as exceptions
    return av


class VideoFile:
    """A video file, which can be gone through more than once. Attributes: as of FrameSource.

    Frames are turned as the file's metadata say, and have the size of the first; pixels that are not square become so.

    Raises:
        InputError: the file is missing, no video, a single picture, or has no frames.
    """

    def __init__(self, path: Union[str, Path]):
        self._av = _pyav()
        self.name = str(path)
        check_input(path, "video")
        with self._opened() as file:
            stream = file.streams.video[0]
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            self._aspect = Fraction(stream.sample_aspect_ratio or 1)
            self.total: Optional[int] = sum(packet.size > 0 for packet in file.demux(stream))
        if next(iter(self), None) is None:
            raise InputError(f"{path}: has no frames")

    def _opened(self) -> Any:
        with naming(f"{self.name}: cannot be read as a video"):
            file = self._av.open(self.name)
        if file.streams.video and not file.format.name.endswith("_pipe") and file.format.name != "image2":
            file.streams.video[0].thread_type = "AUTO"
            return file
        said = "is a picture, which --input draws" if file.streams.video else "has no pictures, but other streams"
        said = said if len(file.streams) else "has no frames"
        file.close()
        raise InputError(f"{self.name}: {said}; expected a video")

    def _decoded(self) -> Iterator[Any]:
        with self._opened() as file:
            frames, number = file.decode(file.streams.video[0]), 0
            while True:
                with naming(f"{self.name}: cannot be decoded behind frame {number}"):
                    frame = next(frames, None)
                if frame is None:
                    return
                yield frame
                number += 1

    def _square_size(self, frame: Any) -> tuple[int, int]:
        """(width, height) of a frame with square pixels, as it is stored: not turned yet."""
        return max(round(frame.width * self._aspect), 1), frame.height

    def __iter__(self) -> Iterator[Frame]:
        size, start, last = None, None, Fraction(-1, _TICKS)
        for number, frame in enumerate(self._decoded()):
            size = size or self._square_size(frame)
            stamp = number / self.rate if frame.pts is None else frame.pts * Fraction(frame.time_base)
            start = stamp if start is None else start
            last = max(stamp - start, last + Fraction(1, _TICKS))  # time does not stand still
            yield Frame(_pixels(frame, size), last)

    def sample(self, count: int) -> Iterator[np.ndarray]:
        """At most so many frames, evenly spread over the file, up to where it is damaged."""
        total, size = self.total or 1, None
        wanted = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
        with contextlib.suppress(InputError):  # whoever reads all frames is told
            for number, frame in enumerate(self._decoded()):
                size = size or self._square_size(frame)
                if number in wanted:
                    yield _pixels(frame, size)


def _pixels(frame: Any, size: tuple[int, int]) -> np.ndarray:
    pixels = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


class Camera:
    """A camera of this machine, by its number. Its frames end only where it is unplugged.

    Attributes are those of FrameSource.

    Raises:
        InputError: there is none, or it gives no picture.
    """

    total: Optional[int] = None

    def __init__(self, number: int):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong is said by us
        self.name = f"--camera {number}"
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise InputError(f"{self.name}: there is no such camera, or another program has it")
        if not self._capture.read()[0]:
            raise InputError(f"{self.name}: the camera gives no picture")
        self.rate = Fraction(self._capture.get(cv2.CAP_PROP_FPS) or _CAMERA_RATE).limit_denominator(1001)

    def __iter__(self) -> Iterator[Frame]:
        start = None
        while (read := self._capture.read())[0]:
            now = time.monotonic()
            start = now if start is None else start
            yield Frame(np.ascontiguousarray(read[1][:, :, ::-1]), Fraction(now - start))

    def sample(self, count: int) -> Iterator[np.ndarray]:
        """The next frames."""
        for _, frame in zip(range(count), self):
            yield frame.pixels


class VideoWriter:
    """An mp4 file, in the making: a context. What it was given can be played, even if this process is killed.

    Frames keep their times. Where it ends, with an error or without, the file is finished.

    Args:
        path: something.mp4; what was there is replaced.
        rate: frames a second, on average.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Union[str, Path], rate: Fraction):
        self._av = _pyav()
        self._path, self._rate = str(path), rate
        self._stream: Any = None
        self._last = -1
        self._file = self._av.open(self._path, "w", format="mp4", options=_MP4)

    def __enter__(self) -> "VideoWriter":
        return self

    def add(self, pixels: np.ndarray, seconds: Fraction) -> None:
        """Writes uint8 RGB [H, W, 3], of the size of the first; odd sides get a white line more.

        Args:
            seconds: when it is shown, later than the one before.
        """
        pixels = np.pad(pixels, [(0, side % 2) for side in pixels.shape[:2]] + [(0, 0)], constant_values=255)
        if self._stream is None:
            self._stream = self._make_stream(pixels.shape[0], pixels.shape[1])
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        self._last = max(round(seconds * _TICKS), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._file.mux(self._stream.encode(frame))

    def _make_stream(self, height: int, width: int) -> Any:
        encoder = next(name for name in _ENCODERS if name in self._av.codecs_available)
        stream = self._file.add_stream(encoder, rate=self._rate.limit_denominator(65535))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
        if encoder == "libx264":
            stream.codec_context.options = _X264
        else:
            stream.bit_rate = 4 * width * height
        return stream

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        try:
            if self._stream is not None:
                self._file.mux(self._stream.encode(None))
        finally:
            self._file.close()
