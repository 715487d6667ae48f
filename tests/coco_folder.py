"""A small COCO-format data set of noise images, with everything a detector can be asked to train on."""

import json
from pathlib import Path

import cv2
import numpy as np

SIZES = ((96, 128), (128, 96), (97, 131), (100, 100))  # (height, width)


def write_coco_folder(root: Path, num_images: int = 8, category_ids: tuple[int, ...] = (1, 4, 9)) -> tuple[str, str]:
    """Writes images and instances.json below root; returns (json, image folder). Two boxes per image."""
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
        cv2.imwrite(str(root / f"{number + 1}.png"), pixels)
        images.append({"id": number + 1, "file_name": f"{number + 1}.png", "height": height, "width": width})
    categories = [{"id": i, "name": f"class {i}"} for i in category_ids]
    path = root / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return str(path), str(root)
