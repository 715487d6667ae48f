"""docs/MODEL_ZOO.md says of every config what the repository says of it elsewhere."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("detectron2")
from sact_det.base.errors import InputError
from sact_det.experiments.model_zoo import configs_of, model_zoo
from sact_det.weights.published import SCHEME, find_published

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs/model_zoo.json"
SECTIONS = json.loads(DATA.read_text(encoding="utf-8"))
NOT_TRAINED = ("Base-", "tests/")


def test_the_page_is_what_its_script_writes():
    assert (ROOT / "docs/MODEL_ZOO.md").read_text(encoding="utf-8") == model_zoo(ROOT), "python tools/model_zoo.py"


def test_every_config_that_trains_has_a_row():
    listed = {name for section in SECTIONS for name in configs_of(ROOT, section)}
    paths = {path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert listed == {name for name in paths if not any(word in name for word in NOT_TRAINED)}


def test_numbers_that_no_json_has_stand_on_the_page_that_the_row_links():
    for section in SECTIONS:
        for numbers in section.get("measured", {}).values():
            page = (ROOT / "docs/results" / section["page"]).read_text(encoding="utf-8")
            shown = [numbers[key] for key in ("quality", "flops", "whole") if key in numbers]
            # Pages give accuracy as a share or in percent.
            assert all(number in page or f"{float(number) / 100:.4f}" in page for number in shown), numbers
            assert f"{numbers['memory']} MB" in page if "memory" in numbers else True
        for seconds in section.get("seconds", {}).values():
            assert f"| {seconds['s']} |" in (ROOT / "docs/results" / seconds["page"]).read_text(encoding="utf-8")


def test_every_name_of_weights_is_published():
    page = (ROOT / "docs/MODEL_ZOO.md").read_text(encoding="utf-8")
    names = {part.split("`")[0] for part in page.split(f"`{SCHEME}")[1:]}
    assert len(names) >= 5 and all(find_published(name) for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"configs": ["COCO/nobody*.yaml"]}, "no config matches COCO/nobody"),
        ({"measured": {"COCO/gone.yaml": {}}}, "measured of COCO/gone.yaml, which is none of its configs"),
        ({"measurd": {}}, "unknown measurd"),
    ],
)
def test_a_data_file_that_names_what_is_not_there_is_one_line(tmp_path, change, message):
    shutil.copytree(ROOT / "configs/CIFAR10", tmp_path / "configs/CIFAR10")
    section = {"title": "a title", "text": "", "configs": ["CIFAR10/*.yaml"], **change}
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/model_zoo.json").write_text(json.dumps([section]))
    with pytest.raises(InputError, match=message):
        model_zoo(tmp_path)
