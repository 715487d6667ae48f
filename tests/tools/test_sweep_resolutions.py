"""The sweep over models and test resolutions: its results, what it computes again, and one line for what is wrong."""

import json
import shutil
from pathlib import Path

import pytest
from command_lines import error_line, load_tool
from labelled_folders import write_class_folders
from random_weights import write_random_weights

from sact_det.classification import sweep
from sact_det.classification.predictor import load_classifier
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.tasks import load_config

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/tests/tiny_classifier.yaml")
PLAIN = ["MODEL.SACT.HALTING", "none"]


tool = load_tool("sweep_resolutions")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A data set, two sets of weights, and a config for a plain network."""
    folder = tmp_path_factory.mktemp("sweep")
    write_class_folders(folder / "data", per_class=2)
    write_random_weights(folder / "sact.pth", load_config(TINY))
    write_random_weights(folder / "plain.pth", load_config(TINY, PLAIN), seed=1)
    (folder / "plain.yaml").write_text(f"_BASE_: '{TINY}'\nMODEL:\n  SACT:\n    HALTING: 'none'\n")
    return folder


def data(files):
    return ["DATASETS.CLASSIFICATION", str([("toy", str(files / "data"))]), "DATASETS.TEST", "('toy',)"]


def arguments(files, output, sizes=(32, 64), more=(), models=("SACT 0.005", "plain")):
    known = {
        "SACT 0.005": ["--model", "SACT 0.005", TINY, str(files / "sact.pth")],
        "plain": ["--model", "plain", str(files / "plain.yaml"), str(files / "plain.pth")],
    }
    chosen = [part for model in models for part in known[model]]
    return [*chosen, "--sizes", *map(str, sizes), "--output", str(output), *data(files), *more]


def read_json(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def swept(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("swept") / "new"
    tool.main(arguments(files, output))
    return output


@pytest.fixture
def evaluated(monkeypatch):
    """The (network, size) of every evaluation that runs."""
    log = []

    def test(cfg, model):
        log.append((cfg.MODEL.SACT.HALTING, cfg.INPUT.CLASSIFICATION.SIZE_TEST))
        return original(cfg, model)

    original = ClassificationTrainer.test
    monkeypatch.setattr(sweep.ClassificationTrainer, "test", test)
    return log


def test_every_model_is_evaluated_at_every_size(swept, files, tmp_path):
    content = read_json(swept / "results.json")
    pairs = [("SACT 0.005", 32), ("SACT 0.005", 64), ("plain", 32), ("plain", 64)]
    assert content["dataset"] == "toy"
    assert [(pair["model"], pair["size"]) for pair in content["pairs"]] == pairs
    for pair in content["pairs"]:
        plain = pair["model"] == "plain"
        own = ["MODEL.WEIGHTS", str(files / ("plain.pth" if plain else "sact.pth")), *(PLAIN if plain else [])]
        size = ["INPUT.CLASSIFICATION.SIZE_TEST", str(pair["size"]), "OUTPUT_DIR", str(tmp_path)]
        cfg = load_config(TINY, [*data(files), *own, *size])
        assert pair["summary"] == ClassificationTrainer.test(cfg, load_classifier(cfg))["classification"]
        assert pair["weights_sha256"] == sweep.file_sha256(cfg.MODEL.WEIGHTS)
    assert content["pairs"][3]["summary"]["flops"] > 2 * content["pairs"][2]["summary"]["flops"]
    assert content["pairs"][1]["summary"]["flops_std"] > 0 == content["pairs"][3]["summary"]["flops_std"]


def test_table_and_plot_show_the_results(swept):
    pairs = read_json(swept / "results.json")["pairs"]
    header, line, *rows = (swept / "table.md").read_text().splitlines()
    assert header.startswith("| network | image size | accuracy |") and set(line) == {"|", "-"}
    assert len(rows) == 4
    for row, pair in zip(rows, pairs):
        assert row.startswith(f"| {pair['model']} | {pair['size']} | {pair['summary']['accuracy']:.4f} | ")
        assert row.endswith(" 6 |")
    assert (swept / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_the_json_is_enough_to_draw_the_plot_again(swept, tmp_path):
    load_tool("plot_results").main([str(swept / "results.json"), "--output", str(tmp_path)])
    (figure,) = tmp_path.iterdir()
    assert figure.name == "results_accuracy.png" and figure.read_bytes() == (swept / "sweep.png").read_bytes()


@pytest.fixture
def copy(swept, tmp_path):
    return Path(shutil.copytree(swept, tmp_path / "copy"))


def test_what_is_finished_is_not_computed_again(copy, files, evaluated):
    before = read_json(copy / "results.json")
    (copy / "results.json").unlink()
    more = ["DATALOADER.NUM_WORKERS", "1", "INPUT.CLASSIFICATION.BATCH_SIZE_TEST", "5", "--format", "pdf"]
    tool.main(arguments(files, copy, more=more))
    assert (copy / "sweep.pdf").read_bytes().startswith(b"%PDF")
    assert evaluated == [] and read_json(copy / "results.json") == before


def test_an_interrupted_sweep_goes_on_and_sizes_can_be_added(copy, files, evaluated):
    (copy / "plain/64/pair.json").unlink()
    (copy / "plain/32/pair.json").write_text("{")
    tool.main(arguments(files, copy, sizes=(32, 48, 64)))
    assert evaluated == [("sact", 48), ("none", 32), ("none", 48), ("none", 64)]
    assert len(read_json(copy / "results.json")["pairs"]) == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda summary: summary.pop("recall_at_5"),
        lambda summary: summary.update(flops="many"),
        lambda summary: summary.update(accuracy=None),
        lambda summary: summary.update(accuracy=-1),
        lambda summary: summary.update(flops_std=10**400),
    ],
)
def test_a_result_that_was_damaged_is_computed_again(copy, files, evaluated, damage):
    path = next(copy.glob("SACT*/32/pair.json"))
    before = read_json(path)
    spoilt = read_json(path)
    damage(spoilt["summary"])
    path.write_text(json.dumps(spoilt))
    tool.main(arguments(files, copy, sizes=(32,), models=["SACT 0.005"]))
    assert evaluated == [("sact", 32)] and read_json(path) == before


def test_other_weights_under_the_same_name_are_evaluated(copy, files, tmp_path, evaluated):
    shutil.copy(files / "sact.pth", tmp_path / "model.pth")
    model = ["--model", "SACT 0.005", TINY, str(tmp_path / "model.pth"), "--sizes", "32", "--output", str(copy)]
    tool.main([*model, *data(files)])
    assert evaluated == []  # a copy of the weights elsewhere
    before = read_json(copy / "results.json")["pairs"][0]["summary"]
    write_random_weights(tmp_path / "model.pth", load_config(TINY), seed=5)
    tool.main([*model, *data(files)])
    assert evaluated == [("sact", 32)] and read_json(copy / "results.json")["pairs"][0]["summary"] != before


def test_other_settings_are_evaluated(copy, files, evaluated):
    crop = ["INPUT.CLASSIFICATION.CROP_FRACTION", "1.0"]
    tool.main(arguments(files, copy, sizes=(32,), models=["SACT 0.005"], more=crop))
    assert evaluated == [("sact", 32)]


@pytest.mark.parametrize(
    ("models", "sizes", "more", "message"),
    [
        ([("a", TINY, "sact.pth")], ["0"], [], "--sizes must be positive; got 0"),
        ([("a", TINY, "nowhere.pth")], ["32"], [], "{files}/nowhere.pth: no such weight file"),
        ([("a", "nowhere.yaml", "sact.pth")], ["32"], [], "nowhere.yaml: no such config file"),
        ([("/", TINY, "sact.pth")], ["32"], [], "--model '/': a name needs letters or digits"),
        ([("..", TINY, "sact.pth")], ["32"], [], "--model '..': a name needs letters or digits"),
        ([("a b", TINY, "sact.pth"), ("A/b", TINY, "sact.pth")], ["32"], [], "--model 'A/b': too close to"),
        ([("a", TINY, "sact.pth")], ["32"], ["DATASETS.TEST", "()"], "--model a: DATASETS.TEST must name one data set"),
        ([("a", TINY, "sact.pth")], ["32"], ["DATASETS.TEST", "('x',)"], "x: no such data set of labelled images"),
        ([("a", TINY, "plain.pth")], ["32"], [], "{files}/plain.pth: "),
        ([("a", str(ROOT / "configs/tests/tiny.yaml"), "sact.pth")], ["32"], [], "--model a: MODEL.META_ARCHITECTURE"),
    ],
)
def test_a_sweep_that_cannot_be_run_is_one_line(files, tmp_path, capsys, models, sizes, more, message):
    chosen = [part for name, config, weights in models for part in ("--model", name, config, str(files / weights))]
    argv = [*chosen, "--sizes", *sizes, "--output", str(tmp_path / "out"), *data(files), *more]
    assert error_line(capsys, tool.main, argv).startswith(message.format(files=files))
    assert not (tmp_path / "out/results.json").exists()


def test_models_on_other_data_are_not_compared(files, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text(f"_BASE_: '{TINY}'\nDATASETS:\n  TEST: ('toy',)\n  CLASSIFICATION: [['toy', '/elsewhere']]\n")
    first = tmp_path / "first.yaml"
    first.write_text(
        f"_BASE_: '{TINY}'\nDATASETS:\n  TEST: ('toy',)\n  CLASSIFICATION: [['toy', '{files / 'data'}']]\n"
    )
    models = [
        part
        for name, path in (("a", first), ("b", other))
        for part in ("--model", name, str(path), str(files / "sact.pth"))
    ]
    line = error_line(capsys, tool.main, [*models, "--sizes", "32", "--output", str(tmp_path / "out")])
    assert line == "--model b: evaluated on other data than the first model; set DATASETS.TEST for all"


def test_a_file_in_place_of_the_output_is_named(files, tmp_path, capsys):
    (tmp_path / "out").write_text("precious")
    assert str(tmp_path / "out") in error_line(capsys, tool.main, arguments(files, tmp_path / "out", sizes=(32,)))
    assert (tmp_path / "out").read_text() == "precious"
