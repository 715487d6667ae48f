"""AP beside seconds on a data set, against the project's own evaluation of the same detectors."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from coco_folder import write_coco_folder
from command_lines import error_line, load_tool
from random_detector import write_random_detector

from sact_det.benchmark import dataset
from sact_det.benchmark.contestants import contestants
from sact_det.benchmark.dataset_table import known_evaluations
from sact_det.benchmark.trained import load_detector
from sact_det.detection.trainer import DetectionTrainer
from sact_det.tasks import load_config

TINY = Path(__file__).parents[2] / "configs/tests/tiny.yaml"
FAST = ["--warmup", "0", "--threads", "1", "--quiet"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with configs and random weights of a SACT and a plain detector, for a data set of 5 images, "toy"."""
    root = tmp_path_factory.mktemp("toy")
    files = write_coco_folder(root, num_images=5)
    for name, halting in (("sact", "sact"), ("plain", "none"), ("mass", "none")):
        mass = 0.9 if name == "mass" else 1
        (root / f"{name}.yaml").write_text(
            f'_BASE_: "{TINY}"\nMODEL: {{SACT: {{HALTING: "{halting}", PROPOSAL_MASS: {mass}}}}}\n'
            f'DATASETS: {{COCO_FORMAT: [["toy", "{files[0]}", "{files[1]}"]], TEST: ["toy"]}}\n'
        )
        write_random_detector(root / f"{name}.pth", str(root / f"{name}.yaml"))
    return root


def command(toy, *more):
    """The words of a command line; `more` come last, and so take the place of what was said before."""
    plain = ("--plain", str(toy / "plain.yaml"), str(toy / "plain.pth"), "PLAIN")
    main = ("--config-file", str(toy / "sact.yaml"), "MODEL.WEIGHTS", str(toy / "sact.pth"), "--dataset", "toy")
    few = ["--proposals", "6", "--scales", "0.5", "--rivals", "eager", "--rounds", "2", "--max-images", "2", *FAST]
    return ["detector", *few, *plain, *main, *more]


@pytest.fixture(scope="module")
def measured(toy):
    """The table of a run that draws a figure, too."""
    out = toy / "out"
    adaptive = ("--adaptive", str(toy / "mass.yaml"), str(toy / "plain.pth"), "MASS")
    again = ("--adaptive", str(toy / "sact.yaml"), str(toy / "sact.pth"), "again")
    files = ("--json", str(out / "numbers.json"), "--plot", str(out / "figure.png"))
    load_tool("benchmark").main(command(toy, *adaptive, *again, *files))
    (table,) = json.loads((out / "numbers.json").read_text())["tables"]
    return table


def test_rows_are_plain_detectors_at_all_sizes_of_work_and_then_adaptive_ones(measured):
    assert [row["name"] for row in measured["rows"]] == [
        *("PLAIN, 20 proposals", "PLAIN, 6 proposals", "PLAIN x0.5, 20 proposals", "PLAIN x0.5, 6 proposals"),
        *("sact", "MASS", "again"),
    ]
    assert measured["finished"] and measured["dense"] == "PLAIN, 20 proposals"
    assert len({row["AP50"] for row in measured["rows"]}) > 3
    assert [row["static"] for row in measured["rows"]] == [True] * 4 + [False] * 3


@pytest.mark.parametrize(
    ("row", "network", "overrides"),
    [
        ("PLAIN, 20 proposals", "plain", []),
        ("PLAIN x0.5, 6 proposals", "plain", [*("MODEL.RPN.POST_NMS_TOPK_TEST", "6"), *("INPUT.MIN_SIZE_TEST", "48")]),
        ("sact", "sact", []),
    ],
)
def test_ap_regions_and_flops_are_those_of_an_evaluation(toy, measured, row, network, overrides, tmp_path):
    half = ["INPUT.MAX_SIZE_TEST", "100"] if "x0.5" in row else []
    weights = ["MODEL.WEIGHTS", str(toy / f"{network}.pth"), "OUTPUT_DIR", str(tmp_path)]
    cfg = load_config(str(toy / f"{network}.yaml"), [*overrides, *half, *weights])
    results = DetectionTrainer.test(cfg, load_detector(cfg))
    (found,) = (one for one in measured["rows"] if one["name"] == row)
    assert found["AP"] == pytest.approx(results["bbox"]["AP"])
    assert found["AP50"] == pytest.approx(results["bbox"]["AP50"])
    assert found["regions"] == results["ponder"]["regions"]
    assert found["gflops"] == pytest.approx(results["ponder"]["detector_gflops"])


def test_every_image_is_timed_in_every_round_and_numbers_follow_from_these_times(measured):
    base = measured["rows"][0]
    assert measured["timed_images"] == [1, 3]
    for row in measured["rows"]:
        times = torch.tensor(row["seconds"])
        assert times.shape == (2, 2) and (times > 0).all()
        for lap, seconds in zip(itertools.chain(*row["parts"]), times.flatten().tolist(), strict=True):
            assert 0 < sum(lap.values()) <= seconds
        assert row["s"]["median"] == pytest.approx(times.mean(0).mean().item())  # of two rounds
        ratio = (times.mean(0) / torch.tensor(base["seconds"]).mean(0)).mean().item()
        assert row["time_ratio"]["median"] == pytest.approx(ratio)
        assert row["flops_percent"] == pytest.approx(100 * row["gflops"] / base["gflops"])
        assert row["time_over_flops"] == pytest.approx(ratio / row["timed_flop_ratio"])
    fewer = measured["rows"][5]  # proposals follow the image
    assert fewer["regions"] < 20 and fewer["flops_percent"] < 100
    assert measured["rows"][1]["flops_percent"] < 100 and base["time_over_flops"] == 1


def test_programs_are_told(measured):
    assert {row["programs"] for row in measured["rows"][4:]} == {"auto"}
    for row in measured["rows"][:4]:
        extractor, head = row["programs"].split(" + ")
        assert extractor in ("auto", "eager") and head in ("auto", "folded", "folded, NCHW", "onnxruntime", "openvino")
    assert any(line.startswith("PLAIN: Rivals' extractor at 1x3x96x128") for line in measured["remarks"])


def test_the_figure_is_a_picture(toy, measured):
    assert (toy / "out/figure.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_evaluated_before_is_not_evaluated_again(toy, measured, tmp_path, monkeypatch):
    out = tmp_path / "numbers.json"
    out.write_text((toy / "out/numbers.json").read_text())
    assert len(known_evaluations(out)) == 6  # two of them are one
    evaluated = []

    def interrupted(cfg, *arguments):
        evaluated.append(cfg.MODEL.RPN.POST_NMS_TOPK_TEST)
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "evaluate", interrupted)
    words = command(toy, "--json", str(out))
    words[words.index("--proposals") + 1] = "7"  # is new
    with pytest.raises(SystemExit) as end:
        load_tool("benchmark").main(words)
    assert end.value.code == 130 and evaluated == [7]
    (table,) = json.loads(out.read_text())["tables"]
    assert not table["finished"]
    assert [row["name"] for row in table["rows"]] == ["PLAIN, 20 proposals", "PLAIN x0.5, 20 proposals", "sact"]


def test_ap_may_be_of_some_images(toy, tmp_path):
    out = tmp_path / "numbers.json"
    load_tool("benchmark").main(command(toy, "--ap-images", "3", "--scales", "1", "--json", str(out)))
    (table,) = json.loads(out.read_text())["tables"]
    for row in table["rows"]:
        assert [image["image_id"] for image in row["quality"]["images"]] == [1, 2, 4]
    assert "of 3 images" in table["remarks"][0] and table["timed_images"] == [1, 2]


def test_images_may_be_timed_several_at_a_time(toy, tmp_path, monkeypatch):
    def six_seconds(setting, candidates, title):
        for candidate in candidates:
            candidate.prepare()
            candidate.run(None)
        return {candidate.name: [6.0] for candidate in candidates}

    monkeypatch.setattr(dataset.Setting, "times", six_seconds)
    out = tmp_path / "numbers.json"
    more = ("--batch", "2", "--max-images", "5", "--scales", "1", "--json", str(out))
    load_tool("benchmark").main(command(toy, *more))
    (table,) = json.loads(out.read_text())["tables"]
    assert table["batch"] == 2 and len(set(table["timed_images"])) == 4  # of five, which are two batches
    assert "over 4 of them, 2 alike at a time" in table["remarks"][0] and table["title"].endswith("batches of 2")
    assert any(line.startswith("PLAIN: Rivals' extractor at 2x3x128x96") for line in table["remarks"])
    for row in table["rows"]:
        assert row["seconds"] == [[3.0], [3.0]]  # an image, in two batches
        assert [len(rounds) for rounds in row["parts"]] == [1, 1]


def test_ap_may_be_of_some_classes(toy, tmp_path):
    out, few = tmp_path / "numbers.json", ["--scales", "1", "--plot", str(tmp_path / "figure.png")]
    load_tool("benchmark").main(command(toy, "--classes", "class 1", "class 4", *few, "--json", str(out)))
    (table,) = json.loads(out.read_text())["tables"]
    for row in table["rows"]:
        boxes = row["quality"]["bbox"]
        assert row["AP_of_classes"] == pytest.approx((boxes["AP-class 1"] + boxes["AP-class 4"]) / 2)
        assert row["AP"] == boxes["AP"]
    assert table["remarks"][1] == "AP of 2 classes is the mean of class 1, class 4"


def test_a_figure_connects_regions_of_one_size_or_else_sizes(toy):
    tool = load_tool("benchmark")
    for proposals, marks, lines in (
        (["20", "6"], ["20", "6"] * 2, ["PLAIN"] * 2 + ["PLAIN x0.5"] * 2),
        (["20"], ["x1", "x0.5"], ["PLAIN"] * 2),
    ):
        args = tool.parse_arguments(command(toy, "--proposals", *proposals))
        tool.fill_in(args)
        taking_part = [one for one in contestants(args) if one.static]
        assert [one.mark for one in taking_part] == marks and [one.line for one in taking_part] == lines


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (
            ["--dataset", "nowhere"],
            "--dataset nowhere: no such data set; there are those of DATASETS.COCO_FORMAT (toy)",
        ),
        (["--proposals", "0"], "--proposals must be positive; got 0"),
        (["--scales", "1.5"], "--scales must lie in (0, 1]; got 1.5"),
        (["--scales", "nan"], "--scales must lie in (0, 1]; got nan"),
        (["--classes", "cow"], "--classes cow: expected one of class 1, class 4, class 9"),
        (["--ap-images", "0"], "--ap-images must be positive; got 0"),
        (["--plain", "c.yaml"], "--plain takes CONFIG WEIGHTS [LABEL]; got c.yaml"),
        (["--plain", "SACT", "W"], "--plain sact: MODEL.SACT.HALTING must be none; got sact (see --adaptive)"),
        (["--plain", "MASS", "W"], "--plain mass: MODEL.SACT.PROPOSAL_MASS must be 1.0; got 0.9 (see --adaptive)"),
        (
            ["--plain", "PLAIN_CONFIG", "W", "PLAIN"],
            "two detectors are called 'PLAIN': give one a LABEL behind its WEIGHTS, or --label",
        ),
        (["--adaptive", "SACT", "nowhere.pth"], "two detectors are called 'sact'"),
        (["--adaptive", "SACT", "nowhere.pth", "S", "--label", "S"], "two detectors are called 'S'"),
        (["--label", "PLAIN"], "two detectors are called 'PLAIN'"),
        (["--adaptive", "SACT", "nowhere.pth", "B"], "nowhere.pth: no such weight file"),
        (["--adaptive", "nowhere.yaml", "W"], "--adaptive: nowhere.yaml: no such"),
        (["--images", "photos"], "--images and --dataset: give one of them"),
        (["--ratios", "0.5"], "--ratios and --dataset: give one of them"),
        (["--batch", "1", "2"], "--batch takes one number with --dataset; got 1 2"),
        (["--batch", "0"], "--batch must be positive; got 0"),
        (["--plot", "/proc/nowhere/figure.png"], "/proc/nowhere"),
        (["--plot", "figure.png", "--format", "pdf"], "--plot figure.png: must end with .pdf, the --format"),
        (["MODEL.WEIGHTS", ""], "MODEL.WEIGHTS is empty: AP needs trained weights"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(toy, more, line, capsys):
    names = {"SACT": str(toy / "sact.yaml"), "PLAIN_CONFIG": str(toy / "plain.yaml"), "MASS": str(toy / "mass.yaml")}
    own = [names.get(word, word) for word in more]
    assert error_line(capsys, load_tool("benchmark").main, command(toy, *own)).startswith(line)


def test_a_detector_of_other_classes_is_refused(toy, tmp_path, capsys):
    json_file, images = write_coco_folder(tmp_path, num_images=2, category_ids=(1, 2))
    other = ["DATASETS.COCO_FORMAT", str([("toy", json_file, images)])]
    line = error_line(capsys, load_tool("benchmark").main, command(toy, *other))
    assert "number of classes" in line and "is [4, 256], the model's [3, 256]" in line


@pytest.mark.parametrize(
    "option",
    [("--plain", "c", "w"), ("--adaptive", "c", "w"), ("--label", "l"), ("--classes", "c"), ("--plot", "f.png")],
)
def test_options_of_data_sets_need_one(toy, option, capsys):
    words = ["detector", "--config-file", str(toy / "sact.yaml"), *option]
    assert error_line(capsys, load_tool("benchmark").main, words) == f"{option[0]} needs --dataset"
    assert (
        error_line(capsys, load_tool("benchmark").main, ["extractor", "--dataset", "toy"])
        == "--dataset is for detector, not for extractor"
    )


@pytest.mark.parametrize(
    "kind, rows", [("fpn", ["plain, 20 proposals", "plain, 6 proposals"]), ("retinanet", ["plain"])]
)
def test_detectors_on_a_pyramid_take_part(tmp_path, kind, rows):
    files, given = write_coco_folder(tmp_path, num_images=2), []
    for name, halting in (("plain", "none"), ("sact", "sact")):
        (tmp_path / f"{name}.yaml").write_text(
            f'_BASE_: "{TINY.parent}/tiny_{kind}.yaml"\nMODEL: {{SACT: {{HALTING: "{halting}"}}}}\n'
            f'DATASETS: {{COCO_FORMAT: [["toy", "{files[0]}", "{files[1]}"]], TEST: ["toy"]}}\n'
        )
        given.append(
            (
                str(tmp_path / f"{name}.yaml"),
                write_random_detector(tmp_path / f"{name}.pth", str(tmp_path / f"{name}.yaml")),
            )
        )
    (plain, plain_weights), (sact, weights) = given
    out = tmp_path / "numbers.json"
    few = ["--proposals", "6", "--scales", "1", "--rivals", "folded", "--rounds", "1", "--max-images", "1", *FAST]
    main = ["--config-file", sact, "MODEL.WEIGHTS", weights, "--dataset", "toy", "--plain", plain, plain_weights]
    load_tool("benchmark").main(["detector", *few, *main, "plain", "--json", str(out)])
    (table,) = json.loads(out.read_text())["tables"]
    assert [row["name"] for row in table["rows"]] == [*rows, "sact"] and table["finished"]
    for row in table["rows"]:
        assert row["programs"] in ("auto", "folded") and all(map(all, (lap.values() for lap in row["parts"][0])))
    assert any("Rivals' extractor and pyramid at 1x3x" in line for line in table["remarks"])
