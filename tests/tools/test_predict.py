"""The command: folders and lists, processes of its own and of torchrun, one line for what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from coco_folder import TINY, read_json, write_coco_folder
from command_lines import ROOT, error_line, load_tool
from random_detector import write_random_detector

tool = load_tool("predict")
TOOL = str(ROOT / "tools/predict.py")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """40 images, so that there are two parts, and their data set's json outside of the folder."""
    folder = tmp_path_factory.mktemp("photos")
    Path(write_coco_folder(folder, num_images=40)[0]).rename(folder.parent / "instances.json")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> list[str]:
    return ["MODEL.WEIGHTS", write_random_detector(tmp_path_factory.mktemp("weights") / "model.pth", TINY)]


def arguments(inputs, output, *more) -> list[str]:
    return ["--config-file", TINY, "--input", str(inputs), "--output", str(output), *more]


def run(*words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, cwd=ROOT)


@pytest.fixture(scope="module")
def alone(photos, weights, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("alone") / "results.json"
    tool.main(arguments(photos, output, *weights))
    return output


@pytest.mark.parametrize(
    ("launcher", "more"),
    [
        (["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", TOOL], []),
        ([TOOL], ["--num-processes", "2"]),
    ],
    ids=["torchrun", "own"],
)
def test_two_processes_write_the_same_files_as_one(photos, weights, alone, tmp_path, launcher, more):
    done = run(*launcher, *arguments(photos, tmp_path / "results.json", *more, *weights))
    assert done.returncode == 0, done.stderr
    assert "Process 1 of 2: 32 images in " in done.stdout and "Process 2 of 2: 8 images in " in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in alone.parent.iterdir())
    for path in alone.parent.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_a_list_names_images_relative_to_itself(photos, weights, alone, tmp_path):
    listed = photos / "list.txt"
    listed.write_text("2.png\n\n1.png\n2.png\ngone.png\n")
    tool.main(arguments(listed, tmp_path / "results.json", *weights))
    summary = read_json(tmp_path / "results.summary.json")
    assert summary["unreadable"] == [str(photos / "gone.png")] and summary["summary"]["images"] == 2
    assert summary["category_ids"] == "contiguous, from 0" and "categories" not in summary
    assert {result["image_id"] for result in read_json(tmp_path / "results.json")} == {1, 2}


def test_ids_are_the_data_sets_where_its_json_is_at_hand(photos, weights, tmp_path):
    json_file = photos.parent / "instances.json"
    entry = str([("toy", str(json_file), str(photos))])
    named = ["DATASETS.COCO_FORMAT", entry, "DATASETS.TEST", "('toy',)"]
    tool.main(arguments(photos / "7.png", tmp_path / "of_data_set.json", *weights, *named))
    summary = read_json(tmp_path / "of_data_set.summary.json")
    assert (summary["category_ids"], summary["image_ids"]) == ("of toy", "of toy")
    assert {result["image_id"] for result in read_json(tmp_path / "of_data_set.json")} == {7}
    absent = [word.replace("instances.json", "gone.json") for word in named]
    tool.main(arguments(photos / "7.png", tmp_path / "contiguous.json", *weights, *absent))
    summary = read_json(tmp_path / "contiguous.summary.json")
    assert summary["category_ids"] == "contiguous, from 0"
    assert {result["image_id"] for result in read_json(tmp_path / "contiguous.json")} == {1}
    ids = [
        [result["category_id"] for result in read_json(tmp_path / f"{name}.json")]
        for name in ("of_data_set", "contiguous")
    ]
    assert ids[0] == [(1, 4, 9)[category] for category in ids[1]]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--num-processes", "0"], "--num-processes must be positive"),
        (["--budget", "2"], "--budget"),
        (["MODEL.WEIGHTS", ""], "MODEL.WEIGHTS is empty"),
        (["MODEL.WEIGHTS", "/nowhere.pth"], "/nowhere.pth"),
        (["--output", "results.txt"], "results.txt"),
        (["--input", "nowhere/"], "nowhere/: no such image or folder"),
        (["--input", "nowhere.txt"], "nowhere.txt: no such list of images"),
    ],
)
def test_bad_input_is_one_error_line(capsys, photos, weights, tmp_path, more, named):
    assert named in error_line(capsys, tool.main, arguments(photos, tmp_path / "results.json", *weights, *more))
    assert not list(tmp_path.iterdir())


def test_a_classifier_is_refused(capsys, photos, tmp_path):
    words = arguments(photos, tmp_path / "results.json")
    words[1] = str(ROOT / "configs/tests/tiny_classifier.yaml")
    assert "that of a detector; got SACTClassifier" in error_line(capsys, tool.main, words)


def test_torchrun_starts_the_processes_itself(capsys, monkeypatch, photos, weights, tmp_path):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    words = arguments(photos, tmp_path / "results.json", "--num-processes", "2", *weights)
    assert "--num-processes does not go with torchrun" in error_line(capsys, tool.main, words)
