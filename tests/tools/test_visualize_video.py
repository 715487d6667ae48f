"""Films of what a network finds in every frame of a video, beside its ponder map."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_lines import error_line, load_tool
from photograph_clips import RATE, write_clip
from random_detector import write_random_detector
from random_weights import write_random_weights

from sact_det.detection.drawing import draw_detections
from sact_det.detection.predictor import Predictor
from sact_det.pictures.colors import colorize
from sact_det.pictures.video import VideoFile
from sact_det.tasks import load_config

pytest.importorskip("av", reason="PyAV (the extra video) is not installed")

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/tests/tiny.yaml")
TINY_CLASSIFIER = str(ROOT / "configs/tests/tiny_classifier.yaml")
COUNT = 10

tool = load_tool("visualize")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return ["MODEL.WEIGHTS", write_random_detector(tmp_path_factory.mktemp("weights") / "model.pth", TINY)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", COUNT)


def arguments(clip, output, *more):
    return ["--config-file", TINY, "--video", str(clip), "--output", str(output), *map(str, more)]


def film(argv):
    """Runs the tool; returns its exit code."""
    with pytest.raises(SystemExit) as end:
        tool.main(argv)
    return end.value.code


def stops_at(monkeypatch, number, signal_number):
    """The process is sent a signal when it has seen so many frames of a film."""
    open_frames = tool.open_frames

    def opened(*source):
        video = open_frames(*source)
        read = VideoFile.__iter__

        def seen(self):
            for index, frame in enumerate(read(self), 1):
                if index == number:
                    os.kill(os.getpid(), signal_number)
                yield frame

        monkeypatch.setattr(VideoFile, "__iter__", seen)
        return video

    monkeypatch.setattr(tool, "open_frames", opened)


def place_of(page, pixels):
    """Where a picture is on a page that was compressed: (x, y), and how much the two differ there."""
    found = cv2.matchTemplate(page, np.ascontiguousarray(pixels), cv2.TM_SQDIFF)
    _, _, (x, y), _ = cv2.minMaxLoc(found)
    height, width = pixels.shape[:2]
    return (x, y), np.abs(page[y : y + height, x : x + width].astype(int) - pixels).mean()


def test_every_frame_has_its_detections_and_its_map_on_one_scale(clip, weights, tmp_path):
    assert film(arguments(clip, tmp_path / "film.mp4", "--confidence-threshold", 0.2, *weights)) == 0
    made = list(VideoFile(tmp_path / "film.mp4"))
    assert [frame.time for frame in made] == [number / RATE for number in range(COUNT)]
    predictor = Predictor(load_config(TINY, [*weights, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.2"]))
    seen = [frame.pixels for frame in VideoFile(clip)]
    predictions = [predictor(np.ascontiguousarray(pixels[:, :, ::-1])) for pixels in seen]
    sampled = np.linspace(0, COUNT - 1, 8).round().astype(int)
    maps = np.stack([predictions[number].ponder.map((96, 128))[0].numpy() for number in sampled])
    limits = tuple(np.percentile(maps, [0.1, 99.9]))
    assert sum(len(prediction.instances) for prediction in predictions) > 0
    for number in (0, COUNT - 1):
        found = draw_detections(seen[number], predictions[number].instances, scale=4)
        ponder_map = colorize(predictions[number].ponder.map((384, 512))[0].numpy(), limits)
        (found_x, found_y), found_difference = place_of(made[number].pixels, found)
        (map_x, map_y), map_difference = place_of(made[number].pixels, ponder_map)
        assert found_difference < 10 and map_difference < 10
        assert found_y == map_y and found_x + 512 <= map_x


def test_limits_and_colours_can_be_given(clip, weights, tmp_path):
    options = ["--limits", 4, 9, "--colormap", "magma", "--no-photographs", "--overlay", "--confidence-threshold", 1]
    assert film(arguments(clip, tmp_path / "film.mp4", *options, *weights)) == 0
    made, seen = next(iter(VideoFile(tmp_path / "film.mp4"))).pixels, next(iter(VideoFile(clip))).pixels
    prediction = Predictor(load_config(TINY, weights))(np.ascontiguousarray(seen[:, :, ::-1]))
    ponder_map = prediction.ponder.map((384, 512))[0].numpy()
    assert place_of(made, colorize(ponder_map, (4, 9), "magma"))[1] < 10
    assert place_of(made, colorize(ponder_map, (4, 9)))[1] > 20


def test_a_film_is_upright(weights, tmp_path):
    path = write_clip(tmp_path / "turned.mp4", 2, clockwise=90)
    assert film(arguments(path, tmp_path / "film.mp4", "--no-photographs", *weights)) == 0
    upright, turned = (VideoFile(tmp_path / name) for name in ("film.mp4", "turned.mp4"))
    assert next(iter(turned)).pixels.shape == (128, 96, 3)
    height, width = next(iter(upright)).pixels.shape[:2]
    assert height > 512 and 2 * 384 < width < 2 * 512  # two pictures of 512 x 384


def test_a_classifier_gives_a_film_with_the_map_on_the_frames_too(clip, tmp_path):
    write_random_weights(tmp_path / "model.pth", load_config(TINY_CLASSIFIER))
    more = ["--overlay", "--image-size", 64, "MODEL.WEIGHTS", tmp_path / "model.pth"]
    argv = arguments(clip, tmp_path / "film.mp4", *more)
    assert film(["--config-file", TINY_CLASSIFIER, *argv[2:]]) == 0
    made = list(VideoFile(tmp_path / "film.mp4"))
    assert len(made) == COUNT and made[0].pixels.shape[1] > 3 * 448  # 64 x 7


def test_a_killed_run_leaves_a_film_that_plays_as_far_as_it_came(weights, tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 120)
    output = tmp_path / "film.mp4"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tools/visualize.py"), *arguments(path, output, *weights)]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (output.exists() and output.stat().st_size > 30_000):
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    made = list(VideoFile(output))
    assert 1 <= len(made) < 120
    assert [frame.time for frame in made] == [number / RATE for number in range(len(made))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_film_that_is_asked_to_end_is_finished_and_says_how_far_it_came(
    capsys, monkeypatch, clip, weights, tmp_path, number
):
    stops_at(monkeypatch, 4, number)
    output, before = tmp_path / "film.mp4", signal.getsignal(number)
    assert film(arguments(clip, output, *weights)) == 128 + number
    assert capsys.readouterr().err == f"stopped behind frame 4 of {COUNT}, at 0.10 s: {output} plays to there\n"
    monkeypatch.undo()
    assert len(list(VideoFile(output))) == 4
    assert signal.getsignal(number) == before


def test_a_camera_films_until_it_is_asked_to_end(capsys, monkeypatch, clip, weights, tmp_path):
    opened = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: opened(str(clip)))
    argv = arguments(clip, tmp_path / "film.mp4", *weights)
    assert film([*argv[:2], "--camera", "0", *argv[4:]]) == 0
    assert len(list(VideoFile(tmp_path / "film.mp4"))) == 1  # of ten: a trial, eight for the scale, the film


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--output", "film.avi"], "film.avi: the output of a video must be called something.mp4"),
        (["--output", "nowhere/film.mp4"], "nowhere/film.mp4: there is no folder nowhere"),
        (["--video", "nowhere.mp4"], "nowhere.mp4: no such video"),
        (["--video", __file__], "cannot be read as a video"),
        (["--camera", "0"], "give --config-file and one of --video and --camera"),
        (["--format", "pdf"], "--format pdf does not go with --video"),
        (["--dpi", "200"], "--dpi does not go with --video"),
        (["--colormap", "viridi"], "--colormap: matplotlib has none called 'viridi'"),
        (["--per-block"], "--per-block does not go with --video"),
        (["--input", "photos"], "--input does not go with --video"),
        (["--confidence-threshold", "2"], "--confidence-threshold must be from 0 to 1; got 2.0"),
        (["--image-size", "64"], "--image-size does not go with a detector"),
    ],
)
def test_bad_input_is_one_error_line(capsys, monkeypatch, clip, weights, tmp_path, more, says):
    monkeypatch.chdir(tmp_path)
    assert says in error_line(capsys, tool.main, arguments(clip, "film.mp4", *more, *weights))
    assert not list(tmp_path.iterdir())


def test_a_camera_that_is_not_there_is_one_error_line(capsys, clip, weights, tmp_path):
    argv = arguments(clip, tmp_path / "film.mp4", *weights)
    assert "--camera 77: there is no such camera" in error_line(
        capsys, tool.main, [*argv[:2], "--camera", "77", *argv[4:]]
    )


def test_a_film_does_not_replace_the_video_that_it_is_made_of(capsys, weights, tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 2)
    before = path.read_bytes()
    (tmp_path / "link.mp4").symlink_to(path)
    assert "would replace the video" in error_line(capsys, tool.main, arguments(path, tmp_path / "link.mp4", *weights))
    assert path.read_bytes() == before


def test_a_damaged_video_leaves_the_film_up_to_the_damage(capsys, weights, tmp_path):
    import av

    path = write_clip(tmp_path / "clip.mp4", 8)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    for position, size in places[5:]:
        content[position : position + size] = b"\xff" * size
    path.write_bytes(content)
    assert "cannot be decoded behind frame" in error_line(
        capsys, tool.main, arguments(path, tmp_path / "film.mp4", *weights)
    )
    assert 1 <= len(list(VideoFile(tmp_path / "film.mp4"))) <= 7
