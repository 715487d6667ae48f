"""A file in COCO's format written anew as folders of Pascal VOC and of YOLO."""

import json
import shutil
from pathlib import Path
from typing import Any


def write_voc_folder(root: Path, json_file: str, images: str, split: str = "train") -> str:
    """Writes Annotations/, JPEGImages/ and ImageSets/Main/SPLIT.txt; crowds become difficult. Returns the folder."""
    content = json.loads(Path(json_file).read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        shutil.copy(Path(images) / image["file_name"], root / "JPEGImages")
        objects = [_object(one, names) for one in content["annotations"] if one["image_id"] == image["id"]]
        size = f"<size><width>{image['width']}</width><height>{image['height']}</height><depth>3</depth></size>"
        text = f"<annotation>\n<filename>{image['file_name']}</filename>\n{size}\n{''.join(objects)}</annotation>\n"
        (root / "Annotations" / f"{Path(image['file_name']).stem}.xml").write_text(text)
    stems = [Path(image["file_name"]).stem for image in content["images"]]
    (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(stems) + "\n")
    return str(root)


def _object(annotation: dict[str, Any], names: dict[int, str]) -> str:
    x, y, width, height = annotation["bbox"]
    corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + width, "ymax": y + height}
    box = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
    name = names[annotation["category_id"]]
    difficult = annotation["iscrowd"]
    return f"<object>\n<name>{name}</name>\n<difficult>{difficult}</difficult>\n<bndbox>{box}</bndbox>\n</object>\n"


def write_yolo_folder(root: Path, json_file: str, images: str, split: str = "train") -> str:
    """Writes images/SPLIT, labels/SPLIT and data.yaml, polygons where the file has them. Returns the folder."""
    content = json.loads(Path(json_file).read_text())
    index = {category["id"]: number for number, category in enumerate(content["categories"])}
    (root / "images" / split).mkdir(parents=True)
    (root / "labels" / split).mkdir(parents=True)
    names = "".join(f"  {index[category['id']]}: {category['name']}\n" for category in content["categories"])
    (root / "data.yaml").write_text(f"path: .\ntrain: images/{split}\nnames:\n{names}")
    for image in content["images"]:
        shutil.copy(Path(images) / image["file_name"], root / "images" / split)
        lines = []
        for one in content["annotations"]:
            if one["image_id"] == image["id"]:
                lines.append(" ".join(map(repr, [index[one["category_id"]], *_shares(one, image)])) + "\n")
        (root / "labels" / split / f"{Path(image['file_name']).stem}.txt").write_text("".join(lines))
    return str(root)


def _shares(annotation: dict[str, Any], image: dict[str, Any]) -> list[float]:
    sides = (image["width"], image["height"])
    if "segmentation" in annotation:
        return [value / sides[number % 2] for number, value in enumerate(annotation["segmentation"][0])]
    x, y, width, height = annotation["bbox"]
    return [(x + width / 2) / sides[0], (y + height / 2) / sides[1], width / sides[0], height / sides[1]]
