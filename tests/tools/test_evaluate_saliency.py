"""The command line from data set and models to tables and pictures, and one line for what is wrong."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cat2000_folder import write_cat2000_folder
from command_lines import load_tool
from PIL import Image
from random_detector import write_random_detector
from random_weights import write_random_weights

from sact_det.tasks import load_config
from saliency.cat2000 import read_cat2000
from saliency.extraction import PonderModel
from saliency.sources import title_from_path

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/evaluate_saliency.py"
CLASSIFIER, DETECTOR = str(ROOT / "configs/tests/tiny_classifier.yaml"), str(ROOT / "configs/tests/tiny.yaml")
FAST = ["--image-size", "64", "--sigmas", "0", "2", "--multipliers", "0", "1", "--processes", "1"]

tool = load_tool("evaluate_saliency")
export = load_tool("export_ponder")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A data set, the weights of a classifier and a detector, a folder of maps and an exported ponder file."""
    folder = tmp_path_factory.mktemp("saliency")
    root = write_cat2000_folder(folder / "set")
    write_random_weights(folder / "classifier.pth", load_config(CLASSIFIER))
    write_random_detector(folder / "detector.pth", DETECTOR)
    for image in read_cat2000(root):
        path = folder / "maps" / f"{image.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.GaussianBlur(image.fixations.counts().astype(np.float32) * 255, (0, 0), 3) * 9)
    data = ["DATASETS.CLASSIFICATION", str([("noise", str(root / "Stimuli"))]), "DATASETS.TEST", "('noise',)"]
    arguments = ["--config-file", CLASSIFIER, "--output", str(folder / "ponder.h5"), "--image-size", "64"]
    export.main([*arguments, "MODEL.WEIGHTS", str(folder / "classifier.pth"), *data])
    return folder


def arguments(files, output, *more):
    return ["--dataset", str(files / "set"), "--output", str(output), *FAST, *more]


def networks(files):
    return [
        *("--model", "classifier", CLASSIFIER, str(files / "classifier.pth")),
        *("--model", "detector", DETECTOR, str(files / "detector.pth")),
    ]


def near_people(files):
    return ["--maps", "near people", str(files / "maps")]


def results(output):
    return json.loads((output / "results.json").read_text())


def scores(output):
    return {(row["model"], row["map"]): row["overall"] for row in results(output)["rows"]}


@pytest.fixture(scope="module")
def evaluated(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluated") / "new"
    exported = ["--hdf5", "exported", str(files / "ponder.h5")]
    tool.main(arguments(files, output, *networks(files), *exported, *near_people(files), "--title", "Noise"))
    return output


def test_every_source_gets_its_rows_and_its_sheet(evaluated):
    models = ["classifier", "detector", "near people", "exported"]
    stages = {model: ["ponder map", "blurred", "with centre"] for model in models}
    stages["near people"][0] = "as given"
    expected = [("centre baseline", kind) for kind in ("stretched", "isotropic", "mit")]
    assert list(scores(evaluated)) == [*expected, *((model, stage) for model in models for stage in stages[model])]
    for model in models:
        sheet = np.asarray(Image.open(evaluated / f"sheet_{model.replace(' ', '_')}.png"))
        assert sheet.shape[1] > 1200 and sheet.std() > 10
    assert (evaluated / "table.md").read_text().startswith("Noise: 4 images;")
    assert np.asarray(Image.open(evaluated / "categories.png")).std() > 10


def test_an_export_of_a_classifier_scores_as_the_classifier(evaluated):
    found = scores(evaluated)
    for stage in ("ponder map", "blurred", "with centre"):
        for metric, interval in found["classifier", stage].items():  # in the export several images shared a batch
            assert found["exported", stage][metric] == pytest.approx(interval, abs=1e-4)


def test_maps_near_the_fixations_score_above_the_centre_and_noise_does_not(evaluated):
    rows = {(row["model"], row["map"]): row for row in results(evaluated)["rows"]}
    assert rows["near people", "as given"]["above_center"]["auc_judd"]["low"] > 0
    assert abs(rows["classifier", "ponder map"]["overall"]["auc_judd"]["mean"] - 0.5) < 0.15


def test_the_results_say_every_step_of_a_map(evaluated, files):
    content = results(evaluated)
    chains = {(row["model"], row["map"]): row["chains"][0] for row in content["rows"]}
    assert chains["detector", "ponder map"] == {
        "longer_edge": 64,
        "sigma": 0,
        "blur_at": "image",
        "interpolation": "linear",
        "multiplier": 0,
        "center": {"kind": "stretched", "width": 0.25},
    }
    assert chains["exported", "ponder map"]["longer_edge"] is None and content["padding"] == "as it comes"
    assert content["networks"]["detector"]["weights"] == str(files / "detector.pth")
    assert content["statistics"].startswith("this is not the full CAT2000 training set: 8 images")


def test_a_second_run_makes_no_map_again(evaluated, files, monkeypatch):
    monkeypatch.setattr(PonderModel, "__init__", lambda *arguments: pytest.fail("a model was made"))
    before = scores(evaluated)
    tool.main(arguments(files, evaluated, *networks(files), "--no-sheet"))
    after = scores(evaluated)
    assert len(after) == 9 and all(after[key] == before[key] for key in after)


def test_the_command_in_processes_gives_the_same_numbers(evaluated, files, tmp_path):
    detector = networks(files)[4:]
    result = run(arguments(files, tmp_path, *detector, "--no-sheet", "--num-processes", "2"))
    assert result.returncode == 0, result.stderr
    before, after = scores(evaluated), scores(tmp_path)
    assert ("detector", "with centre") in after and all(after[key] == before[key] for key in after)
    assert "| centre baseline | stretched |" in result.stdout


def run(argv, code=""):
    """The command in its own process; `code` runs first."""
    start = f"import sys, runpy; {code}; sys.argv = [{str(TOOL)!r}, *{argv!r}]"
    command = [sys.executable, str(TOOL), *argv]
    if code:
        command = [sys.executable, "-c", f"{start}; runpy.run_path({str(TOOL)!r}, run_name='__main__')"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


def test_centre_baselines_and_folders_of_maps_need_neither_torch_nor_detectron2(files, tmp_path):
    blocked = "sys.modules['torch'] = None; sys.modules['detectron2'] = None"
    result = run(arguments(files, tmp_path, *near_people(files)), blocked)
    assert result.returncode == 0, result.stderr
    assert len(scores(tmp_path)) == 6 and (tmp_path / "sheet_near_people.png").is_file()


def test_sheets_and_the_figure_of_categories_can_be_drawn_for_a_paper(files, tmp_path):
    tool.main(arguments(files, tmp_path, *near_people(files), "--format", "pdf", "--colormap", "magma"))
    assert {path.stem for path in tmp_path.glob("*.pdf")} == {"sheet_near_people", "categories"}
    assert all(path.read_bytes().startswith(b"%PDF") for path in tmp_path.glob("*.pdf"))


def test_the_centre_alone_is_scored_on_the_same_images(evaluated, files, tmp_path):
    tool.main(arguments(files, tmp_path, "--center-only"))
    before = scores(evaluated)
    assert all(before[key] == value for key, value in scores(tmp_path).items()) and len(scores(tmp_path)) == 3


def test_one_config_is_named_by_its_file_or_its_trainings_folder(files, tmp_path):
    folder = tmp_path / "my_training"
    folder.mkdir()
    (folder / "config.yaml").write_text(f"_BASE_: '{CLASSIFIER}'\n")
    weights = ["MODEL.WEIGHTS", str(files / "classifier.pth")]
    tool.main(arguments(files, tmp_path / "a", "--no-sheet", "--config-file", str(folder / "config.yaml"), *weights))
    assert ("my_training", "blurred") in scores(tmp_path / "a")
    assert title_from_path(CLASSIFIER) == "tiny_classifier"


def test_a_list_of_images_will_do(files, tmp_path):
    rows = ["image,fixations,category"]
    for number in ("001", "002", "004"):
        source = f"{files}/set/Stimuli/Action/{number}.jpg,{files}/set/FIXATIONLOCS/Action/{number}.mat"
        rows.append(f"{source},Action")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    tool.main(["--dataset", str(tmp_path / "list.csv"), "--output", str(tmp_path / "out"), "--center-only"])
    assert results(tmp_path / "out")["scored_images"] == 2


def test_folds_score_all_images(files, tmp_path):
    tool.main(arguments(files, tmp_path, "--no-sheet", "--folds", "4", *near_people(files)))
    assert results(tmp_path)["scored_images"] == 8 and len(results(tmp_path)["splits"]) == 4


def test_what_is_left_out_is_counted_and_listed(files, tmp_path, caplog):
    shutil.copytree(files / "set", tmp_path / "set")
    (tmp_path / "set/FIXATIONLOCS/Action/001.mat").unlink()
    shutil.copytree(files / "maps", tmp_path / "maps")
    (tmp_path / "maps/Social/010.png").unlink()
    options = ["--no-sheet", "--maps", "near", str(tmp_path / "maps"), "--output", str(tmp_path / "out"), *FAST]
    with caplog.at_level("INFO", logger="saliency"):
        tool.main(["--dataset", str(tmp_path / "set"), *options, "--skip-bad"])
    content = results(tmp_path / "out")
    assert content["dataset"]["images"] == 6 and len(content["dataset"]["left_out"]) == 2
    assert "2 left out" in (tmp_path / "out/table.md").read_text()
    assert "001.mat: no such fixation file" in caplog.text and "Social/010: no such map" in caplog.text


def test_masked_padding_changes_maps_of_padded_images_only(files, tmp_path):
    shutil.copytree(files / "set", tmp_path / "set")
    path = tmp_path / "set/Stimuli/Action/010.jpg"
    padded = cv2.imread(str(path))
    padded[:, :16] = 126
    cv2.imwrite(str(path), padded, [cv2.IMWRITE_JPEG_QUALITY, 100])
    lines = []
    for option in ([], ["--mask-padding"]):
        output = tmp_path / f"out{len(option)}"
        own = ["--dataset", str(tmp_path / "set"), "--output", str(output), *FAST, *near_people(files), "--no-sheet"]
        tool.main([*own, *option])
        lines.append([line for line in (output / "images.csv").read_text().splitlines() if ",as given," in line])
    changed = [one.split(",")[3] for one, two in zip(*lines) if one != two]
    assert changed == ["Action/010"] and results(tmp_path / "out1")["padding"] == "lowest value of the map"


BAD = {
    "nothing to score": ([], "give one of --config-file, --model, --hdf5, --maps, --densities, or --center-only"),
    "both": (["--center-only", "--maps", "a", "."], "or --center-only"),
    "stray overrides": (["--center-only", "MODEL.WEIGHTS", "x"], "config overrides need --config-file or --model"),
    "no weights": (["--config-file", CLASSIFIER], "MODEL.WEIGHTS is empty"),
    "missing weights": (["--model", "a", CLASSIFIER, "nowhere.pth"], "nowhere.pth: no such weight file"),
    "missing config": (["--model", "a", "nowhere.yaml", "x"], "nowhere.yaml: no such config file"),
    "plain network": (["--config-file", CLASSIFIER, "MODEL.SACT.HALTING", "none"], "MODEL.SACT.HALTING must be 'sact'"),
    "missing maps": (["--maps", "a", "nowhere"], "nowhere: no such folder of maps"),
    "missing hdf5": (["--hdf5", "a", "nowhere.h5"], "nowhere.h5: no such HDF5 file"),
    "no hdf5": (["--hdf5", "a", CLASSIFIER], "not an HDF5 file"),
    "descending grid": (["--center-only", "--sigmas", "3", "1"], "`sigmas` of a grid must ascend"),
    "no 0": (["--center-only", "--multipliers", "1"], "`multipliers` of the grid must hold 0"),
    "processes": (["--center-only", "--processes", "0"], "--processes must be positive; got 0"),
    "both kinds of processes": (
        ["--center-only", "--num-gpus", "2", "--num-processes", "2"],
        "--num-gpus and --num-processes: give one of them",
    ),
    "size": (["--center-only", "--image-size", "-1"], "--image-size must be positive; got -1"),
    "width": (["--center-only", "--center-width", "0"], "`width` of a centre baseline must be positive"),
    "folds": (["--center-only", "--folds", "9"], "folds must lie between 2 and its 8 images"),
    "variable": (["--center-only", "--variable", "other"], "has no variable 'other'"),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_gpus_that_are_not_there_are_named_before_any_work(files, tmp_path, capsys):
    with pytest.raises(SystemExit):
        tool.main(arguments(files, tmp_path / "out", *networks(files), "--num-gpus", "2"))
    assert capsys.readouterr().err == "error: --num-gpus 2: this machine has none; --num-processes 2 share its CPU\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_writes_nothing(files, tmp_path, capsys, options, message):
    output = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        tool.main(["--dataset", str(files / "set"), "--output", str(output), *options])
    error = capsys.readouterr().err
    assert ended.value.code == 1 and error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not output.exists() or not list(output.glob("*.*"))


def test_an_empty_root_and_a_single_image_are_named(tmp_path, capsys):
    (tmp_path / "empty/Stimuli").mkdir(parents=True)
    (tmp_path / "empty/FIXATIONLOCS").mkdir()
    write_cat2000_folder(tmp_path / "one", categories=("Action",), numbers=(1,))
    for root, message in (("empty", "no images"), ("one", "the only image of category 'Action'")):
        with pytest.raises(SystemExit):
            tool.main(["--dataset", str(tmp_path / root), "--output", str(tmp_path / "out"), "--center-only"])
        assert message in capsys.readouterr().err


def test_an_unwritable_output_is_named(locked_folder, capsys):
    with pytest.raises(SystemExit):
        tool.main(["--dataset", "nowhere", "--output", str(locked_folder / "out"), "--center-only"])
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(locked_folder / "out") in error and error.count("\n") == 1
