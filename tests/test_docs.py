"""What the documentation refers to is there: links, headings, images, files of the repository; its Python runs."""

import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = [ROOT / f"{page}.md" for page in ("README", "CHANGELOG", "CONTRIBUTING")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
PRESENT = [path for path in PAGES if path.stem not in ("CHANGELOG", "history")]
RESULTS = [path for path in sorted((ROOT / "docs/results").glob("*.md")) if path.stem not in ("README", "history")]
COMPLETE = ("README", "docs/guide/python", "docs/guide/detectors")  # pages whose Python needs nothing else
LINK = re.compile(r"(?:\]\(|src=\")([^)\s\"]+)[)\"]")  # of text and of images alike
FILE = re.compile(r"(?<![\w./(-])(?:sact_det|saliency|tools|configs|tests|docs)/[\w./*${}-]*(?<![.-])")
PYTHON = re.compile(r"(?<![\w./-])(?:sact_det|saliency)(?:\.(?!md\b)[A-Za-z_]\w*)+")  # saliency.md is a page


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Those that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_and_image_is_there(page: Path):
    links = [link.partition("#") for link in LINK.findall(page.read_text()) if "://" not in link]
    targets = [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in links]
    missing = [name(target) for target, _ in targets if not target.exists()]
    missing += [f"{name(target)}#{anchor}" for target, anchor in targets if anchor and anchor not in anchors(target)]
    assert not missing


@pytest.mark.parametrize("page", PRESENT, ids=name)
def test_every_file_that_is_named_is_there(page: Path):
    paths = {re.sub(r"\$\{?\w+\}?", "*", path) for path in FILE.findall(page.read_text())}
    assert not [path for path in sorted(paths) if not list(ROOT.glob(path))]


@pytest.mark.parametrize("page", PRESENT, ids=name)
def test_every_python_name_is_there(page: Path):
    for python_name in sorted(set(PYTHON.findall(page.read_text()))):
        pkgutil.resolve_name(python_name)


@pytest.mark.parametrize("page", RESULTS, ids=name)
def test_a_page_of_results_has_the_headings_of_all_and_a_row_in_the_table(page: Path):
    assert re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) == [
        "Question",
        "Command",
        "Table",
        "What it shows",
        "What it does not",
        "Machine and commit",
    ]
    assert f"]({page.name})" in (page.parent / "README.md").read_text()


def test_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_is_python(page: Path):
    for block in python_blocks(page):
        compile(block, name(page), "exec")


@pytest.mark.parametrize("page", [ROOT / f"{page}.md" for page in COMPLETE], ids=name)
def test_python_that_is_complete_runs(page: Path, monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = python_blocks(page)
    assert blocks
    for block in blocks:
        exec(compile(block, name(page), "exec"), {})
