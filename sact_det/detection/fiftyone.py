"""Detections as FiftyOne imports them: a FiftyOneImageDetectionDataset, whose images stay where they are.

labels.json has the classes, and for every image its objects: the number of the class, the box as shares of the image's
width and height from its top left corner, [x, y, w, h], and the score. A second file, which FiftyOne calls a manifest,
says where the image of each name lies.
"""

import json
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence

from sact_det.base.files import write_json, write_lines
from sact_det.detection.image_names import Categories


def labels_of(
    results: Sequence[Mapping[str, Any]], size: Sequence[int], categories: Categories
) -> list[dict[str, Any]]:
    """The objects of an image.

    Args:
        results: in COCO's format, boxes in pixels.
        size: (height, width) of the image in pixels.
        categories: whose ids the results have.
    """
    height, width = size
    labels = []
    for result in results:
        x, y, w, h = result["bbox"]
        box = [x / width, y / height, w / width, h / height]
        label = categories.ids.index(result["category_id"])
        labels.append({"label": label, "bounding_box": box, "confidence": result["score"]})
    return labels


def write_labels(
    labels: Path, media: Path, parts: Iterable[Mapping[str, Any]], names: Sequence[str], categories: Categories
) -> None:
    """Writes the labels of all images that could be read, and where they lie.

    Args:
        labels: the file of labels.
        media: the manifest.
        parts: each with "images", rows with "image_id" and "file_name" ("error" of those that cannot be read), their
            "sizes", (height, width) in pixels, and "results" in COCO's format.
        names: of all images, in their order; no two are alike.
        categories: whose ids the results have.

    Raises:
        OSError: a file cannot be written.
    """
    places: dict[str, str] = {}

    def lines() -> Iterator[str]:
        own_names = iter(names)
        for part in parts:
            found: dict[Any, list[Mapping[str, Any]]] = {row["image_id"]: [] for row in part["images"]}
            for result in part["results"]:
                found[result["image_id"]].append(result)
            for row, size, name in zip(part["images"], part["sizes"], own_names):
                if "error" not in row:
                    path = Path(row["file_name"]).resolve()
                    places[f"{name}{path.suffix or '.image'}"] = str(path)  # FiftyOne cuts the suffix off
                    own = labels_of(found[row["image_id"]], size, categories)
                    yield f"{json.dumps(name)}: {json.dumps(own)}"

    classes = categories.names or [f"class {number}" for number in range(len(categories.ids))]
    write_lines(labels, lines(), f'{{"classes": {json.dumps(list(classes))},\n"labels": {{\n', ",\n", "\n}}\n")
    write_json(media, places)
