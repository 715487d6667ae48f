"""Config files that cannot be read, and files that they build on."""

from typing import Any

from sweep.harness import Case, Word, file, output
from sweep.results import ALIASES_OF_ALIASES

_UNREADABLE, _PAIRS = (
    r"a\.yaml: not a readable yaml file: ",
    r"a\.yaml: not a config; expected keys and values in yaml, ",
)


def base_of(content: Any, name: str = "b.yaml") -> Word:
    """The word for a config that builds on a file of this content."""

    def write(place: Any) -> str:
        file(name, content)(place)
        return file("a.yaml", f"_BASE_: {name}\n")(place)  # type: ignore[operator]

    return write


# What a.yaml holds, and what is said of it.
_WRONG: list[tuple[Any, str]] = [
    ("", _PAIRS + "it is empty"),
    ("# a comment\n", _PAIRS + "it is empty"),
    ("words", _PAIRS + "it holds a str"),
    ("- 1", _PAIRS + "it holds a list"),
    ("17", _PAIRS + "it holds a int"),
    ("1: 2", r"a\.yaml: keys are words; got 1"),
    ("MODEL: {null: 2}", r"a\.yaml: keys are words; got MODEL\.None"),
    ("SEED: [1", _UNREADABLE + "line 1, column 9"),
    ("SEED: 1\n\tX: 2", _UNREADABLE + r"line 2, column 1: found character '\\t'"),
    ("SEED: 1\nSEED: 2", _UNREADABLE + "line 2, column 1: the key 'SEED' is there twice"),
    ("SEED: 1\n---\nSEED: 2", _UNREADABLE + "line 2, column 1: but found another document"),
    ("SEED: *x", _UNREADABLE + "line 1, column 7: found undefined alias"),
    ("SEED: &x [*x]", _UNREADABLE + "line 1, column 7: the value holds itself"),
    ("MODEL: &x {MODEL: *x}", _UNREADABLE + "line 1, column 8: the value holds itself"),
    (ALIASES_OF_ALIASES, _UNREADABLE + "its aliases stand for more than 100000 values"),
    ("SEED: " + "[" * 5000, _UNREADABLE + "it is nested too deeply"),
    ("SEED: " + "{a: " * 5000, _UNREADABLE + "it is nested too deeply"),
    ("SEED: 2001-99-01", _UNREADABLE + "a value is not of its type"),
    (b"\x80\x02}q\x00.", _UNREADABLE + "it is binary"),
    (b"\x89PNG\r\n\x1a\n\x00", _UNREADABLE + "it is binary"),
    (b"SEED: \xff", _UNREADABLE + "byte 0xff in line 1 is not UTF-8"),
    ("SEED: 1".encode("utf-16"), _UNREADABLE + "it is in UTF-16"),
    ("SEED: !!python/object/apply:os.mkdir [executed]", _UNREADABLE + ".*could not determine a constructor"),
    ("SEED: !!python/name:os.system", _UNREADABLE + ".*could not determine a constructor"),
    ("SEED: !unknown 1", _UNREADABLE + ".*could not determine a constructor"),
    ("VERSION: 1", r"a\.yaml: VERSION must be 2; got 1"),
    ("VERSION: two", r"a\.yaml: VERSION must be 2; got 'two'"),
    ("_BASE_: a.yaml", r"builds on itself \(_BASE_\): \S*a\.yaml -> \S*a\.yaml$"),
    ("_BASE_: [./a.yaml]", r"builds on itself"),
    ("_BASE_: 3", r"_BASE_ must name a config file or list some; got 3"),
    ("_BASE_: ''", r"_BASE_ must name a config file or list some; got ''"),
    ("_BASE_: {b: 1}", r"_BASE_ must name a config file or list some; got \{'b': 1\}"),
    ("_BASE_: [b.yaml, [c.yaml]]", r"_BASE_ \S*b\.yaml: no such config file"),
    ("_BASE_: nowhere.yaml", r"_BASE_ \S*nowhere\.yaml: no such config file"),
    ("_BASE_: .", r"_BASE_ \S*: cannot be read \(it is a folder\); expected a regular yaml file"),
    ("_BASE_: /dev/zero", r"_BASE_ /dev/zero: cannot be read \(it is a device\); expected a regular yaml file"),
    ("_BASE_: http://127.0.0.1:9/b.yaml", r"_BASE_ http://127\.0\.0\.1:9/b\.yaml: cannot be fetched"),
    ("MODEL: {_BASE_: b.yaml}", r"a\.yaml: .*MODEL\._BASE_"),
]

# What b.yaml holds, which a.yaml builds on.
_WRONG_BASES: list[tuple[Any, str]] = [
    ("", r"_BASE_ \S*b\.yaml: not a config"),
    ("[", r"_BASE_ \S*b\.yaml: not a readable yaml file"),
    (b"\x00", r"_BASE_ \S*b\.yaml: not a readable yaml file: it is binary"),
    ("_BASE_: a.yaml", r"builds on itself \(_BASE_\): \S*a\.yaml -> \S*b\.yaml -> \S*a\.yaml$"),
    ("_BASE_: b.yaml", r"b\.yaml: builds on itself \(_BASE_\): \S*b\.yaml -> \S*b\.yaml$"),
    ("_BASE_: c.yaml", r"b\.yaml: _BASE_ \S*c\.yaml: no such config file"),
    ("MODEL: {SACT: {TOW: 1}}", r"b\.yaml: .*MODEL\.SACT\.TOW"),
    ("SEED: !!python/object/apply:os.mkdir [executed]", "could not determine a constructor"),
]

# Every command that reads a config.
_COMMANDS: list[tuple[str, tuple[Word, ...]]] = [
    ("train_net", ()),
    ("visualize", ("--input", "x", "--output", output)),
    ("matched_units", ("--output", output)),
    ("export_ponder", ("--output", output)),
    ("benchmark", ("detector", "--quiet")),
]
_FEW = [entry for entry in _WRONG if len(entry[0]) < 40][::6]

CASES = [
    *(Case("train_net", says, "--config-file", file("a.yaml", content)) for content, says in _WRONG),
    *(Case("train_net", says, "--config-file", base_of(content)) for content, says in _WRONG_BASES),
    *(
        Case(tool, says, *words, "--config-file", file("a.yaml", content))
        for tool, words in _COMMANDS[1:]
        for content, says in _FEW
    ),
    Case("train_net", r"nowhere\.yaml: no such config file", "--config-file", "nowhere.yaml"),
    Case(
        "train_net",
        r"/dev/null: cannot be read \(it is a device\); expected a regular yaml file",
        "--config-file",
        "/dev/null",
    ),
    Case("train_net", r"\.: cannot be read \(it is a folder\); expected a regular yaml file", "--config-file", "."),
    Case(
        "sweep_resolutions",
        r"a\.yaml: builds on itself",
        *("--model", "SACT", file("a.yaml", "_BASE_: a.yaml"), file("w.pth", b"x")),
        *("--sizes", "32", "--output", output),
    ),
]
