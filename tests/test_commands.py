"""Commands in the documentation and in --help can be typed: a shell reads them, and the tool takes their arguments."""

import re
import subprocess
from pathlib import Path

import pytest
from command_lines import load_tool
from detectron2.config import CfgNode, get_cfg
from sweep.arguments import TOOLS

from sact_det import add_sact_config
from sact_det.base.errors import InputError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)  # indented by four spaces
CALL = re.compile(r"tools/(\w+)\.py")
# A shell in which python and torchrun say what they were called with, one call a line, and nothing else runs.
SHELL = r"""
PATH=/nowhere
command_not_found_handle() { :; }
python() { local IFS=$'\x1f'; echo "$*"; }
torchrun() { while [[ $1 != tools/* ]]; do shift; done; python "$@"; }
.() { :; }
"""


def calls(commands: str, folder: Path) -> list[list[str]]:
    """[tool, arguments...] of each call of a tool, as a shell understands the commands."""
    script = SHELL + re.sub(r"\S*/bin/(?=python )", "", commands)
    run = subprocess.run(["/bin/bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert not run.stderr, f"{run.stderr}\n{commands}"
    found = [line.split("\x1f") for line in run.stdout.splitlines()]
    return [call for call in found if CALL.fullmatch(call[0])]


def blocks(text: str) -> list[str]:
    """The indented blocks that call a tool."""
    return [block for block in BLOCK.findall(text) if re.search(r"^ *\S*(?:python|torchrun) .*tools/", block, re.M)]


def check(call: list[str], capsys: pytest.CaptureFixture) -> None:
    """The tool takes the arguments; configs and keys of the config are there."""
    tool = load_tool(CALL.fullmatch(call[0])[1])
    try:
        args = (getattr(tool, "parse_arguments", None) or tool.parse_args)(call[1:])
    except (SystemExit, InputError) as end:
        if isinstance(end, InputError) or end.code:
            pytest.fail(f"{' '.join(call)}\n{end}\n{capsys.readouterr().err}")
        return  # --help
    for word in call:
        assert not word.startswith("configs/") or (ROOT / word).exists(), f"{word}: no such config\n{' '.join(call)}"
    for key in getattr(args, "opts", [])[::2]:
        assert key in KEYS, f"{key} is no key of the config\n{' '.join(call)}"


def all_keys(node: CfgNode, parents: str = "") -> set[str]:
    keys = set()
    for key, value in node.items():
        keys |= all_keys(value, f"{parents}{key}.") if isinstance(value, CfgNode) else {parents + key}
    return keys


CONFIG = get_cfg()
add_sact_config(CONFIG)
KEYS = all_keys(CONFIG)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_can_be_typed(page, tmp_path, capsys):
    for block in blocks(page.read_text()):
        for call in calls(block, tmp_path):
            check(call, capsys)


def test_the_pages_have_commands(tmp_path):
    found = [call for page in PAGES for block in blocks(page.read_text()) for call in calls(block, tmp_path)]
    assert len(found) > 100 and len({call[0] for call in found}) > 15


@pytest.mark.parametrize("tool", TOOLS)
def test_help_fits_a_terminal_and_its_commands_can_be_pasted(tool, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", [f"tools/{tool}.py"])  # as its users call it
    module = load_tool(tool)
    with pytest.raises(SystemExit) as end:
        (getattr(module, "parse_arguments", None) or module.parse_args)(["--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and module.__doc__.splitlines()[0] in said
    assert not [line for line in said.splitlines() if len(line) > 80]
    for block in blocks(said):
        for call in calls(block, tmp_path):
            check(call, capsys)


def test_every_tool_is_in_the_list():
    assert sorted(TOOLS) == sorted(path.stem for path in (ROOT / "tools").glob("*.py"))
