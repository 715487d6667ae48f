"""Supercategories as classes: the same boxes, fewer classes."""

import json
from pathlib import Path

import pytest
from coco_folder import write_coco_folder
from command_lines import load_tool
from pycocotools.coco import COCO

from sact_det.base.errors import InputError
from sact_det.data.supercategories import merge_supercategories

tool = load_tool("coco_supercategories")
GROUPS = {1: "animal", 4: "vehicle", 9: "animal"}


@pytest.fixture
def annotations(tmp_path):
    """Categories 1 and 9 are animals, 4 is a vehicle; listed in reverse."""
    path = Path(write_coco_folder(tmp_path, num_images=4)[0])
    edit(path, lambda content: content["categories"].reverse())
    edit(path, lambda content: [c.update(supercategory=GROUPS[c["id"]]) for c in content["categories"]])
    return path


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_classes_are_the_supercategories_in_the_order_of_the_categories(annotations):
    merged = merge_supercategories(str(annotations))
    assert [(c["id"], c["name"]) for c in merged["categories"]] == [(1, "animal"), (2, "vehicle")]


def test_every_box_keeps_everything_but_its_class(annotations, tmp_path):
    tool.main([str(annotations), str(tmp_path / "merged.json")])
    before, after = COCO(str(annotations)), COCO(str(tmp_path / "merged.json"))
    assert before.imgs == after.imgs and before.anns.keys() == after.anns.keys()
    for number, annotation in before.anns.items():
        group = after.cats[after.anns[number]["category_id"]]["name"]
        assert group == GROUPS[annotation["category_id"]]
        assert {**after.anns[number], "category_id": 0} == {**annotation, "category_id": 0}


def test_a_category_without_supercategory_is_refused(annotations):
    edit(annotations, lambda content: content["categories"][0].pop("supercategory"))
    with pytest.raises(InputError, match="category 'class 9' has no 'supercategory'"):
        merge_supercategories(str(annotations))


@pytest.mark.parametrize("category_id", [5, "1", None, [1], {}, True])
def test_an_annotation_of_no_category_is_refused(annotations, category_id):
    edit(annotations, lambda content: content["annotations"][0].update(category_id=category_id))
    with pytest.raises(InputError, match="an annotation has no valid 'category_id'"):
        merge_supercategories(str(annotations))


def test_the_source_is_never_replaced(annotations, capsys):
    before = annotations.read_bytes()
    with pytest.raises(SystemExit):
        tool.main([str(annotations), str(annotations)])
    assert "would replace the annotations it is made from" in capsys.readouterr().err
    assert annotations.read_bytes() == before
