"""The calibration of budgets: what it finds is what evaluations spend; it goes on where it was; one line for faults."""

import json
import statistics
from pathlib import Path

import pytest
import torch
from coco_folder import write_coco_folder
from command_lines import error_line, load_tool
from labelled_folders import write_class_folders
from random_detector import write_random_detector
from small_networks import randomize

from sact_det import build_classifier
from sact_det.budget import BudgetTable
from sact_det.budget.budgeted import halting_blocks
from sact_det.budget.shifts import NEVER
from sact_det.budget.statistics import budgeted_norms, encoded, trained_statistics
from sact_det.classification.loader import build_test_loader
from sact_det.classification.predictor import load_classifier
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.failures import build_model
from sact_det.experiments import budget_subjects
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs/tests"
UNITS = (3, 5, 5, 3)

tool = load_tool("calibrate_budget")


def config_words(folder):
    """A classifier's: data sets for training and, with other images, for tests; weights that halt here and there."""
    norms = ["MODEL.SACT.NORM", "FrozenBN", "MODEL.SACT.BOX_HEAD_NORM", "BN"]  # block 4's learn
    units = [
        *norms,
        "MODEL.SACT.UNITS",
        str(UNITS),
        "MODEL.SACT.REFERENCE_UNITS",
        str(UNITS),
        "MODEL.SACT.BASE_CHANNELS",
        "16",
    ]
    sets = [("mine", str(folder / "train")), ("test", str(folder / "test"))]
    data = ["DATASETS.CLASSIFICATION", str(sets), "DATASETS.TRAIN", "('mine',)", "DATASETS.TEST", "('test',)"]
    return [*units, *data, "OUTPUT_DIR", str(folder / "output"), "MODEL.WEIGHTS", str(folder / "weights/model.pth")]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    write_class_folders(folder / "train")
    write_class_folders(folder / "test", per_class=1)
    (folder / "weights").mkdir()
    words = config_words(folder)
    cfg = load_config(str(CONFIGS / "tiny_classifier.yaml"), words)
    preprocess = build_model(cfg).preprocess
    seen = torch.cat([preprocess(batch) for batch in build_test_loader(cfg, "mine")])  # whose statistics norms have
    model = randomize(build_classifier(UNITS, base_channels=16, num_classes=3), seen, halting_bias=-2.0)
    torch.save(model.state_dict(), folder / "weights/model.pth")
    return words


def argv(words, output, *more):
    config = ["--config-file", str(CONFIGS / "tiny_classifier.yaml"), "--output", str(output)]
    return [*config, "--budgets", "1", "0.75", "0.9", "--candidates", "2", *more, *words]


def table_of(words):
    return BudgetTable.read(Path(words[words.index("MODEL.WEIGHTS") + 1]).parent / "budget.json")


@pytest.fixture(scope="module")
def calibrated(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("output")
    rivals = folder / "rivals.json"
    rivals.write_text(json.dumps([{"name": "half as deep", "flops": 0.6, "quality": 41.0}]))
    tool.main(argv(words, folder, "--static", str(rivals)))
    return folder


@pytest.mark.usefixtures("calibrated")
def test_every_budget_is_spent_as_asked_and_evaluations_spend_it(words):
    table = table_of(words)
    assert table.of == "network" and [point.budget for point in table.points] == [0.75, 0.9, 1.0]
    assert table.about["images"] == 12 and table.about["dataset"] == "mine" and table.about["metric"] == "accuracy"
    assert 0 < table.least < table.points[0].flops and all(point.seconds > 0 for point in table.points)
    for point in table.points:
        if point.budget < 1:
            assert abs(point.flops - point.budget) <= 0.01
        more = ["MODEL.SACT.BUDGET", str(point.budget), "DATASETS.TEST", "('mine',)"]
        cfg = load_config(str(CONFIGS / "tiny_classifier.yaml"), [*words, *more])
        results = ClassificationTrainer.test(cfg, load_classifier(cfg))["classification"]
        assert results["flops_percent"] / 100 == pytest.approx(point.flops, abs=1e-9)
        assert results["flops_percent_std"] / 100 == pytest.approx(point.flops_std, abs=1e-9)
        assert 100 * results["accuracy"] == pytest.approx(point.quality)


def test_norms_that_learn_get_statistics_of_every_budget_unless_they_keep_their_own(words, calibrated, tmp_path):
    before = [point.norms for point in table_of(words).points]
    assert all(set(norms) <= set(before[-1]) and "postnorm" in norms for norms in before)
    assert all(name == "postnorm" or name.startswith("block4.") for name in before[-1])
    assert len({norms["postnorm"] for norms in before}) == 3
    copied = tmp_path / "model.pth"
    copied.write_bytes(Path(words[words.index("MODEL.WEIGHTS") + 1]).read_bytes())
    tool.main(argv([*words, "MODEL.WEIGHTS", str(copied)], tmp_path, "--trained-statistics"))
    assert [point.norms for point in BudgetTable.read(tmp_path / "budget.json").points] == [{}, {}, {}]


def test_table_and_figure_show_all_of_it(words, calibrated):
    rows = (calibrated / "budget.md").read_text().splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["0.75", "0.9", "1"]
    assert "-inf" in rows[-1] and "block4" in rows[0] and "FLOPs of the network (%)" in rows[0]
    assert (calibrated / "budget.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("calibrated")
def test_smaller_images_make_budgets_possible_that_whole_ones_do_not_have(words, tmp_path, capsys):
    weights = tmp_path / "model.pth"
    weights.write_bytes(Path(words[words.index("MODEL.WEIGHTS") + 1]).read_bytes())
    own = [*words, "MODEL.WEIGHTS", str(weights)]
    least = table_of(words).least
    small = round(0.8 * least, 2)
    assert "cannot be reached" in error_line(capsys, tool.main, argv(own, tmp_path, "--budgets", str(small)))
    tool.main(argv(own, tmp_path, "--scales", "0.5", "0.75", "--budgets", str(small), "0.9", "1"))
    table = BudgetTable.read(tmp_path / "budget.json")
    low, middle, whole = table.points
    assert low.scale in (0.5, 0.75) and whole.scale == 1 and table.least < 0.4 * least
    assert low.flops <= small + 0.01 < least and middle.flops <= 0.91
    rows = (tmp_path / "budget.md").read_text().splitlines()
    assert [cell.strip() for cell in rows[0].split("|")].index("scale") == 5
    for point in table.points:
        more = ["MODEL.SACT.BUDGET", str(point.budget), "DATASETS.TEST", "('mine',)"]
        cfg = load_config(str(CONFIGS / "tiny_classifier.yaml"), [*own, *more])
        results = ClassificationTrainer.test(cfg, load_classifier(cfg))["classification"]
        assert results["flops_percent"] / 100 == pytest.approx(point.flops, abs=1e-9)
        assert 100 * results["accuracy"] == pytest.approx(point.quality)


@pytest.mark.parametrize("drawn, escaped", [("(-90.0, -89.0)", True), ("(-90.0, 30.0)", False), ("()", False)])
@pytest.mark.usefixtures("calibrated")
def test_a_network_that_has_escaped_what_its_training_drew_is_warned_of(words, tmp_path, caplog, drawn, escaped):
    copied = tmp_path / "model.pth"
    copied.write_bytes(Path(words[words.index("MODEL.WEIGHTS") + 1]).read_bytes())
    tool.main(argv([*words, "MODEL.WEIGHTS", str(copied), "MODEL.SACT.BUDGET_TRAINING", drawn], tmp_path))
    said = [record.getMessage() for record in caplog.records if "has drawn" in record.getMessage()]
    assert bool(said) == escaped
    if escaped:
        shifts = [statistics.median(p.shifts.values()) for p in BudgetTable.read(tmp_path / "budget.json").points[:2]]
        least, most = sorted(shifts)
        expected = f"Budgets 0.75, 0.9 need shifts from {least:+.1f} to {most:+.1f}, far outside of those that the "
        assert said[0].startswith(expected) and "-90.0 to -89.0: the network" in said[0]


def test_what_was_measured_is_not_measured_again(words, calibrated, monkeypatch):
    before = table_of(words)
    monkeypatch.setattr(budget_subjects.Subject, "measure", lambda *asked: pytest.fail("measured again"))
    tool.main(argv(words, calibrated))
    for old, new in zip(before.points, table_of(words).points):
        assert (old.shifts, old.flops, old.quality) == (new.shifts, new.flops, new.quality)


def test_a_calibration_that_broke_off_goes_on_to_the_same_end(words, calibrated, tmp_path, monkeypatch):
    expected, measure, counts = table_of(words), budget_subjects.Subject.measure, []

    def broken(self, shifts, scale):
        counts.append(shifts)
        if len(counts) == 4:
            raise KeyboardInterrupt
        return measure(self, shifts, scale)

    monkeypatch.setattr(budget_subjects.Subject, "measure", broken)
    with pytest.raises(SystemExit):
        tool.main(argv(words, tmp_path))
    kept = len(json.loads((tmp_path / "budget_measured.json").read_text())["entries"])
    tool.main(argv(words, tmp_path))
    all_of_them = len(json.loads((calibrated / "budget_measured.json").read_text())["entries"])
    assert kept == 3 and len(counts) == 1 + all_of_them
    assert [point.shifts for point in table_of(words).points] == [point.shifts for point in expected.points]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--dataset", "test"],
            "test: has the images of DATASETS.TEST, test; what is calibrated on them would flatter",
        ),
        (["DATASETS.TEST", "('mine',)"], "mine: has the images of DATASETS.TEST, mine;"),
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN names 0 data sets: choose one with --dataset"),
        (["--max-images", "1"], "mine: a calibration needs 2 images at least; got 1"),
        (["--max-images", "0"], "--max-images must be positive; got 0"),
        (["--budgets", "0.5", "0"], "--budgets must be a share of the plain network's FLOPs, in (0, 1]; got 0.0"),
        (["--budgets", "nan"], "--budgets must be a share of the plain network's FLOPs, in (0, 1]; got nan"),
        (["--budgets", "0.5", "0.5"], "--budgets must differ; got 0.5 0.5"),
        (["--budgets", "0.05"], "budget 0.05 cannot be reached: the first units of all blocks, which run everywhere, "),
        (
            ["--scales", "0.5", "0"],
            "--scales must be shares of an image's sides, in (0, 1], unlike each other; got",
        ),
        (
            ["--scales", "0.5", "0.5"],
            "--scales must be shares of an image's sides, in (0, 1], unlike each other; got",
        ),
        (["--judged-images", "11"], "--judged-images must be at least --max-images, 200; got 11"),
        (["--classes", "apple"], "--classes apple: for detectors, whose AP they choose"),
        (["--candidates", "-1"], "--candidates must not be negative; got -1"),
        (["--of", "extractor"], "--of extractor is for detectors: a classifier's budgets are shares of all of it"),
        (["MODEL.SACT.BUDGET", "0.5"], "MODEL.SACT.BUDGET must be 0 here, --budgets are tried; got 0.5"),
        (["MODEL.WEIGHTS", ""], "MODEL.WEIGHTS is empty: name trained weights"),
        (["--static", "missing.json"], "missing.json: no such file"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(words, calibrated, capsys, more, said):
    before = table_of(words)
    assert error_line(capsys, tool.main, argv(words, calibrated) + more).startswith(said)
    assert table_of(words) == before


def test_a_plain_network_has_no_budgets(words, tmp_path, capsys):
    plain = build_classifier(UNITS, base_channels=16, num_classes=3, halting="none")
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    more = ["MODEL.SACT.HALTING", "none", "MODEL.WEIGHTS", str(tmp_path / "plain.pth")]
    said = error_line(capsys, tool.main, argv(words, tmp_path) + more)
    assert said == "MODEL.SACT.HALTING 'none': nothing halts, so there are no budgets"
    assert not (tmp_path / "budget.json").exists()


@pytest.mark.parametrize(("rivals", "shown"), [({"a": 1}, "{'a': 1}"), ([{"name": "x", "flops": 0, "quality": 1}], "")])
def test_rivals_that_are_none_are_refused(words, tmp_path, capsys, rivals, shown):
    path = tmp_path / "rivals.json"
    path.write_text(json.dumps(rivals))
    said = error_line(capsys, tool.main, argv(words, tmp_path, "--static", str(path)))
    assert said.startswith(f'{path}: expected a list of {{"name": text') and shown in said


@pytest.mark.parametrize("of", ["detector", "extractor"])
def test_a_detector_spends_its_budget_in_all_of_it_or_in_the_extractor(of, tmp_path):
    units = [
        "MODEL.SACT.UNITS",
        str(UNITS),
        "MODEL.SACT.REFERENCE_UNITS",
        str(UNITS[:3]),
        "MODEL.SACT.BASE_CHANNELS",
        "16",
    ]
    (tmp_path / "train").mkdir()
    sets = [("mine", *write_coco_folder(tmp_path / "train", num_images=6))]
    words = [*units, "DATASETS.COCO_FORMAT", str(sets), "DATASETS.TRAIN", "('mine',)", "DATASETS.TEST", "()"]
    weights = write_random_detector(tmp_path / "model.pth", str(CONFIGS / "tiny.yaml"), *units)
    words += ["MODEL.WEIGHTS", weights, "OUTPUT_DIR", str(tmp_path / "output")]
    config = ["--config-file", str(CONFIGS / "tiny.yaml"), "--of", of, "--max-images", "3", "--candidates", "0"]
    tool.main([*config, "--budgets", "0.85", "1", *words])
    table = BudgetTable.read(tmp_path / "budget.json")
    assert table.of == of and ("block4" in table.points[0].shifts) == (of == "detector")
    assert abs(table.points[0].flops - 0.85) <= 0.01
    assert (table.about["images"], table.about["metric"]) == (3, "AP")
    key = "flops_percent" if of == "extractor" else "detector_flops_percent"

    def spent(budget):
        more = ["MODEL.SACT.BUDGET", budget, "DATASETS.TEST", "('mine',)"]
        cfg = load_config(str(CONFIGS / "tiny.yaml"), [*words, *more])
        model = DetectionTrainer.build_model(cfg)
        DetectionTrainer.checkpointer_class(model, evaluate=True).load(weights)
        return DetectionTrainer.test(cfg, model.eval())["ponder"][key]

    assert spent("0.85") < 92 and spent("1") >= 100  # on all images, of which the calibration saw three
    judging = ["--judged-images", "6", "--classes", "class 9", "class 1"]
    tool.main([*config, *judging, "--budgets", "0.85", "1", *words])
    judged = BudgetTable.read(tmp_path / "budget.json")
    assert (judged.about["images"], judged.about["metric"]) == (6, "AP of class 9, class 1")
    assert [point.shifts for point in judged.points] == [point.shifts for point in table.points]
    assert [100 * point.flops for point in judged.points] == pytest.approx([spent("0.85"), spent("1")])


def test_a_budget_keeps_the_statistics_of_the_training_where_its_own_do_worse(words, tmp_path, monkeypatch):
    weights = tmp_path / "model.pth"
    weights.write_bytes(Path(words[words.index("MODEL.WEIGHTS") + 1]).read_bytes())
    own = [*words, "MODEL.WEIGHTS", str(weights)]
    judge = budget_subjects.ClassifierSubject.judge

    def whole_networks_do_worse_with_their_own(self, results):
        whole = all(block.shift == NEVER for block in halting_blocks(self.model).values())
        trained = all(norm.statistics[0] is norm.running_mean for norm in budgeted_norms(self.model).values())
        return judge(self, results)._replace(quality=70.0 if whole == trained else 60.0)

    monkeypatch.setattr(budget_subjects.ClassifierSubject, "judge", whole_networks_do_worse_with_their_own)
    tool.main(argv(own, tmp_path))
    *less, whole = BudgetTable.read(tmp_path / "budget.json").points
    trained = encoded(trained_statistics(load_classifier(load_config(str(CONFIGS / "tiny_classifier.yaml"), own))))
    assert [point.quality for point in (*less, whole)] == [70.0] * 3
    assert whole.budget == 1 and set(whole.norms) and all(trained[name] == text for name, text in whole.norms.items())
    assert all(point.norms["postnorm"] != trained["postnorm"] for point in less)
