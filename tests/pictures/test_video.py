"""Videos are read upright with their times, and written so that what has been written can be played."""

import subprocess
import sys
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
from photograph_clips import RATE, TURNS, frames, write_clip

from sact_det.base.errors import InputError
from sact_det.pictures.video import Camera, VideoFile, VideoWriter

av = pytest.importorskip("av", reason="PyAV (the extra video) is not installed")

COUNT = 25


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", COUNT)


def close_to(pixels, expected, most=6):
    return pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected).mean() < most


def boxes(path):
    """The kinds of the outermost boxes of an mp4."""
    content, at, kinds = path.read_bytes(), 0, []
    while at + 8 <= len(content):
        kinds.append(content[at + 4 : at + 8].decode())
        at += int.from_bytes(content[at : at + 4], "big")
    return kinds


def write(path, pictures, times=None):
    times = times or [number / RATE for number in range(len(pictures))]
    with VideoWriter(path, RATE) as writer:
        for pixels, time in zip(pictures, times):
            writer.add(pixels, time)


def test_a_file_has_its_frames_with_their_times(clip):
    video = VideoFile(clip)
    read = list(video)
    assert (video.total, video.rate) == (COUNT, RATE) and len(read) == COUNT
    assert [frame.time for frame in read] == [number / RATE for number in range(COUNT)]
    assert all(close_to(frame.pixels, expected) for frame, expected in zip(read, frames(COUNT)))


@pytest.mark.parametrize("clockwise", TURNS)
def test_frames_are_turned_as_the_file_says(tmp_path, clockwise):
    path = write_clip(tmp_path / "turned.mp4", 2, clockwise=clockwise)
    pixels = next(iter(VideoFile(path))).pixels
    assert close_to(pixels, np.rot90(frames(1)[0], -clockwise // 90))
    read, by_opencv = cv2.VideoCapture(str(path)).read()
    assert read and close_to(pixels, by_opencv[:, :, ::-1])


def test_a_written_film_is_an_ordinary_file_with_every_frame_at_its_time(tmp_path):
    times = [Fraction(time, 1000) for time in (0, 33, 100, 101, 250, 1250)]
    pictures = frames(len(times), (95, 127))  # odd sides
    write(tmp_path / "film.mp4", pictures, times)
    read = list(VideoFile(tmp_path / "film.mp4"))
    assert [frame.time for frame in read] == times
    assert all(close_to(frame.pixels[:95, :127], pixels) for frame, pixels in zip(read, pictures))
    assert "moov" in boxes(tmp_path / "film.mp4") and "moof" not in boxes(tmp_path / "film.mp4")


def test_the_film_of_an_error_is_finished(tmp_path):
    with pytest.raises(ZeroDivisionError), VideoWriter(tmp_path / "film.mp4", RATE) as writer:
        for number, pixels in enumerate(frames(7)):
            writer.add(pixels, number / RATE)
        raise ZeroDivisionError
    assert len(list(VideoFile(tmp_path / "film.mp4"))) == 7
    assert "moof" not in boxes(tmp_path / "film.mp4")


def test_the_film_of_a_killed_process_has_all_frames_but_the_last(tmp_path):
    path = tmp_path / "film.mp4"
    program = (
        "import os, sys, numpy as np; from fractions import Fraction; from sact_det.pictures.video import VideoWriter\n"
        "writer = VideoWriter(sys.argv[1], Fraction(25))\n"
        "for number in range(12): writer.add(np.full((64, 80, 3), 20 * number, np.uint8), Fraction(number, 25))\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)]).returncode == -9
    read = list(VideoFile(path))
    assert len(read) >= 11 and "moof" in boxes(path)
    assert [round(frame.pixels.mean() / 20) for frame in read] == list(range(len(read)))


def test_a_sample_is_spread_evenly(clip):
    pictures = frames(COUNT)
    sample = list(VideoFile(clip).sample(5))
    assert len(sample) == 5
    for pixels, number in zip(sample, (0, 6, 12, 18, 24)):
        assert close_to(pixels, pictures[number])
    assert len(list(VideoFile(clip).sample(100))) == COUNT


def test_pixels_that_are_not_square_become_so(tmp_path):
    with av.open(str(tmp_path / "wide.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.height, stream.width = 96, 128
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(frames(1)[0], format="rgb24")))
        file.mux(stream.encode(None))
    assert next(iter(VideoFile(tmp_path / "wide.mp4"))).pixels.shape == (96, 171, 3)


def bad_files(folder):
    (folder / "text.mp4").write_text("no video at all, but a text of some length")
    (folder / "empty.mp4").write_bytes(b"")
    cv2.imwrite(str(folder / "photo.png"), frames(1)[0])
    with av.open(str(folder / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        file.mux(stream.encode(sound))
        file.mux(stream.encode(None))
    with av.open(str(folder / "none.avi"), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        file.start_encoding()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.mp4", "no such video"),
        (".", "it is a folder"),
        ("text.mp4", "cannot be read as a video"),
        ("empty.mp4", "cannot be read as a video"),
        ("photo.png", "is a picture, which --input draws"),
        ("sound.mp4", "has no pictures"),
        ("none.avi", "has no frames"),
    ],
)
def test_what_is_no_video_is_one_line(tmp_path, name, says):
    bad_files(tmp_path)
    with pytest.raises(InputError) as error:
        VideoFile(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path)) and says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_video_says_behind_which_frame(tmp_path, clip):
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    position, size = places[-3]
    content[position : position + size] = b"\xff" * size
    (tmp_path / "damaged.mp4").write_bytes(content)
    read = []
    with pytest.raises(InputError, match=r"damaged\.mp4: cannot be decoded behind frame \d+: "):
        read.extend(VideoFile(tmp_path / "damaged.mp4"))


def test_a_full_disk_names_the_film(tmp_path, full_disk):
    path = tmp_path / "film.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (40, 96, 128, 3), dtype=np.uint8)
    with full_disk(100_000), pytest.raises(OSError) as error:
        write(path, noise)
    assert error.value.filename == str(path)
    assert len(list(VideoFile(path))) >= 2


def test_a_camera_gives_what_it_sees(monkeypatch, clip):
    opened = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: opened(str(clip)))
    camera = Camera(0)
    read = list(camera)
    assert camera.total is None and float(camera.rate) == pytest.approx(float(RATE))
    assert len(read) == COUNT - 1 and close_to(read[0].pixels, frames(2)[1])  # the first was a trial
    assert read[0].time == 0 and all(one.time < other.time for one, other in pairwise(read))


def test_a_camera_that_is_not_there_is_one_line(capfd):
    with pytest.raises(InputError, match="--camera 77: there is no such camera"):
        Camera(77)
    assert capfd.readouterr() == ("", "")
