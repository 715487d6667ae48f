"""No bad input ends a command line with a traceback, half-written files or a line that does not say what is wrong."""

import importlib
import pkgutil

import detectron2.engine.defaults
import pytest
from command_lines import ROOT

import sweep
from sweep.good_inputs import GoodInputs
from sweep.harness import Case, Place

pytestmark = pytest.mark.usefixtures("own_loggers")


def areas() -> dict[str, list[Case]]:
    """The rows of every area by its name."""
    names = [module.name for module in pkgutil.iter_modules(sweep.__path__)]
    modules = {name: importlib.import_module(f"sweep.{name}") for name in names if not name.startswith("test_")}
    return {name: module.CASES for name, module in modules.items() if hasattr(module, "CASES")}


CASES = [
    pytest.param(case, id=f"{area}-{number}-{case.tool}")
    for area, cases in areas().items()
    for number, case in enumerate(cases)
]


@pytest.fixture(scope="session")
def good(tmp_path_factory) -> GoodInputs:
    return GoodInputs(tmp_path_factory.mktemp("good"))


def first_of(cfg, *keys, default=None):
    return next((cfg[key] for key in keys if key in cfg), default)


@pytest.mark.parametrize("case", CASES)
def test_a_bad_input_ends_in_one_line_that_says_what_is_wrong(case, good, tmp_path, capsys, monkeypatch):
    # What a run notes about the machine takes longer than everything else here; then the copies of the whole config in
    # another format from which Detectron2 takes one value each.
    monkeypatch.setattr(detectron2.engine.defaults, "collect_env_info", str)
    monkeypatch.setattr(detectron2.engine.defaults, "_try_get_key", first_of)
    case.run(Place(tmp_path, good), capsys, monkeypatch)


def test_the_tables_hold_hundreds_of_cases_of_every_command_line():
    cases = [case for area in areas().values() for case in area]
    assert len(cases) >= 300
    assert {case.tool for case in cases} == {path.stem for path in (ROOT / "tools").glob("*.py")}
