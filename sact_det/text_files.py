"""Text that others wrote: UTF-8, with or without a byte order mark, as it is, as JSON or as YAML."""

import codecs
import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Union

import yaml

from sact_det.errors import InputError, one_line

_UTF_16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
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
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{path}: not a regular file; expected a {kind} file")
        content = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: {missing}") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
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
    """The value that a JSON file holds; see `parse_json`. Arguments and errors as `read_text`'s."""
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

    Arguments and errors as `read_text`'s; what is no YAML is an InputError, too.
    """
    text = read_text(path, missing, "yaml")
    refused = f"{path}: not a readable yaml file"
    try:
        return yaml.safe_load(text)
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
