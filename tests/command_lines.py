"""The command lines of tools/ as modules: scripts, not part of a package."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Callable, Sequence

import pytest

ROOT = Path(__file__).parents[1]


def load_tool(name: str) -> ModuleType:
    """tools/<name>.py, freshly executed."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def error_line(capsys: pytest.CaptureFixture, main: Callable[[Sequence[str]], object], argv: Sequence[str]) -> str:
    """Runs a command, which has to end with exit code 1 and a line "error: ..."; returns the rest of the line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(argv)
    out, err = capsys.readouterr()
    assert end.value.code == 1
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert "Traceback" not in out
    return err.removeprefix("error: ").rstrip("\n")
