"""Config files and those that they build on: read as data, in order, and named when they cannot be read."""

import os
import time

import pytest
import yaml

from sact_det.base.errors import InputError
from sact_det.engine.config_file import read_config_files
from sact_det.engine.setup import merge_config


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes config files by their names into the working folder."""
    monkeypatch.chdir(tmp_path)

    def write_files(**contents):
        for name, content in contents.items():
            path = tmp_path / f"{name}.yaml"
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))

    return write_files


def refusal(name="a.yaml"):
    with pytest.raises(InputError) as caught:
        merge_config(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_counts_over_its_bases_and_later_bases_over_earlier_ones(write):
    write(
        bottom={"SEED": 1, "OUTPUT_DIR": "bottom", "SOLVER": {"MAX_ITER": 1, "STEPS": [1], "GAMMA": 0.5}},
        left={"_BASE_": "bottom.yaml", "OUTPUT_DIR": "left", "SOLVER": {"MAX_ITER": 2}},
        right={"_BASE_": "bottom.yaml", "SOLVER": {"STEPS": [7]}},
        a={"_BASE_": ["left.yaml", "right.yaml"], "SEED": 3},
    )
    cfg = merge_config("a.yaml")
    # As Detectron2 has it: the right base brings what it builds on along, over the left one.
    reference = type(cfg).load_yaml_with_base("a.yaml")
    assert (cfg.SEED, cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (3, "bottom", 1, (7,))
    assert (reference["SEED"], reference["OUTPUT_DIR"], reference["SOLVER"]["MAX_ITER"]) == (3, "bottom", 1)


def test_bases_are_found_beside_the_file_from_the_root_and_from_home(write, tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    write(b={"SEED": 5})
    monkeypatch.setenv("HOME", str(tmp_path))
    for base in ("../b.yaml", str(tmp_path / "b.yaml"), "~/b.yaml"):
        (tmp_path / "deep/a.yaml").write_text(f"_BASE_: {base}")
        assert merge_config("deep/a.yaml").SEED == 5, base


@pytest.mark.parametrize(
    ("files", "ring"),
    [
        ({"a": "a.yaml"}, "a.yaml -> a.yaml"),
        ({"a": "./a.yaml"}, "a.yaml -> ./a.yaml"),
        ({"a": "b.yaml", "b": "a.yaml"}, "a.yaml -> b.yaml -> a.yaml"),
        ({"a": "b.yaml", "b": "c.yaml", "c": "b.yaml"}, "b.yaml -> c.yaml -> b.yaml"),
    ],
)
def test_a_ring_of_bases_is_shown(write, files, ring):
    write(**{name: {"_BASE_": base} for name, base in files.items()})
    assert refusal() == f"{ring.split()[0]}: builds on itself (_BASE_): {ring}"


def test_a_ring_through_a_link_is_one(write, tmp_path):
    write(a="_BASE_: b.yaml")
    os.symlink(tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert "a.yaml -> b.yaml" in refusal()


def test_bases_that_multiply_are_not_followed_for_ever(write):
    write(**{f"f{n}": {"_BASE_": [f"f{n + 1}.yaml"] * 2} for n in range(40)}, f40={"SEED": 1})
    start = time.perf_counter()
    assert refusal("f0.yaml") == "f0.yaml: builds on more than 100 files (_BASE_)"
    assert time.perf_counter() - start < 5


def test_a_chain_of_bases_has_an_end(write):
    write(**{f"f{n}": {"_BASE_": f"f{n + 1}.yaml"} for n in range(2000)}, f2000={"SEED": 1})
    assert refusal("f0.yaml") == "f0.yaml: builds on more than 100 files (_BASE_)"
    assert merge_config("f1950.yaml").SEED == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.yaml: not a config; expected keys and values in yaml, it is empty"),
        ("- 1", "a.yaml: not a config; expected keys and values in yaml, it holds a list"),
        ("words", "a.yaml: not a config; expected keys and values in yaml, it holds a str"),
        ("SEED: [1", "a.yaml: not a readable yaml file: line 1, column 9: expected ',' or ']'"),
        ("SEED: 1\n\tX: 2", "a.yaml: not a readable yaml file: line 2, column 1: found character '\\t'"),
        (b"\x80\x02}q\x00.", "a.yaml: not a readable yaml file: it is binary"),
        (b"SEED: \xff", "a.yaml: not a readable yaml file: byte 0xff in line 1 is not UTF-8"),
        ("SEED: 1".encode("utf-16"), "a.yaml: not a readable yaml file: it is in UTF-16"),
        ("SEED: " + "[" * 5000, "a.yaml: not a readable yaml file: it is nested too deeply"),
        ("SEED: " + "{a: " * 5000, "a.yaml: not a readable yaml file: it is nested too deeply"),
        ("SEED: &x [*x]", "a.yaml: not a readable yaml file: line 1, column 7: the value holds itself"),
        ("SEED: &x {SEED: *x}", "a.yaml: not a readable yaml file: line 1, column 7: the value holds itself"),
        ("1: 2", "a.yaml: keys are words; got 1"),
        ("MODEL: {SACT: {null: 2}}", "a.yaml: keys are words; got MODEL.SACT.None"),
        ("SEED: 1\nSEED: 2", "a.yaml: not a readable yaml file: line 2, column 1: the key 'SEED' is there twice"),
        ("SEED: 1\n---\nSEED: 2", "a.yaml: not a readable yaml file: line 2, column 1: but found another document"),
        ("VERSION: 1", "a.yaml: VERSION must be 2; got 1"),
        ("SEED: 2001-01-01", "a.yaml: "),
        ("SEED: 2001-99-01", "a.yaml: not a readable yaml file: a value is not of its type"),
        ("SEED: !!set {a, b}", "a.yaml: "),
        ("SEED: much", "a.yaml: Type mismatch"),
        ("MODEL: 3", "a.yaml: "),
        ("MODEL: {SACT: {TOW: 1}}", "a.yaml: Non-existent key: MODEL.SACT.TOW"),
        ("_BASE_: 3", "a.yaml: _BASE_ must name a config file or list some; got 3"),
        ("_BASE_: ''", "a.yaml: _BASE_ must name a config file or list some; got ''"),
        ("_BASE_: [[b.yaml]]", "a.yaml: _BASE_ must name a config file or list some; got ['b.yaml']"),
        ("_BASE_: {b: 1}", "a.yaml: _BASE_ must name a config file or list some; got {'b': 1}"),
        ("_BASE_: nowhere.yaml", "a.yaml: _BASE_ nowhere.yaml: no such config file"),
        ("_BASE_: .", "a.yaml: _BASE_ .: cannot be read (it is a folder); expected a regular yaml file"),
        (
            "_BASE_: /dev/zero",
            "a.yaml: _BASE_ /dev/zero: cannot be read (it is a device); expected a regular yaml file",
        ),
        ("_BASE_: bad.yaml", "a.yaml: _BASE_ bad.yaml: not a config; expected keys and values"),
        ("_BASE_: worse.yaml", "worse.yaml: Non-existent key: TOW"),
        ("_BASE_: http://127.0.0.1:9/b.yaml", "a.yaml: _BASE_ http://127.0.0.1:9/b.yaml: cannot be fetched ("),
        ("MODEL: {_BASE_: b.yaml}", "a.yaml: Non-existent key: MODEL._BASE_"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_fault(write, content, message):
    write(a=content, bad="- 1", worse="TOW: 1")
    assert refusal().startswith(message)


def test_a_file_that_begins_with_a_byte_order_mark_is_read(write):
    write(a=b"\xef\xbb\xbfSEED: 7")
    assert merge_config("a.yaml").SEED == 7


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [executed]",
        "!!python/object/new:os.mkdir [executed]",
        "!!python/name:os.mkdir",
        "!!python/module:antigravity",
    ],
)
@pytest.mark.parametrize("where", ["a", "b"])
def test_no_tag_of_a_file_is_executed(write, tmp_path, value, where):
    write(**{"a": "_BASE_: b.yaml", "b": "SEED: 1", where: f"SEED: {value}"})
    assert "could not determine a constructor for the tag" in refusal()
    assert not (tmp_path / "executed").exists()


def bomb(levels, of):
    """yaml whose aliases stand for 9 ** levels values."""
    lines = [f"b0: &b0 {of[0]}x{of[1]}"]
    for level in range(1, levels):
        lines.append(f"b{level}: &b{level} " + of[2].format(", ".join(of[3].format(n, level - 1) for n in range(9))))
    return "\n".join(lines)


@pytest.mark.parametrize(
    "of",
    [("[", "]", "[{}]", "*b{1}"), ("{", ": 1}", "{{{}}}", "k{0}: *b{1}")],
    ids=["lists", "mappings"],
)
def test_aliases_of_aliases_are_not_written_out(write, of):
    write(
        a=bomb(12, of),
        merge="b0: &b0 {x: 1}\n"
        + "\n".join(f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}'] * 9)}]}}" for n in range(1, 12)),
    )
    start = time.perf_counter()
    for name in ("a.yaml", "merge.yaml"):
        assert refusal(name) == f"{name}: not a readable yaml file: its aliases stand for more than 100000 values"
    assert time.perf_counter() - start < 5


def test_an_alias_is_read_as_what_it_stands_for(write):
    write(a="INPUT: {MIN_SIZE_TRAIN: &m [9, 8], MIN_SIZE_TEST: 7}\nTEST: {AUG: {MIN_SIZES: *m}}")
    assert merge_config("a.yaml").TEST.AUG.MIN_SIZES == (9, 8)


def test_the_files_come_in_the_order_of_their_merging(write):
    write(b={"SEED": 1}, a={"_BASE_": "b.yaml", "SEED": 2})
    assert read_config_files("a.yaml") == [("b.yaml", {"SEED": 1}), ("a.yaml", {"SEED": 2})]
