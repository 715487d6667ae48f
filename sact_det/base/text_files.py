"""Text that others wrote: UTF-8, with or without a byte order mark, as it is, as JSON or as YAML."""

import codecs
import itertools
import json
import re
from pathlib import Path
from typing import Any, Union

import yaml

from sact_det.base.errors import InputError, one_line
from sact_det.base.files import read_bytes

_UTF_16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_MOST_VALUES = 100_000  # of a yaml file with aliases
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(path: Union[str, Path], missing: str = "no such file", kind: str = "text") -> str:
    """The content of a file, without its byte order mark.

    Args:
        path: of a regular file; a device or a pipe may have no end.
        missing: what to say of a file that does not exist.
        kind: what to call the file if it is not text.

    Raises:
        InputError: the file is missing, cannot be read, or is not UTF-8; the message begins with `path`.
    """
    content = read_bytes(path, f"{kind} file", missing)
    refused = f"{path}: not a readable {kind} file"
    if content.startswith(_UTF_16_OR_32):
        raise InputError(f"{refused}: it is in UTF-16 or UTF-32; save it as UTF-8")
    if b"\0" in content:
        raise InputError(f"{refused}: it is binary, or in UTF-16 or UTF-32; expected UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise InputError(f"{refused}: byte 0x{byte:02x} in line {line} is not UTF-8") from error


def read_json(path: Union[str, Path], missing: str = "no such file") -> Any:
    """The value that a JSON file holds, as `parse_json` has it. Arguments and errors are those of `read_text`."""
    return parse_json(read_text(path, missing, "json"), path)


def parse_json(text: str, source: Union[str, Path]) -> Any:
    """The value of a JSON text.

    NaN, Infinity and -Infinity, which many programs write, are read as such: whoever uses a number judges it.

    Args:
        text: without byte order mark.
        source: the file that errors name.

    Raises:
        InputError: the text is no JSON, is nested deeper than Python's stack, or escapes half of a surrogate pair,
            which no file and no terminal could be given.
    """
    refused = f"{source}: not a readable json file"
    if not text.strip():
        raise InputError(f"{refused}: it is empty")
    try:
        value = json.loads(text)
        if _ESCAPED_SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        raise InputError(f"{refused}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeEncodeError as error:
        raise InputError(f"{refused}: half of a surrogate pair ({error.object[error.start]!r}) in a string") from error
    except RecursionError as error:
        raise InputError(f"{refused}: it is nested too deeply") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise InputError(f"{refused}: {one_line(error)}") from error


def read_yaml(path: Union[str, Path], missing: str = "no such file") -> Any:
    """The value that a YAML file holds, of plain types only (`yaml.safe_load`); None if it is empty.

    Arguments and errors as `read_text`'s; what is no YAML is an InputError, too, and so are a key that is there twice,
    values that hold themselves, and aliases of aliases that stand for more than anybody would write out.
    """
    text = read_text(path, missing, "yaml")
    refused = f"{path}: not a readable yaml file"
    try:
        return _load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(f"{refused}: {where}{error.problem or error.context}") from error
    except RecursionError as error:
        raise InputError(f"{refused}: it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise InputError(f"{refused}: {one_line(error)}") from error
    except Exception as error:  # the constructors of dates, numbers and booleans raise whatever they like
        raise InputError(f"{refused}: a value is not of its type ({one_line(error)})") from error


def _load_yaml(text: str) -> Any:
    """yaml.safe_load, which takes for ever where aliases of aliases stand for billions of values."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        counts: dict[int, int] = {}
        if node is not None and _count_values(node, counts) > max(_MOST_VALUES, len(counts)):
            raise yaml.YAMLError(f"its aliases stand for more than {_MOST_VALUES} values")
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _count_values(node: yaml.Node, counts: dict[int, int]) -> int:
    """How many values a node is, every alias written out; `counts` has those of the nodes it holds, by identity."""
    if id(node) not in counts:
        counts[id(node)] = 0  # being counted
        inside = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            _check_keys_differ(node)
        parts = itertools.chain(*inside) if isinstance(node, yaml.MappingNode) else inside
        counts[id(node)] = 1 + sum(_count_values(part, counts) for part in parts)
    elif not counts[id(node)]:
        raise yaml.MarkedYAMLError(problem="the value holds itself", problem_mark=node.start_mark)
    return counts[id(node)]


def _check_keys_differ(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(key.value)
