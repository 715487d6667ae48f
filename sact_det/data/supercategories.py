"""COCO annotations with supercategories as classes: 12 classes instead of 80, with more examples each."""

from typing import Any

from sact_det.base.errors import InputError
from sact_det.data.coco_json import is_number, read_coco, shown


def merge_supercategories(json_file: str) -> dict[str, Any]:
    """The content of an annotation file in COCO format, every category replaced by its supercategory.

    The new classes are numbered from 1, in the order in which the categories' ids name them first; images, boxes and
    masks stay as they are.

    Raises:
        InputError: the file cannot be read, a category names no supercategory, or an annotation no category.
    """
    content = read_coco(json_file)
    numbers: dict[str, int] = {}
    merged: dict[int, int] = {}
    for category in sorted(content["categories"], key=lambda category: category["id"]):
        name = category.get("supercategory")
        if not (isinstance(name, str) and name):
            raise InputError(f"{json_file}: category {category['name']!r} has no 'supercategory'")
        merged[category["id"]] = numbers.setdefault(name, len(numbers) + 1)
    annotations = []
    for annotation in content["annotations"]:
        category_id = annotation.get("category_id") if isinstance(annotation, dict) else None
        if not is_number(category_id) or category_id not in merged:
            raise InputError(f"{json_file}: an annotation has no valid 'category_id': {shown(annotation)}")
        annotations.append({**annotation, "category_id": merged[category_id]})
    categories = [{"id": number, "name": name, "supercategory": name} for name, number in numbers.items()]
    return {**content, "categories": categories, "annotations": annotations}
