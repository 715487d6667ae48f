"""Tables of times and memory: who sets the dense time, and what is divided by what."""

import pytest

from sact_det.benchmark.report import Entry, MemoryTable, Table
from sact_det.benchmark.timing import Candidate, Spread, interleaved_times


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


def test_networks_that_take_no_memory_have_no_ratio():
    peaks = {"eager": {"empty": 5, "before": 5, "peak": 5}, "SACT 1, auto": {"empty": 5, "before": 5, "peak": 7}}
    rows = MemoryTable("Peak memory", (1, 3, 4, 4), peaks, ["eager"]).markdown().splitlines()[-2:]
    assert [row.split("|")[-2].strip() for row in rows] == ["", ""]
