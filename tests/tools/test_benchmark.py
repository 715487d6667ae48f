import copy
import json
import math
import sys
from dataclasses import asdict, replace

import pytest
import torch
from command_lines import load_tool
from small_networks import images, randomize

from sact_det.base.errors import InputError
from sact_det.benchmark import measures, memory
from sact_det.benchmark import rivals as rivals_module
from sact_det.benchmark.masks import prescribed_flops
from sact_det.benchmark.networks import AdaptivePart, PartSettings, dense_part, folded
from sact_det.benchmark.parts import Disagreement, measure_part
from sact_det.benchmark.report import Entry, MemoryTable, Table
from sact_det.benchmark.setting import Setting, relative_difference
from sact_det.benchmark.timing import Candidate, Spread, interleaved_times
from sact_det.benchmark.unit import coherent_mask
from sact_det.execution import set_execution
from sact_det.execution.cpu import library
from sact_det.network.halting_rule import HALTING_RULES
from sact_det.network.resnet_v2 import ResNetV2Spec

TINY = ("--units", "1", "2", "6", "1", "--base-channels", "8", "--rounds", "1", "--warmup", "0", "--quiet")
SPEC = ResNetV2Spec(units=(3, 4, 9, 1), base_channels=8, halting="sact")


@pytest.fixture
def tool():
    threads = torch.get_num_threads()
    yield load_tool("benchmark")
    assert torch.get_num_threads() == threads, "the benchmark leaves the number of threads as it was"


def build(spec=SPEC):
    """The extractor of a network whose features and halting scores vary."""
    part = PartSettings(spec).build()
    randomize(part.stem, images(2, 48, 64))
    with torch.no_grad():
        x = part.stem(images(2, 48, 64))
        for block in part.blocks:
            x, _ = randomize(block, x)(x)
    return part


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("wanted", [0.4, 0.6, 0.85, 1.0])
def test_masks_reach_the_wanted_share_of_flops(wanted, batch):
    part = PartSettings(ResNetV2Spec(units=(3, 4, 23, 3), base_channels=16)).build()
    depths, reached = part.depths_for_ratio((batch, 3, 300, 400), wanted, seed=1)
    assert abs(reached - wanted) < 0.02 * wanted
    assert reached == part.flops((batch, 3, 300, 400), depths) / part.dense_flops((batch, 3, 300, 400))
    assert all(depth.min() >= 1 and depth.max() <= len(block.units) for depth, block in zip(depths, part.blocks))


def test_flops_from_masks_are_those_that_the_network_counts():
    part, x = build(), images(2, 75, 99)
    depths, _ = part.depths_for_ratio(x.shape, 0.75, seed=3)
    part.prescribe(depths)
    with torch.no_grad():
        _, ponders = part(x)
    assert [ponder.num_units.equal(depth) for ponder, depth in zip(ponders, depths)] == [True] * 3
    counted = part.stem_flops(x.shape) + sum(int(ponder.flops.sum()) for ponder in ponders)
    assert counted == part.flops(x.shape, depths)


def test_dense_flops_are_those_of_a_plain_network():
    part, x = build(), images(2, 75, 99)
    spec = replace(SPEC, halting="none")
    y, total = part.stem(x), part.stem_flops(x.shape)
    for block in (spec.build_block(index).eval() for index in (1, 2, 3)):
        y, ponder = block(y)
        total += int(ponder.flops.sum())
    assert total == part.dense_flops(x.shape)
    with pytest.raises(ValueError, match="must halt by 'sact'"):
        PartSettings(spec).build()


def test_less_than_one_unit_per_block_is_out_of_reach_and_the_least_is_named():
    part = build()
    least = part.least_ratio((1, 3, 75, 99))
    with pytest.raises(InputError, match=f"takes {math.ceil(1000 * least) / 1000:g}$"):
        part.depths_for_ratio((1, 3, 75, 99), 0.9 * least, seed=0)
    assert part.depths_for_ratio((1, 3, 75, 99), least, seed=0)[1] == pytest.approx(least, rel=0.05)


@pytest.mark.parametrize("execution", ["dense", "perforated", "auto"])
def test_prescribed_halting_weighs_the_states_as_halting_does(execution):
    part, x = build(), images(2, 75, 99)
    block = part.blocks[2]
    set_execution(block, execution)
    with torch.no_grad():
        state = part.blocks[1](part.blocks[0](part.stem(x))[0])[0]
        depths = torch.randint(1, 10, (2, 5, 7), generator=torch.Generator().manual_seed(0))
        block.prescribe(depths)
        features, ponder = block(state)
        expected, y = 0, state
        for index, unit in enumerate(block.units):
            y = unit(y, None if index == 0 else (depths > index)[:, None])
            before = (1 - block.eps) / (2 * len(block.units))
            weight = torch.where(depths == index + 1, 1 - index * before, before) * (depths > index)
            expected = expected + weight[:, None] * y
    assert relative_difference(features, expected) < 1e-5
    assert ponder.flops.equal(prescribed_flops(block, depths, (10, 13)))


def test_prescribed_scores_leave_the_branches_their_gradients():
    part = PartSettings(ResNetV2Spec(units=(2, 2, 2, 1), base_channels=8, norm="FrozenBN", halting_norm="MovingBN"))
    part = part.build().train()
    x = images(1, 48, 64)
    part.prescribe(part.depths_for_ratio(x.shape, 1.0, seed=0)[0])
    _, ponders = part(x)
    sum(ponder.mean_cost().mean() for ponder in ponders).backward()
    gradients = [block.units[0].halting.local_conv.weight.grad for block in part.blocks]
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_without_prescribed_masks_the_branches_decide():
    part, x = build(), images(1, 75, 99)
    with torch.no_grad():
        own, _ = part(x)
        part.prescribe(part.depths_for_ratio(x.shape, 1.0, seed=0)[0])
        assert not part(x)[0].equal(own)
        part.prescribe(None)
        assert part(x)[0].equal(own)


def test_the_plain_network_of_the_same_weights_folded_or_not_is_the_adaptive_one_at_full_depth():
    part, x = build(), images(1, 75, 99)
    dense = dense_part(part)
    for block in part.blocks:
        block.units[-1].halting, block.rule = None, HALTING_RULES["none"]
    with torch.no_grad():
        features = part(x)[0]
        assert relative_difference(dense(x), features) < 1e-6
        assert relative_difference(folded(dense)(x), features) < 1e-5
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in folded(dense).modules()) == 16


def test_candidates_take_turns_each_round_begins_with_another():
    order = []
    candidates = [Candidate(name, order.append, lambda name=name: name) for name in "abc"]
    times = interleaved_times(candidates, rounds=3, warmup=0)
    assert "".join(order) == "abcbcacab"
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3, "c": 3}
    with pytest.raises(ValueError, match="differ in name"):
        interleaved_times([candidates[0]] * 2, rounds=1)


def given_table():
    entries = [Entry("slow", True), Entry("fast", True), Entry("SACT", False, flop_ratio=0.5, wanted_ratio=0.5)]
    times = {"slow": [4.0, 4.0, 4.0], "fast": [2.0, 4.0, 1.0], "SACT": [1.5, 2.0, 0.6]}
    return Table("Extractor", (1, 3, 8, 8), 10**9, entries, times, {"OpenVINO": "not installed"})


def test_ratios_are_to_the_fastest_rival_of_the_same_round():
    values = given_table().values()
    assert values["dense"] == "fast"  # medians 4, 2
    slow, fast, own = values["rows"]
    assert fast["time_ratio"]["median"] == 1 and slow["time_ratio"]["median"] == 2  # of 2, 1, 4
    assert own["time_ratio"]["median"] == pytest.approx(0.6)  # of 0.75, 0.5, 0.6; the medians' ratio is 0.75
    assert own["time_over_flops"] == pytest.approx(1.2)
    assert own["ms"] == {"median": 1500, "lower": 1050, "upper": 1750}
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)


def test_the_table_names_the_dense_time_and_who_is_absent():
    lines = given_table().markdown().splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("|")][2:] == ["slow", "**fast**", "SACT"]
    assert lines[-1] == "OpenVINO: not installed."
    row = [cell.strip() for cell in next(line for line in lines if "SACT" in line).split("|")[1:-1]]
    assert row == ["SACT", "0.500", "1500.0", "1050.0-1750.0", "0.600", "1.200"]


def test_memory_is_compared_without_what_the_libraries_take():
    peaks = {
        "eager": {"empty": 100, "before": 150, "peak": 300},
        "other": {"empty": 10, "before": 200, "peak": 250},
        "SACT": {"empty": 100, "before": 150, "peak": 250},
    }
    table = MemoryTable("Peak", (1, 3, 8, 8), peaks, ["eager", "other"])
    assert table.dense == "eager" and "0.750 |" in table.markdown()


def test_an_execution_that_computes_something_else_is_not_timed(monkeypatch):
    part, x = build(), images(1, 48, 64)
    forward = AdaptivePart.forward

    def off(self, x):
        features, ponders = forward(self, x)
        return features * (1.01 if getattr(self.blocks[0].plan, "auto", False) else 1), ponders

    monkeypatch.setattr(AdaptivePart, "forward", off)
    with pytest.raises(Disagreement, match=r"SACT 1, auto: features are off by 1\.0e-02"):
        measure_part("", part, [x], [1.0], Setting(rounds=1, warmup=0))


def test_a_rival_that_computes_something_else_or_is_not_installed_is_named(monkeypatch):
    def wrong(part, x, setting):
        part = copy.deepcopy(part)
        part.stem.conv.bias.data += 0.1
        return rivals_module.eager(part, x, setting)

    monkeypatch.setitem(rivals_module.RIVALS, "folded", wrong)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    names = ["eager", "folded", "onnxruntime"]
    part, x = dense_part(build()), images(1, 48, 64)
    found, differences, absent = rivals_module.build_rivals(part, x, Setting(), names)
    assert [rival.name for rival in found] == ["eager"] == list(differences)
    assert absent["folded"].startswith("computes something else") and absent["onnxruntime"].startswith("not installed")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_installed_rivals_agree_with_pytorch(name):
    pytest.importorskip("onnx")
    pytest.importorskip(name)
    found, differences, absent = rivals_module.build_rivals(dense_part(build()), images(1, 75, 99), Setting(), [name])
    assert [rival.name for rival in found] == [name] and differences[name] < 1e-4 and not absent


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_active_share_of_a_unit_is_met(share):
    settings = PartSettings(SPEC, block=3)
    x = torch.zeros(settings.input_shape(2, (300, 400)))
    mask = coherent_mask(settings.build(), x, share, seed=0)
    assert mask.shape == (2, 19, 25) and mask.flatten(1).sum(1).tolist() == [round(share * 475)] * 2


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


def test_networks_that_take_no_memory_have_no_ratio():
    peaks = {"eager": {"empty": 5, "before": 5, "peak": 5}, "SACT 1, auto": {"empty": 5, "before": 5, "peak": 7}}
    rows = MemoryTable("Peak memory", (1, 3, 4, 4), peaks, ["eager"]).markdown().splitlines()[-2:]
    assert [row.split("|")[-2].strip() for row in rows] == ["", ""]


def test_a_child_measures_the_features_and_its_failure_is_reported():
    spec = asdict(ResNetV2Spec(units=(1, 1, 1, 1), base_channels=4))
    job = memory.Job(spec, size=(600, 800), batch=1, training=False, rival="eager")
    peak = memory.run_child("eager", job, Setting())
    image_and_root = 4 * (3 * 600 * 800 + 64 * 300 * 400)
    assert image_and_root < peak["peak"] - peak["empty"] < 10 * image_and_root
    with pytest.raises(RuntimeError, match=r"magic: the process(.|\n)*KeyError: 'magic'"):
        memory.run_child("magic", replace(job, rival="magic"), Setting())


@pytest.mark.parametrize("name", ["folded, NCHW", "folded", "onnxruntime", "openvino"])
def test_the_box_head_of_rivals_is_the_plain_one_whatever_runs_it(name, monkeypatch):
    pytest.importorskip("detectron2")
    if name in ("onnxruntime", "openvino"):
        pytest.importorskip("onnx")
        pytest.importorskip(name)
    from sact_det.benchmark import dense_head
    from sact_det.detection.roi_heads import Block4Head

    head = Block4Head(ResNetV2Spec(units=(1, 1, 1, 3), base_channels=8, halting="none")).eval()
    regions = images(6, 14, 14, channels=8 * 16)
    randomize(head, regions)
    monkeypatch.setattr(dense_head, "HEADS", {name: dense_head.HEADS[name]})
    rival = dense_head.DenseHead(head, Setting())
    with torch.no_grad():
        for number in (6, 6, 5, 0):  # the first call with so many chooses
            torch.testing.assert_close(rival(regions[:number]), head(regions[:number]), rtol=1e-4, atol=1e-5)
    assert [remark.split(": ")[1].split(" (")[0] for remark in rival.remarks] == [name] * 2


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
            for row in rows.values():
                parts = [row["parts_ms"][name]["median"] for name in ("extractor", "proposals", "box head")]
                assert all(parts) and sum(parts) <= row["ms"]["median"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["extractor", "--rounds", "0"], "--rounds must be positive; got 0"),
        (["extractor", "--ratios", "1.5"], "--ratios must lie in (0, 1]; got 1.5"),
        (["extractor", "--device", "tpu9"], "--device must be cpu, cuda or cuda:N; got 'tpu9'"),
        (["extractor", "--precision", "tf32"], "--precision tf32 is for GPUs"),
        (["extractor", "--images", "photos"], "--images needs --config-file: the masks are those of a trained network"),
        (["detector"], "detector needs --config-file"),
        (["sweep", "--config-file", "c.yaml"], "--config-file and --images are for detector and extractor, not for"),
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
