"""The command line that trains and evaluates: its files, and one line for whatever is wrong."""

import json
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from coco_folder import write_coco_folder
from command_lines import error_line, load_tool

from sact_det.base.errors import InputError

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/train_net.py"
TINY = str(ROOT / "configs/tests/tiny.yaml")

pytestmark = pytest.mark.usefixtures("own_loggers")


tool = load_tool("train_net")


def command(files, output, *more):
    """Arguments of a training of two steps with an evaluation at its end; flags, then KEY VALUE overrides."""
    flags = [part for part in more if part.startswith("--")]
    return [
        *("--config-file", TINY, *flags),
        *("DATASETS.COCO_FORMAT", str([("toy", *files)]), "DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "('toy',)"),
        *("SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(output)),
        *(part for part in more if part not in flags),
    ]


def run(arguments):
    tool.main(tool.parse_args(arguments))


def contents(folder, pattern="*"):
    return {path.name: path.read_bytes() for path in Path(folder).glob(pattern) if path.is_file()}


def read_json(path):
    return json.loads(Path(path).read_text())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_coco_folder(tmp_path_factory.mktemp("toy"), num_images=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, files):
    """OUTPUT_DIR of a finished training."""
    output = tmp_path_factory.mktemp("runs") / "trained"
    run(command(files, output))
    return output


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


def copy_run(trained, output):
    """A run that was stopped after its last checkpoint."""
    output.mkdir()
    for name in ("model_final.pth", "last_checkpoint"):
        (output / name).write_bytes((trained / name).read_bytes())
    return contents(output)


def iterations(output):
    return [json.loads(line)["iteration"] for line in (output / "metrics.json").read_text().splitlines()]


def test_a_training_leaves_its_model_its_records_and_an_evaluation(trained):
    assert (trained / "last_checkpoint").read_text() == "model_final.pth"
    checkpoint = torch.load(trained / "model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == 1 and checkpoint.keys() >= {"model", "trainer"}
    assert (trained / "config.yaml").is_file() and (trained / "log.txt").is_file()
    assert "loss_ponder" in (trained / "metrics.json").read_text()
    assert len(read_json(trained / "inference/toy/ponder.json")["images"]) == 4
    results = read_json(trained / "inference/results.json")["toy"]
    assert {"AP", "AP50"} <= results["bbox"].keys() and 0 < results["ponder"]["flops_percent"] < 110
    assert "| SACT (1, 2, 3), tau 0.005 |" in (trained / "log.txt").read_text()


def test_eval_only_repeats_the_evaluation_at_the_end_of_the_training(trained, files, output):
    run(command(files, output, "--eval-only", "MODEL.WEIGHTS", str(trained / "model_final.pth")))
    for name in ("results.json", "toy/ponder.json", "toy/coco_instances_results.json"):
        assert read_json(output / "inference" / name) == read_json(trained / "inference" / name), name
    assert not list(output.glob("*.pth"))


def test_resume_goes_on_where_the_checkpoint_was_written(trained, files, output):
    copy_run(trained, output)
    run(command(files, output, "--resume", "SOLVER.MAX_ITER", "3", "DATASETS.TEST", "()"))
    assert iterations(output)[-1] == 2
    assert torch.load(output / "model_final.pth", weights_only=True)["iteration"] == 2
    assert not (output / "inference").exists()


def test_a_second_run_in_the_same_folder_is_refused_and_destroys_nothing(trained, files, output, capsys):
    before = copy_run(trained, output)
    line = error_line(capsys, run, command(files, output))
    assert line.startswith(f"OUTPUT_DIR {output} holds checkpoints of another run: pass --resume")
    assert contents(output) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.SACT.HALTING", "foo"], "MODEL.SACT.HALTING must be one of 'none', 'act', 'sact'; got 'foo'"),
        (["MODEL.SACT.TOW", "1"], "MODEL.SACT.TOW 1: Non-existent key: MODEL.SACT.TOW"),
        (["MODEL.SACT.TAU", "much"], "MODEL.SACT.TAU much: Type mismatch"),
        (["SEED"], "overrides come as KEY VALUE pairs"),
        (["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RPN.IN_FEATURES", "['res4']"], "MODEL.META_ARCHI"),
        (["MODEL.META_ARCHITECTURE", "foo"], "MODEL.META_ARCHITECTURE must be one of SACTGeneralizedRCNN, SACTRetina"),
        (["MODEL.ROI_HEADS.NAME", "foo"], "MODEL.ROI_HEADS.NAME must be one of "),
        (["MODEL.KEYPOINT_ON", "True"], "MODEL.KEYPOINT_ON: SACTRes5ROIHeads has no keypoint head"),
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty"),
        (["DATASETS.TRAIN", "('nowhere',)"], "nowhere: no such data set"),
        (["DATASETS.TEST", "('nowhere',)"], "nowhere: no such data set"),
        (["DATASETS.COCO_FORMAT", "[('toy', 'nowhere.json', '.')]"], "nowhere.json: no such annotation file"),
        (["DATASETS.COCO_FORMAT", f"[('toy', '{TINY}', '.')]"], f"{TINY}: not a readable json file"),
        (["SOLVER.IMS_PER_BATCH", "0"], "SOLVER.IMS_PER_BATCH must be an integer from 1 to 65536; got 0"),
        (["MODEL.WEIGHTS", "nowhere.pth"], "nowhere.pth: no such weight file"),
        (["--eval-only"], "MODEL.WEIGHTS is empty: evaluation needs trained weights"),
        (["--eval-only", "DATASETS.TEST", "()"], "DATASETS.TEST is empty: --eval-only has nothing to evaluate"),
        (["--eval-only", "MODEL.WEIGHTS", "nowhere.pth"], "nowhere.pth: no such weight file"),
    ],
)
def test_a_command_that_cannot_be_run_ends_in_one_line(files, output, capsys, options, message):
    assert error_line(capsys, run, command(files, output, *options)).startswith(message)
    assert not list(output.glob("*.pth"))


def test_a_missing_config_file_is_named(files, output, capsys):
    arguments = command(files, output)
    arguments[1] = "nowhere.yaml"
    assert error_line(capsys, run, arguments) == "nowhere.yaml: no such config file"


def edit_json(root, edit):
    content = read_json(root / "instances.json")
    edit(content)
    (root / "instances.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "2.png").unlink(), "2.png: no such image"),
        (lambda root: (root / "2.png").write_bytes(b"x"), "2.png: the image cannot be used: cannot identify image"),
        (lambda root: edit_json(root, lambda c: c["annotations"].clear()), "toy: no usable images"),
        (
            lambda root: edit_json(root, lambda c: c["annotations"][0].update(image_id=9)),
            "image_id 9 is not in 'images'",
        ),
        (
            lambda root: edit_json(root, lambda c: c.pop("images")),
            "instances.json: not in COCO format: no list 'images'",
        ),
        (lambda root: (root / "instances.json").write_text(""), "instances.json: not a readable json file"),
    ],
    ids=["no image", "broken image", "no annotations", "unknown image", "no COCO", "empty"],
)
def test_data_that_cannot_be_trained_on_is_named(tmp_path, output, capsys, damage, message):
    files = write_coco_folder(tmp_path, num_images=2)
    damage(tmp_path)
    assert message in error_line(capsys, run, command(files, output, "DATALOADER.ASPECT_RATIO_GROUPING", "False"))
    assert not list(output.glob("*.pth"))


def pickled(path, trained):
    path.write_bytes(pickle.dumps({"model": {}, "__author__": InputError}))


def narrower(path, trained):
    weights = torch.load(trained / "model_final.pth", weights_only=True)["model"]
    torch.save({name: value[:2] if value.ndim == 4 else value for name, value in weights.items()}, path)


@pytest.mark.parametrize("flag", [[], ["--eval-only"]], ids=["train", "evaluate"])
@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("model.pkl", pickled, "holds pickled objects, which are never loaded"),
        ("model.pth", narrower, "weights of another architecture than the config's"),
    ],
)
def test_weights_that_cannot_be_used_are_named(trained, files, tmp_path, output, capsys, flag, name, write, message):
    write(tmp_path / name, trained)
    line = error_line(capsys, run, command(files, output, *flag, "MODEL.WEIGHTS", str(tmp_path / name)))
    assert line.startswith(f"{tmp_path / name}: {message}")


def test_a_damaged_checkpoint_is_not_replaced_by_a_fresh_start(trained, files, output, capsys):
    before = copy_run(trained, output)
    before["model_final.pth"] = before["model_final.pth"][:10_000]
    (output / "model_final.pth").write_bytes(before["model_final.pth"])
    line = error_line(capsys, run, command(files, output, "--resume", "SOLVER.MAX_ITER", "3"))
    assert line.startswith(f"{output / 'model_final.pth'}: damaged, or not a weight file")
    assert contents(output, "*.pth") == {"model_final.pth": before["model_final.pth"]}


@pytest.mark.parametrize(
    "change", [("SOLVER.BACKBONE_LR_FACTOR", "0.5"), ("MODEL.BACKBONE.FREEZE_AT", "3")], ids=lambda change: change[0]
)
def test_a_run_does_not_go_on_with_another_optimiser(trained, files, output, capsys, change):
    copy_run(trained, output)
    before = contents(output, "*.pth")
    line = error_line(capsys, run, command(files, output, "--resume", "SOLVER.MAX_ITER", "3", *change))
    assert line.startswith(f"the run in OUTPUT_DIR {output} cannot go on with other parameters that learn")
    assert contents(output, "*.pth") == before


def without_training(content):
    del content["trainer"]


def first_momentum(content):
    return next(iter(content["trainer"]["_trainer"]["optimizer"]["state"].values()))["momentum_buffer"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_training, "model_final.pth: holds weights, not a training to go on with"),
        (lambda content: content.update(trainer=3), "cannot go on with other parameters"),
        (lambda content: content["trainer"].update(iteration="2"), "its iteration is '2'; expected a number of steps"),
        (lambda content: content["trainer"].update(iteration=-2), "its iteration is -2; expected a number of steps"),
        (lambda content: first_momentum(content).fill_(math.nan), "momentum_buffer: .* values are NaN"),
        (lambda content: next(iter(content["model"].values())).fill_(math.inf), "values are NaN, infinite"),
    ],
    ids=["weights alone", "no state", "iteration of letters", "negative iteration", "momentum", "weights"],
)
def test_a_checkpoint_that_is_no_state_of_a_training_is_refused(trained, files, output, capsys, change, message):
    copy_run(trained, output)
    content = torch.load(output / "model_final.pth", weights_only=True)
    change(content)
    torch.save(content, output / "model_final.pth")
    before = contents(output, "*.pth")
    line = error_line(capsys, run, command(files, output, "--resume", "SOLVER.MAX_ITER", "3"))
    assert re.search(message, line)
    assert contents(output, "*.pth") == before


def test_a_full_disk_costs_no_checkpoint(trained, files, output, capsys, full_disk):
    before = copy_run(trained, output)
    with full_disk(200_000):  # room for the log
        line = error_line(
            capsys, run, command(files, output, "--resume", "SOLVER.MAX_ITER", "3", "DATASETS.TEST", "()")
        )
    assert line == f"{output / 'model_final.pth'}: File too large"
    assert {name: content for name, content in contents(output).items() if name in before} == before
    assert list(output.glob("*.pth")) == [output / "model_final.pth"]


def test_an_output_folder_without_write_permission_is_named(locked_folder, capsys):
    line = error_line(capsys, run, ["--config-file", TINY, "OUTPUT_DIR", str(locked_folder / "output")])
    assert line == f"{locked_folder / 'output'}: Permission denied"


def test_a_file_in_place_of_the_output_folder_is_named(files, output, capsys):
    output.write_text("precious")
    assert error_line(capsys, run, command(files, output)).startswith(str(output))
    assert output.read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["MODEL.SACT.TOW", "1"],
            "error: MODEL.SACT.TOW 1: Non-existent key: MODEL.SACT.TOW; did you mean MODEL.SACT.TAU?",
        ),
        (["MODEL.WEIGHTS", "nowhere.pth"], "error: nowhere.pth: no such weight file"),
    ],
    ids=["found before the processes start", "found by the processes"],
)
def test_two_processes_end_with_exit_code_1_and_no_traceback(files, output, options, message):
    arguments = command(files, output, "--num-processes=2", "--dist-url=auto", *options)
    done = subprocess.run(
        [sys.executable, str(TOOL), *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert {line for line in done.stderr.splitlines() if line.startswith("error: ")} == {message}
