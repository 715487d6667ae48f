"""The demo's table and commands; the demo itself takes minutes and is `make demo`."""

import json
from pathlib import Path

import pytest
from command_lines import load_tool

import sact_det.detection  # noqa: F401
from sact_det.benchmark.contestants import contestants
from sact_det.data.demo import make_demo_dataset
from sact_det.tasks import load_config

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo():
    return load_tool("demo")


@pytest.fixture
def seconds(demo, tmp_path, monkeypatch):
    """Times as the benchmark writes them: of the plain detector, of it with fewer proposals, of SACT's."""
    row = {"AP": 61.04, "flops_percent": 62.0, "proposals": 25}
    times = [(0.02, 1.0), (0.0131, 0.655), (0.0144, 0.72)]
    rows = [{**row, "s": {"median": s}, "time_ratio": {"median": ratio}} for s, ratio in times]
    monkeypatch.setattr(demo, "SECONDS", tmp_path / "seconds.json")
    demo.SECONDS.write_text(json.dumps({"tables": [{"rows": rows}]}))


def test_the_line_on_fewer_proposals_says_what_the_benchmark_wrote(demo, seconds):
    line = demo.rival_line()
    assert "25 proposals: AP 61.0, 62.0% of the whole's FLOPs, 13.1 ms an image, 65.5% of its time." in line


def test_the_benchmark_of_the_demo_has_a_row_for_each_of_the_three_and_the_plain_one_first(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_demo_dataset(demo.OUTPUT / "data", num_train=1, num_val=1, image_size=demo.IMAGE_SIZE)
    (arguments,) = (arguments for _, arguments in demo.commands() if "benchmark" in arguments[0])
    paths = [str(REPOSITORY / word) if word.endswith(".yaml") else word for word in arguments[1:]]
    benchmark = load_tool("benchmark")
    args = benchmark.parse_arguments(paths)
    benchmark.check_arguments(args)
    benchmark.fill_in(args)
    rows = contestants(args)
    assert [(row.static, row.proposals) for row in rows] == [(True, 50), (True, demo.FEWER_PROPOSALS), (False, 50)]


def test_the_table_shows_what_the_evaluation_wrote(demo, seconds, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "OUTPUT", tmp_path)
    ponder = {
        "flops_percent": 81.82,
        "flops_percent_std": 5.58,
        "detector_flops_percent": 95.27,
        "detector_flops_percent_std": 1.45,
        "cost_inside": 12.0,
        "cost_outside": 8.0,
        "images": 300,
    }
    ponder |= {"block1_units": 1.614, "block2_units": 1.85, "block3_units": 2.93}
    path = tmp_path / "sact/inference/results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"demo_val": {"bbox": {"AP": 64.53, "AP50": 88.58}, "ponder": ponder}}))
    lines = demo.table({"sact": demo.read_results("sact")}).splitlines()
    cells = {line.rsplit("  ", 1)[0].strip(): line.rsplit("  ", 1)[1].strip() for line in lines[1:]}
    assert cells["AP"] == "64.5" and cells["FLOPs (%)"] == "81.8 ± 5.6" and cells["inside / outside"] == "1.500"
    assert cells["ms an image, whole detector"] == "14.4" and cells["of the plain one's time (%)"] == "72.0"
    assert cells["of the whole detector"] == "95.3 ± 1.4"
    assert cells["units in block 1, 2, 3"] == "1.61, 1.85, 2.93"


def test_every_command_names_files_that_exist_and_configs_that_load(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_demo_dataset(demo.OUTPUT / "data", num_train=1, num_val=demo.PICTURES, image_size=demo.IMAGE_SIZE)
    for _, arguments in demo.commands():
        assert (REPOSITORY / arguments[0]).is_file()
        cfg = load_config(str(REPOSITORY / arguments[2]))
        assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 10
        assert demo.IMAGE_SIZE == (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        assert all(Path(argument).is_file() for argument in arguments if argument.endswith(".png"))


def test_plain_and_sact_get_the_same_start_and_the_same_steps():
    plain, sact = (
        load_config(str(REPOSITORY / f"configs/demo/{n}.yaml"), ["DATASETS.COCO_FORMAT", "[]"])
        for n in ("plain", "sact")
    )
    assert plain.MODEL.WEIGHTS == sact.MODEL.WEIGHTS and plain.SOLVER == sact.SOLVER and plain.INPUT == sact.INPUT
    assert (plain.MODEL.SACT.HALTING, sact.MODEL.SACT.HALTING) == ("none", "sact")


def test_the_saliency_step_is_one_that_the_tool_takes_and_calls_its_fixations_synthetic(demo):
    (arguments,) = (arguments for _, arguments in demo.commands() if "saliency" in arguments[0])
    tool = load_tool("evaluate_saliency")
    args = tool.parse_arguments(arguments[1:])
    tool.check_arguments(args)
    assert tool.make_settings(args).density_sigma < max(demo.IMAGE_SIZE) / 10 and "SYNTHETIC" in args.title
    assert "synthetic" in args.dataset and "synthetic" in args.output and args.dataset == str(demo.FIXATIONS)


def test_the_line_on_saliency_says_what_the_evaluation_wrote_and_that_nobody_looked(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "OUTPUT", tmp_path)
    scores = {"stretched": 0.61, "ponder map": 0.8375, "blurred": 0.85, "with centre": 0.9}
    rows = [{"map": name, "overall": {"auc_judd": {"mean": score}}} for name, score in scores.items()]
    (tmp_path / "synthetic_saliency").mkdir()
    (tmp_path / "synthetic_saliency/results.json").write_text(json.dumps({"scored_images": 40, "rows": rows}))
    line = demo.saliency_line()
    assert "on 40 images with SYNTHETIC fixations: centre baseline 0.610, ponder map 0.838, " in line
    assert "blurred and with centre 0.900." in line and "nothing about people" in line


def test_the_data_set_can_be_made_alone(demo, monkeypatch):
    made = []
    monkeypatch.setattr(demo, "make_data", lambda: made.append("data"))
    monkeypatch.setattr(demo, "demo", lambda: made.append("demo"))
    monkeypatch.chdir(REPOSITORY)
    demo.main(["--data-only"])
    assert made == ["data"]


def test_the_start_is_not_evaluated_and_the_last_stage_is_the_report(demo, monkeypatch):
    assert load_config(str(REPOSITORY / "configs/demo/start.yaml"), ["DATASETS.COCO_FORMAT", "[]"]).DATASETS.TEST == ()
    tool = load_tool("report")
    args = tool.parse_arguments(demo.report_command()[1:])
    assert args.inputs == [str(demo.OUTPUT)] and args.output.endswith("report.html")
    monkeypatch.chdir(REPOSITORY)
    assert [demo.steps_of(arguments) for _, arguments in demo.commands()[:4]] == [500, 260, 260, None]


def test_the_demo_runs_its_stages_in_order_and_ends_with_the_address_of_its_report(demo, tmp_path, monkeypatch, capsys):
    stages = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "run_stage", lambda what, arguments, log, steps: stages.append((what, arguments[0], log)))
    monkeypatch.setattr(demo, "steps_of", lambda arguments: None)
    monkeypatch.setattr(demo, "read_results", lambda model: {"images": 300})
    for line in ("table", "rival_line", "saliency_line"):
        monkeypatch.setattr(demo, line, lambda *results, line=line: line)
    demo.demo()
    whats, tools, logs = zip(*stages)
    assert whats[0] == "[1/8] digits on photographs" and whats[-1] == "[8/8] all of it on one page"
    assert tools[0] == "tools/demo.py" and tools[-1] == "tools/report.py" and len(set(logs)) == 8
    by_hand = (tmp_path / demo.OUTPUT / "commands.sh").read_text().splitlines()
    assert [line.split()[1] for line in by_hand] == list(tools)
    address = (tmp_path / demo.REPORT).as_uri()
    assert capsys.readouterr().out.splitlines()[-1] == f"Open the report in a browser: {address}"
