"""A small COCO-format data set of noise images, with everything a detector can be asked to train on."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[1] / "configs/tests/tiny.yaml")
SIZES = ((96, 128), (128, 96), (97, 131), (100, 100))  # (height, width)


KEYPOINTS = ["left_corner", "right_corner", "middle"]


def write_coco_folder(
    root: Path,
    num_images: int = 8,
    category_ids: tuple[int, ...] = (1, 4, 9),
    masks: bool = False,
    keypoints: bool = False,
) -> tuple[str, str]:
    """Writes images and instances.json below root; returns (json, image folder). Two boxes per image.

    Objects have, if asked for, a mask without two of the box's corners, and three keypoints, the last one hidden.
    """
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(num_images):
        height, width = SIZES[number % len(SIZES)]
        pixels = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
        for offset in (0, 1):
            x, y = (int(v) for v in rng.integers(0, 40, 2))
            category = category_ids[(number + offset) % len(category_ids)]
            cv2.rectangle(pixels, (x, y), (x + 40, y + 40), (20 * category, 255 - 20 * category, 128), -1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": category,
                    "bbox": [x, y, 40, 40],
                    "area": 1600,
                    "iscrowd": 0,
                }
            )
            if masks:
                corners = [x, y, x + 25, y, x + 40, y + 15, x + 40, y + 40, x + 15, y + 40, x, y + 25]
                annotations[-1].update(segmentation=[corners], area=1600 - 225)
            if keypoints:
                points = [x + 1, y + 2, 2, x + 38, y + 2, 2, x + 20, y + 20, 1]
                annotations[-1].update(keypoints=points, num_keypoints=3)
        cv2.imwrite(str(root / f"{number + 1}.png"), pixels)
        images.append({"id": number + 1, "file_name": f"{number + 1}.png", "height": height, "width": width})
    named = {"keypoints": KEYPOINTS, "skeleton": [[1, 3], [3, 2]]} if keypoints else {}
    categories = [{"id": i, "name": f"class {i}", **named} for i in category_ids]
    path = root / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return str(path), str(root)


def write_json(path: str | Path, content: object) -> None:
    """Writes what json knows."""
    Path(path).write_text(json.dumps(content))


def read_json(path: str | Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(Path(path).read_text())


def toy_config(files: tuple[str, str], *more: str) -> Any:
    """The tiny detector's config with such a folder as the data set "toy", to be tested on."""
    return load_config(TINY, ["DATASETS.COCO_FORMAT", str([("toy", *files)]), "DATASETS.TEST", "('toy',)", *more])
