"""docs/tutorial.ipynb runs, and holds what it printed and drew."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs/tutorial.ipynb"
MEGABYTE = 2**20


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def told(notebook):
    """What its cells printed, with a # for every number, and the kinds of what they showed."""
    said = []
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            text = "".join(output.get("text", ""))
            kinds = sorted(kind for kind in output.get("data", {}) if kind.startswith("image"))
            said.append(re.sub(r"[-+]?\d+(\.\d+)?", "#", text).split() or kinds)
    return said


@pytest.fixture(scope="module")
def stored():
    return json.loads(NOTEBOOK.read_text())


def test_every_cell_was_run_in_order(stored):
    assert [cell["execution_count"] for cell in code_cells(stored)] == list(range(1, len(code_cells(stored)) + 1))
    assert not [output for cell in code_cells(stored) for output in cell["outputs"] if output["output_type"] == "error"]


def test_the_file_is_small_and_knows_nothing_of_a_machine(stored):
    assert NOTEBOOK.stat().st_size < MEGABYTE
    shown = json.dumps([output.get("text", "") for cell in code_cells(stored) for output in cell["outputs"]])
    assert not re.search(r"/(home|root|tmp|work|usr|Users|var)/", shown)
    assert not [output for cell in code_cells(stored) for output in cell["outputs"] if output.get("name") == "stderr"]


def test_it_runs_and_tells_the_same(stored):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            output.get("data", {}).pop("image/jpeg", None)  # Pillow's second form of a picture is not stored
    assert told(notebook) == told(stored)
