"""Text that others wrote: what UTF-8 says is read, and anything else is one line that says what and where."""

import json
import math
import os
import tempfile

import pytest
import yaml

from sact_det.base.errors import InputError
from sact_det.base.text_files import parse_json, read_json, read_text, read_yaml

READERS = pytest.mark.parametrize(("read", "kind"), [(read_text, "text"), (read_json, "json"), (read_yaml, "yaml")])
VALUE = {"name": "Zürich \N{WHITE SMILING FACE} \U0001f600", "n": [1, 2.5, None, True]}


def refusal(read, path, *arguments):
    with pytest.raises(InputError) as error:
        read(path, *arguments)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ascii", [True, False])
def test_a_byte_order_mark_changes_nothing(tmp_path, encoding, ascii):
    text = json.dumps(VALUE, ensure_ascii=ascii)
    path = tmp_path / "x"
    path.write_text(text, encoding=encoding)
    assert read_text(path) == text
    assert read_json(path) == VALUE
    assert read_yaml(path) == yaml.safe_load(text)


@READERS
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}".encode("utf-16"), "it is in UTF-16 or UTF-32; save it as UTF-8"),
        ("{}".encode("utf-32"), "it is in UTF-16 or UTF-32; save it as UTF-8"),
        ("{}".encode("utf-16-be"), "it is binary, or in UTF-16 or UTF-32; expected UTF-8"),
        ("{}".encode("utf-16-le"), "it is binary, or in UTF-16 or UTF-32; expected UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it is binary, or in UTF-16 or UTF-32; expected UTF-8"),
        ('{\n"name":\n"Zürich"}'.encode("latin-1"), "byte 0xfc in line 3 is not UTF-8"),
    ],
)
def test_what_is_not_utf_8_is_refused_by_name(tmp_path, read, kind, content, message):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert refusal(read, path) == f"not a readable {kind} file: {message}"


@READERS
def test_what_is_no_regular_file_is_refused_before_it_is_read(tmp_path, read, kind):
    os.mkfifo(tmp_path / "pipe")
    for path, found in ((tmp_path, "a folder"), (tmp_path / "pipe", "a pipe"), ("/dev/zero", "a device")):
        assert refusal(read, path) == f"cannot be read (it is {found}); expected a regular {kind} file"


@READERS
def test_a_missing_file_is_called_what_the_caller_calls_it(tmp_path, read, kind):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file" / "below"):
        assert refusal(read, path) == "no such file"
        assert refusal(read, path, "no such list") == "no such list"
    assert refusal(read, "x" * 300) == "cannot be read (File name too long)"
    assert refusal(read, "a\0b") == "cannot be read (embedded null byte)"


@READERS
def test_a_file_without_permission_is_named(locked_folder, read, kind):  # the fixture: root is somebody else meanwhile
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0o000)
        assert refusal(read, file.name) == "cannot be read (Permission denied)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        (" \n\t", "it is empty"),
        ('{"a": 1,\n "b" 2}', "line 2, column 6: Expecting ':' delimiter"),
        ('{"a": 1} {}', "line 1, column 10: Extra data"),
        ("{'a': 1}", "line 1, column 2: Expecting property name enclosed in double quotes"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "it is nested too deeply"),
        ('["\\uD83d"]', "half of a surrogate pair ('\\ud83d') in a string"),
        ("9" * 5000, "Exceeds the limit (4300 digits)"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert refusal(read_json, path).startswith(f"not a readable json file: {message}")


def test_numbers_that_json_does_not_know_are_left_to_who_uses_them():
    values = parse_json("[NaN, Infinity, -Infinity, 1e999, -0.0]", "x.json")
    assert math.isnan(values[0]) and values[1:4] == [math.inf, -math.inf, math.inf]
    assert math.copysign(1, values[4]) == -1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1,\nb: 2", "line 2, column 5: expected ',' or ']', but got '<stream end>'"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("a: *missing", "line 1, column 4: found undefined alias 'missing'"),
        ("a: !!python/object/apply:os.system ['true']", "line 1, column 4: could not determine a constructor"),
        ("a: \x07", "unacceptable character #x0007"),
        ("a: 2001-99-99", "a value is not of its type (month must be in 1..12)"),
        ("a: !!bool x", "a value is not of its type (x)"),
        ("a: !!int ''", "a value is not of its type (string index out of range)"),
        ("[" * 5000, "it is nested too deeply"),
        ("a: &a [1]\n? {b: 1}\n: 2", "line 2, column 3: found unhashable key"),
        ("a: &a [*a]", "line 1, column 4: the value holds itself"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is there twice"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert refusal(read_yaml, path).startswith(f"not a readable yaml file: {message}")
