"""The house has floors: imports go up, never down, and never in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("sact_det.base", "sact_det.config"),
    ("sact_det.rule",),
    ("sact_det.network",),
    ("sact_det.execution",),
    ("sact_det.weights",),
    ("sact_det.budget",),
    ("sact_det.pictures",),
    ("sact_det.data",),
    ("sact_det.engine",),
    ("sact_det.classification", "sact_det.detection"),
    ("sact_det.tasks",),
    ("sact_det.export", "sact_det.lazy"),
    ("sact_det.benchmark", "sact_det.experiments", "sact_det.report", "sact_det.viewer"),
    ("saliency",),
    ("tools",),
)


def modules() -> dict[str, Path]:
    found = {}
    for top in ("sact_det", "saliency", "tools"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del found["sact_det"]  # the door: it hands out public names of any floor, late
    return found


def imports() -> dict[str, set[str]]:
    """Module -> what it imports of the project, late imports and those for types included."""
    known = modules()
    found = {}
    for module, path in known.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                below = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= (below & known.keys()) or {node.module}
        found[module] = names & known.keys()
    return found


def floor(module: str) -> int:
    homes = (index for index, rooms in enumerate(FLOORS) for room in rooms if f"{module}.".startswith(f"{room}."))
    return next(homes)


def test_every_module_has_a_floor_and_imports_from_its_own_or_those_below():
    arrows = [(module, other) for module, others in imports().items() for other in others]
    assert len(arrows) > 500
    assert [(module, other) for module, other in arrows if floor(other) > floor(module)] == []


def test_no_imports_run_in_a_circle():
    TopologicalSorter(imports()).prepare()


def test_nothing_is_loose_at_the_top():
    files = {path.name for path in (ROOT / "sact_det").iterdir() if path.is_file()}
    assert files == {"__init__.py", "config.py", "tasks.py", "py.typed"}


def test_no_two_test_files_have_one_name():
    """pytest imports them by it: the second one would not be found."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert [name for name in set(names) if names.count(name) > 1] == []
