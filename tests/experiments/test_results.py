"""From OUTPUT_DIRs of real trainings to a json, a table and figures: what they show is what the runs say."""

import json
import math
import shutil
import statistics
from pathlib import Path

import pytest
import torch
import yaml
from command_lines import ROOT, load_tool
from labelled_folders import write_class_folders

from sact_det.base.files import file_sha256
from sact_det.experiments.plots import draw_quality, draw_units
from sact_det.experiments.results_file import read_results
from sact_det.experiments.runs import mean_and_deviation, read_run
from sact_det.experiments.table import results_table

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny_classifier.yaml")

pytestmark = pytest.mark.usefixtures("own_loggers")
collector, plotter = load_tool("collect_results"), load_tool("plot_results")


def train(data, output, seed, halting):
    torch.manual_seed(seed)  # of the fresh weights
    arguments = [
        *("--config-file", TINY),
        *("DATASETS.CLASSIFICATION", str([("toy", data)]), "DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "('toy',)"),
        *("MODEL.SACT.HALTING", halting, "SOLVER.MAX_ITER", "21", "SEED", str(seed), "OUTPUT_DIR", str(output)),
    ]
    tool = load_tool("train_net")
    tool.main(tool.parse_args(arguments))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{"plain": [folder], "SACT": [folder of seed 0, of seed 1]}"""
    root = tmp_path_factory.mktemp("runs")
    data = write_class_folders(root / "data", per_class=2)
    wanted = {"plain": ("none", 1), "SACT": ("sact", 2)}
    for name, (halting, seeds) in wanted.items():
        for seed in range(seeds):
            train(data, root / name / str(seed), seed, halting)
    return {name: [str(root / name / str(seed)) for seed in range(seeds)] for name, (_, seeds) in wanted.items()}


@pytest.fixture(scope="module")
def collected(runs, tmp_path_factory):
    """(json file, its content)"""
    path = tmp_path_factory.mktemp("results") / "toy.json"
    rows = [part for name, folders in runs.items() for part in ("--row", name, *reversed(folders))]
    collector.main(["--output", str(path), "--title", "Toy", *rows])
    return path, json.loads(path.read_text())


def read_json(*path):
    return json.loads(Path(*path).read_text())


def test_a_run_is_what_its_folder_says(runs):
    folder = Path(runs["SACT"][1])
    run = read_run(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (run["halting"], run["seed"], run["steps"]) == ("sact", 1, 21)
    assert run["tau"] == config["MODEL"]["SACT"]["TAU"] and run["units"] == config["MODEL"]["SACT"]["UNITS"]
    assert {run["dataset"]: run["results"]} == read_json(folder, "inference/results.json")
    assert run["weights_sha256"] == file_sha256(folder / "model_final.pth")
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    lines = [line for line in lines if "total_loss" in line]
    assert [point["step"] for point in run["course"]] == [line["iteration"] for line in lines] == [19, 20]
    assert [point["block3"] for point in run["course"]] == [line["sact/block3_units"] for line in lines]
    assert run["memory_mb"] == max(line["max_memory_mb"] for line in lines) > 100


def test_runs_stand_in_the_order_of_their_seeds(collected):
    rows = {row["name"]: row for row in collected[1]["rows"]}
    assert [run["seed"] for run in rows["SACT"]["runs"]] == [0, 1]
    assert collected[1]["dataset"] == "toy" and collected[1]["machine"]["cpus"] >= 1


def test_the_table_has_means_and_deviations_over_seeds(runs, tmp_path, capsys):
    rows = [part for name, folders in runs.items() for part in ("--row", name, *folders)]
    collector.main(["--output", str(tmp_path / "toy.json"), "--title", "Toy", *rows])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    table = {line[0]: dict(zip(cells[0], line)) for line in cells[2:]}
    accuracies = [
        100 * read_json(folder, "inference/results.json")["toy"]["classification"]["accuracy"]
        for folder in runs["SACT"]
    ]
    expected = f"{statistics.mean(accuracies):.2f} ± {statistics.stdev(accuracies):.2f}"
    assert table["SACT"]["accuracy (%)"] == expected and table["SACT"]["seeds"] == "2"
    assert "±" not in table["plain"]["accuracy (%)"] and table["plain"]["FLOPs (%)"] == "100.0"
    assert table["plain"]["units per block"] == "1.00, 2.00, 3.00, 2.00"


def test_figures_show_every_run(collected, tmp_path):
    path, results = collected
    plotter.main([str(path), "--output", str(tmp_path / "new")])
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"toy_quality.png", "toy_units.png"}
    quality, units = draw_quality(results), draw_units(results)
    dots = [tuple(dot) for part in quality.axes[0].collections for dot in getattr(part, "get_offsets", list)().tolist()]
    for row in results["rows"]:
        for run in row["runs"]:
            numbers = run["results"]["classification"]
            assert (numbers["flops_percent"], 100 * numbers["accuracy"]) in dots
    assert [axes.get_title() for axes in units.axes] == ["block1", "block2", "block3", "block4"]
    lines = [line.get_ydata().tolist() for line in units.axes[2].lines]
    adaptive = next(row for row in results["rows"] if row["name"] == "SACT")
    assert lines == [[point["block3"] for point in run["course"]] for run in adaptive["runs"]]


def test_the_mean_of_some_classes_is_a_column_and_what_is_drawn(runs, tmp_path, capsys):
    """Results of a published detector in the place of the classifier's own."""
    folder = tmp_path / "detector"
    shutil.copytree(runs["plain"][0], folder)
    published = read_json(ROOT / "docs/results/bccd.json")["rows"][0]["runs"][0]["results"]
    (folder / "inference/results.json").write_text(json.dumps({"bccd_test": published}))
    words = ["--output", str(tmp_path / "out.json"), "--title", "Cells", "--row", "one", str(folder), "--classes"]
    collector.main([*words, "WBC", "RBC"])
    mean = (published["bbox"]["AP-WBC"] + published["bbox"]["AP-RBC"]) / 2
    head, _, cells = (line.split(" | ") for line in capsys.readouterr().out.splitlines())
    assert cells[head.index("AP of the classes")] == f"{mean:.2f}"
    results = read_results(tmp_path / "out.json")
    assert results["classes"] == ["WBC", "RBC"]
    assert draw_quality(results).axes[0].lines[0].get_ydata().tolist() == [pytest.approx(mean)]
    line = refusal(collector, [*words, "cat"], capsys)
    assert "--classes cat: expected one of Platelets, RBC, WBC" in line
    (first,) = runs["plain"]
    assert "--classes: " in refusal(collector, [*words[:4], "--row", "one", first, "--classes", "cat"], capsys)


def test_mean_and_sample_deviation():
    assert mean_and_deviation([1.0, 2.0, 6.0]) == (3.0, statistics.stdev([1, 2, 6]))
    mean, deviation = mean_and_deviation([4.0])
    assert mean == 4.0 and math.isnan(deviation)
    with pytest.raises(ValueError, match="`values`"):
        mean_and_deviation([])


def refusal(tool, arguments, capsys):
    with pytest.raises(SystemExit):
        tool.main(arguments)
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.yaml", "config.yaml: no such file; expected the OUTPUT_DIR of a finished training"),
        ("inference/results.json", "results.json: no such file"),
        ("model_final.pth", "the training is not finished; go on with tools/train_net.py --resume"),
    ],
)
def test_an_unfinished_run_is_refused_and_nothing_written(runs, tmp_path, capsys, missing, message):
    source, copy = Path(runs["plain"][0]), tmp_path / "run"
    for name in {"config.yaml", "metrics.json", "inference/results.json", "model_final.pth"} - {missing}:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((source / name).read_bytes())
    output = tmp_path / "toy.json"
    assert message in refusal(collector, ["--output", str(output), "--title", "", "--row", "a", str(copy)], capsys)
    assert not output.exists()


def test_a_row_without_folder_or_twice_is_refused(runs, tmp_path, capsys):
    start = ["--output", str(tmp_path / "toy.json"), "--title", ""]
    assert "names no folder" in refusal(collector, [*start, "--row", "a"], capsys)
    row = ["--row", "a", runs["plain"][0]]
    assert "every row needs a name of its own" in refusal(collector, [*start, *row, *row], capsys)


def test_what_is_no_result_cannot_be_drawn(tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text("{}")
    assert "x.json: holds no rows" in refusal(plotter, [str(path), "--output", str(tmp_path / "new")], capsys)
    path.write_text("{")
    assert "x.json: not a readable json file" in refusal(plotter, [str(path), "--output", str(tmp_path)], capsys)


def test_of_a_course_with_steps_twice_the_last_points_are_drawn(collected, tmp_path):
    results = json.loads(collected[0].read_text())
    course = results["rows"][0]["runs"][0]["course"]
    superseded = [{**point, "step": step, "block1": 0.0} for point, step in zip(course * 2, (19, 39, 59))]
    results["rows"][0]["runs"][0]["course"] = superseded + course
    path = tmp_path / "doubled.json"
    path.write_text(json.dumps(results))
    assert [point["step"] for point in course] == [19, 20]
    assert read_results(path) == collected[1]


@pytest.mark.parametrize("path", sorted((ROOT / "docs/results").glob("*.json")), ids=lambda path: path.stem)
def test_published_courses_have_every_step_once(path):
    for row in json.loads(path.read_text()).get("rows", []):
        for run in row["runs"]:
            steps = [point["step"] for point in run["course"]]
            assert steps == sorted(set(steps)) and steps[-1] == run["steps"] - 1, run["folder"]


def test_the_whole_detector_has_columns_where_every_run_says_what_it_took():
    rows = read_json(ROOT, "docs/results/bccd.json")["rows"]  # of a version that did not say so
    assert "| ± over images | units per block |" in results_table(rows)
    runs = [run for row in rows for run in row["runs"]]
    for index, run in enumerate(runs):
        run["results"]["ponder"] |= {"detector_flops_percent": 90.0 + index, "regions": 60, "units_per_region": 2.5}
    header, _, first, *_ = results_table(rows).splitlines()
    assert "| ± over images | whole detector (%) | regions | units per region | units per block |" in header
    assert "| 91.0 ± 1.0 | 60.0 ± 0.0 | 2.50 ± 0.00 |" in first
    del runs[-1]["results"]["ponder"]["regions"]
    assert "| whole detector (%) | units per region |" in results_table(rows)


def test_names_of_any_characters_are_cells_of_a_table_and_words_of_a_figure(runs, tmp_path, capsys):
    names = {"SACT": "$\\tau_{ | 日本 \udcff\n", "plain": "x" * 300}
    rows = [part for name, folders in runs.items() for part in ("--row", names[name], *folders)]
    collector.main(["--output", str(tmp_path / "toy.json"), "--title", "100 % of $x$ \udcff", *rows])
    cells = [line.replace("\\|", "").count("|") for line in capsys.readouterr().out.splitlines()]
    assert len(set(cells)) == 1
    assert "$\\tau_{ \\| 日本 ?" in results_table(read_results(tmp_path / "toy.json")["rows"])
    plotter.main([str(tmp_path / "toy.json"), "--output", str(tmp_path)])
    assert (tmp_path / "toy_quality.png").stat().st_size and (tmp_path / "toy_units.png").stat().st_size


def copy_with_results(source, copy, edit):
    for name in ("config.yaml", "metrics.json", "inference/results.json", "model_final.pth"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((Path(source) / name).read_bytes())
    results = read_json(copy, "inference/results.json")
    edit(results["toy"]["classification"])
    (copy / "inference/results.json").write_text(json.dumps(results))
    return str(copy)


def test_what_cannot_stand_in_one_row_is_refused_and_nothing_written(runs, tmp_path, capsys):
    other = copy_with_results(runs["SACT"][0], tmp_path / "run", lambda numbers: numbers.pop("block4_units"))
    arguments = ["--output", str(tmp_path / "toy.json"), "--title", "", "--row", "a"]
    message = refusal(collector, [*arguments, runs["SACT"][1], other], capsys)
    assert "must have the units of the same blocks as rows[0].runs[" in message
    again = f"{Path(other).parent}/./run"
    assert "names a folder twice" in refusal(collector, [*arguments, other, again], capsys)
    assert not (tmp_path / "toy.json").exists()


def test_a_number_that_is_none_is_shown_as_none(runs, tmp_path, capsys):
    run = copy_with_results(runs["SACT"][0], tmp_path / "run", lambda numbers: numbers.update(accuracy=math.nan))
    path = tmp_path / "toy.json"
    collector.main(["--output", str(path), "--title", "", "--row", "a", runs["SACT"][1], run])
    assert "| a | nan | " in capsys.readouterr().out
    assert read_json(path)["rows"][0]["runs"][0]["results"]["classification"]["accuracy"] is None
    plotter.main([str(path), "--output", str(tmp_path)])
