import json
from dataclasses import asdict, replace

import pytest
import torch
from command_lines import load_tool

from sact_det.benchmark import measures, memory
from sact_det.benchmark.setting import Setting
from sact_det.execution.cpu import library
from sact_det.network.resnet_v2 import ResNetV2Spec

TINY = ("--units", "1", "2", "6", "1", "--base-channels", "8", "--rounds", "1", "--warmup", "0", "--quiet")


@pytest.fixture
def tool():
    threads = torch.get_num_threads()
    yield load_tool("benchmark")
    assert torch.get_num_threads() == threads, "the benchmark leaves the number of threads as it was"


@pytest.mark.parametrize("measure", ["extractor", "block", "unit", "training"])
def test_every_measure_writes_all_that_it_measured(tool, measure, tmp_path, capsys):
    ratios = ("--ratios", "1.0") if measure != "unit" else ("--ratios", "0.5")
    rivals = ("--rivals", "eager", "channels-last")
    out = tmp_path / "new" / "numbers.json"
    tool.main([measure, *TINY, *ratios, *rivals, "--sizes", "32x32", "--threads", "1", "--json", str(out)])
    written = json.loads(out.read_text())
    assert written["arguments"]["seed"] == 0 and written["machine"]["threads"] == 1
    assert written["machine"]["versions"]["torch"] == torch.__version__.split("+")[0] and written["machine"]["date"]
    (table,) = written["tables"]
    rows = {row["name"]: row for row in table["rows"]}
    assert len(rows) == 5 and {row["execution"] for row in rows.values()} == {None, "dense", "perforated", "auto"}
    assert table["dense"] in ("eager", "channels-last") and table["dense_gflop"] > 0
    for row in rows.values():
        assert len(row["times_ms"]) == 1 and row["times_ms"][0] > 0 and row["difference"] < 1e-3
        ratio = row["times_ms"][0] / rows[table["dense"]]["times_ms"][0]
        assert row["time_ratio"]["median"] == pytest.approx(ratio)
        assert row["time_over_flops"] == pytest.approx(ratio / row["flop_ratio"])
    assert table["title"] in capsys.readouterr().out


MEMORY = ("memory", *TINY, "--ratios", "1.0", "--rivals", "eager", "--executions", "perforated", "--sizes", "64x64")


def test_memory_is_measured_of_inference_and_training(tool, tmp_path, monkeypatch):
    # In this process, for speed, whose memory others take and return, too; a child is measured two tests further on.
    monkeypatch.setattr(memory, "run_child", lambda name, job, setting: memory.measure(job))
    tool.main([*MEMORY, "--json", str(tmp_path / "numbers.json")])
    inference, training = json.loads((tmp_path / "numbers.json").read_text())["tables"]
    assert "training step" in training["title"]
    released = [] if library.why_unavailable() else ["SACT 1, perforated, weights released"]
    for table, more in ((inference, released), (training, [])):
        assert [row["name"] for row in table["rows"]] == ["eager", "SACT 1, perforated", *more]
        assert table["dense"] == "eager"
        assert all(row[kind] > 2**20 for row in table["rows"] for kind in ("empty", "before", "peak"))


def test_a_child_measures_the_features_and_its_failure_is_reported():
    spec = asdict(ResNetV2Spec(units=(1, 1, 1, 1), base_channels=4))
    job = memory.Job(spec, size=(600, 800), batch=1, training=False, rival="eager")
    peak = memory.run_child("eager", job, Setting())
    image_and_root = 4 * (3 * 600 * 800 + 64 * 300 * 400)
    assert image_and_root < peak["peak"] - peak["empty"] < 10 * image_and_root
    with pytest.raises(RuntimeError, match=r"magic: the process(.|\n)*KeyError: 'magic'"):
        memory.run_child("magic", replace(job, rival="magic"), Setting())


def test_detectors_and_trained_masks(tool, tmp_path):
    pytest.importorskip("detectron2")
    import numpy as np
    from PIL import Image
    from random_detector import write_random_detector

    config = "configs/tests/tiny.yaml"
    weights = write_random_detector(tmp_path / "weights.pth", config)
    noise = np.random.default_rng(0).integers(0, 255, (2, 70, 90, 3), dtype=np.uint8)
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    given = ("--config-file", config, "--images", str(tmp_path), "--sizes", "64x96", "--rivals", "eager")
    for measure in ("detector", "extractor"):
        out = tmp_path / f"{measure}.json"
        tool.main([measure, "MODEL.WEIGHTS", weights, *given, "--rounds", "1", "--warmup", "0", "--json", str(out)])
        (table,) = json.loads(out.read_text())["tables"]
        rows = {row["name"]: row for row in table["rows"]}
        assert list(rows) == ["eager", "SACT, dense", "SACT, perforated", "SACT, auto"] and table["inputs"] == 2
        assert rows["SACT, dense"]["flop_ratio"] == rows["SACT, perforated"]["flop_ratio"] != 1
        if measure == "detector":
            assert table["remarks"] and all(line.startswith("Rivals' block 4") for line in table["remarks"])
            assert {row["regions"] for row in rows.values()} == {rows["eager"]["regions"]} != {0}
            assert rows["eager"]["detector_flop_ratio"] == 1 != rows["SACT, dense"]["detector_flop_ratio"]
            for row in rows.values():
                parts = [row["parts_ms"][name]["median"] for name in ("extractor", "proposals", "box head")]
                assert all(parts) and sum(parts) <= row["ms"]["median"]


def test_detectors_with_prescribed_masks_work_on_the_same_regions(tool, tmp_path):
    pytest.importorskip("detectron2")
    out = tmp_path / "detector.json"
    given = ("--config-file", "configs/tests/tiny.yaml", "--sizes", "64x96", "--rivals", "eager", "--ratios", "0.95")
    tool.main(["detector", *given, "--regions", "7", "--rounds", "1", "--warmup", "0", "--json", str(out)])
    (table,) = json.loads(out.read_text())["tables"]
    assert [row["regions"] for row in table["rows"]] == [7] * 4
    adaptive = [row for row in table["rows"] if not row["rival"]]
    assert len({row["detector_flop_ratio"] for row in adaptive}) == 1
    assert all(
        row["time_over_flops"] == pytest.approx(row["time_ratio"]["median"] / row["detector_flop_ratio"])
        for row in adaptive
    )


@pytest.mark.parametrize(
    "file, parts",
    [
        ("tiny_fpn.yaml", ["extractor + FPN", "proposals", "box head"]),
        ("tiny_retinanet.yaml", ["extractor + FPN + head", "boxes"]),
    ],
)
def test_rivals_run_a_pyramid_and_a_dense_head_as_one_network(tool, tmp_path, file, parts):
    pytest.importorskip("detectron2")
    out, prescribed = tmp_path / "detector.json", ["MODEL.SACT.HALTING", "sact", "MODEL.SACT.UNITS", "(2, 1, 6, 2)"]
    given = ("--config-file", f"configs/tests/{file}", *prescribed, "--sizes", "70x96", "--executions", "dense", "auto")
    rivals = ("--rivals", "eager", "channels-last", "folded")
    tool.main(["detector", *given, *rivals, "--ratios", "1", "--rounds", "1", "--warmup", "0", "--json", str(out)])
    (table,) = json.loads(out.read_text())["tables"]
    assert table["input_shape"] == [1, 3, 96, 96] and not table["remarks"] and not table["absent"]
    rows = {row["name"]: row for row in table["rows"]}
    assert list(rows) == [*rivals[1:], "SACT 1, dense", "SACT 1, auto"]
    for row in rows.values():
        assert row["difference"] < 1e-4
        # Halting branches count, too: a few positions halt, so that they and the units are what the dense units are.
        assert abs(row["detector_flop_ratio"] - 1) <= abs(row["flop_ratio"] - 1) < 1e-3
        assert (row["flop_ratio"] == 1) == row["rival"]
        assert row["regions"] == (300 if "box head" in parts else 0) and list(row["parts_ms"]) == parts
        taken = [own["median"] for own in row["parts_ms"].values()]
        assert all(taken) and sum(taken) <= row["ms"]["median"]


def test_a_box_head_is_timed_in_two_parts(tool, tmp_path):
    pytest.importorskip("detectron2")
    out = tmp_path / "regions.json"
    given = ("--units", "1", "1", "1", "3", "--base-channels", "8", "--sizes", "96x128", "--rivals", "folded")
    tool.main(["regions", *given, "--regions", "9", "--rounds", "2", "--ratios", "0.7", "--json", str(out)])
    (table,) = json.loads(out.read_text())["tables"]
    assert table["input_shape"] == [9, 128, 14, 14]
    rows = {row["name"]: row for row in table["rows"]}
    assert set(rows) == {"folded", "folded, NCHW", "SACT 0.7, auto"}
    assert rows["SACT 0.7, auto"]["flop_ratio"] == pytest.approx(0.7, abs=0.02)
    for row in rows.values():
        assert row["difference"] < 1e-4
        assert set(row["parts_ms"]) == {"RoIAlign", "block 4"} and len(row["times_ms"]) == 2


def test_a_box_head_with_products_on_the_map_is_timed_in_three_parts(tool, tmp_path):
    pytest.importorskip("detectron2")
    out = tmp_path / "regions.json"
    given = ("--units", "1", "1", "1", "3", "--base-channels", "8", "--sizes", "96x128", "--rivals", "none")
    asked = ("--regions", "9", "--rounds", "1", "--ratios", "1", "--map-products", "--json", str(out))
    tool.main(["regions", *given, *asked])
    (table,) = json.loads(out.read_text())["tables"]
    usual, on_map = table["rows"]
    assert on_map["name"] == "SACT 1, auto, products on the map" and on_map["difference"] < 1e-4
    assert set(on_map["parts_ms"]) == {"products on the map", "RoIAlign", "block 4"}
    saved = 2 * 128 * (9 * (64 * 14 * 14 + 256 * 7 * 7) - 320 * 6 * 8)
    assert usual["flop_ratio"] - on_map["flop_ratio"] == pytest.approx(saved / table["dense_gflop"] / 1e9)


def test_the_convolution_of_the_rpn_is_timed_at_either_width(tool, tmp_path):
    pytest.importorskip("detectron2")
    out = tmp_path / "rpn.json"
    given = ("--base-channels", "8", "--sizes", "96x128", "--rounds", "2", "--json", str(out))
    tool.main(["rpn", *given])
    tables = json.loads(out.read_text())["tables"]
    assert [table["input_shape"] for table in tables] == [[1, 128, 6, 8]] * 2
    assert [table["dense_gflop"] * 1e9 for table in tables] == [6 * 8 * 2 * 9 * 128 * width for width in (128, 32)]
    for table in tables:
        assert [row["name"] for row in table["rows"]] == ["PyTorch, NCHW", "PyTorch, NHWC", "RPN, auto"]
        assert all(row["difference"] < 1e-4 and len(row["times_ms"]) == 2 for row in table["rows"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["extractor", "--rounds", "0"], "--rounds must be positive; got 0"),
        (["extractor", "--ratios", "1.5"], "--ratios must lie in (0, 1]; got 1.5"),
        (["extractor", "--device", "tpu9"], "--device must be cpu, cuda or cuda:N; got 'tpu9'"),
        (["extractor", "--precision", "tf32"], "--precision tf32 is for GPUs"),
        (["extractor", "--images", "photos"], "--images needs --config-file: the masks are those of a trained network"),
        (["detector"], "detector needs --config-file"),
        (
            ["detector", "--regions", "-1"],
            "--regions is for detector, 0 or more boxes, and regions, 1 or more; got -1 for detector",
        ),
        (
            ["extractor", "--regions", "9"],
            "--regions is for detector, 0 or more boxes, and regions, 1 or more; got 9 for extractor",
        ),
        (["rpn", "--map-products"], "--map-products is for regions, not for rpn"),
        (["regions", "--regions", "0"], "--regions is for detector, 0 or more boxes, and regions, 1 or more; got 0"),
        (["sweep", "--config-file", "c.yaml"], "--config-file and --images are for trained networks, not for"),
        (["unit", "--units", "1", "2", "2", "1"], "unit needs a block of at least 3 units; block 3 has fewer"),
        (["block", *TINY, "--ratios", "0.01", "--sizes", "32x32"], "a FLOP ratio of 0.01 is out of reach"),
        (["extractor", *TINY, "--json", "/proc/nowhere/numbers.json"], "/proc/nowhere"),
    ],
)
def test_arguments_that_cannot_be_used_are_one_clear_line(tool, arguments, line, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments)
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extractor", "--no-such"], "unrecognized arguments: --no-such"),
        (["extractor", "KEY", "VALUE"], "unrecognized arguments: KEY VALUE"),
        (["extractor", "MODEL.WEIGHTS", "w"], "config overrides need --config-file; got MODEL.WEIGHTS w"),
        (["extractor", "--rivals", "magic"], "invalid choice: 'magic'"),
        (["extractor", "--sizes", "600"], "'600' is no HEIGHTxWIDTH in pixels, such as 600x800"),
        (["nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_unknown_arguments_are_named_in_the_last_line(tool, arguments, said, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err.rstrip().splitlines()[-1]


@pytest.mark.parametrize(
    ("end", "code"), [(KeyboardInterrupt(), 130), (RuntimeError("a kernel failed"), 1), (MemoryError(), 1)], ids=repr
)
@pytest.mark.parametrize("finished", [0, 1])
def test_what_ends_a_run_costs_no_finished_table(tool, tmp_path, capsys, monkeypatch, end, code, finished):
    measure, begun = measures.measure_part, []

    def measure_until(title, *arguments):
        begun.append(title)
        if len(begun) > finished:
            raise end
        return measure(title, *arguments)

    monkeypatch.setattr(measures, "measure_part", measure_until)
    out = tmp_path / "numbers.json"
    given = ["--ratios", "1.0", "--rivals", "eager", "--executions", "dense", "--sizes", "32x32", "64x32"]
    with pytest.raises(SystemExit) as stop:
        tool.main(["extractor", *TINY, *given, "--json", str(out)])
    said = capsys.readouterr().err
    assert stop.value.code == code and "Traceback" not in said
    assert out.exists() == bool(finished)
    if isinstance(end, MemoryError):
        assert "error: out of memory: lower --sizes 32x32 64x32 or --batch 1 (" in said
    if finished:
        (table,) = json.loads(out.read_text())["tables"]
        assert table["title"] == begun[0] and table["rows"]
