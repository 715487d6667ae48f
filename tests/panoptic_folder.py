"""A small data set in COCO's panoptic format: noise images with things on two kinds of stuff."""

from pathlib import Path

import cv2
import numpy as np
from coco_folder import SIZES, write_json

from sact_det.data.coco_panoptic import pixels_of

CATEGORIES = [
    {"id": 3, "name": "box", "isthing": 1},
    {"id": 5, "name": "sky", "isthing": 0},
    {"id": 8, "name": "bar", "isthing": 1},
    {"id": 9, "name": "sea", "isthing": 0},
]


def write_panoptic_folder(root: Path, num_images: int = 6) -> tuple[str, str, str]:
    """Writes images, PNGs and panoptic.json below root; returns (json, folder of PNGs, image folder).

    In every image there are two things, the second of which covers a part of the first, sky above and sea below; a
    strip on the right has no label.
    """
    rng = np.random.default_rng(0)
    images, annotations, (photographs, pngs) = [], [], (root / "images", root / "png")
    for folder in (photographs, pngs):
        folder.mkdir(parents=True)
    for number in range(1, num_images + 1):
        height, width = SIZES[number % len(SIZES)]
        ids = np.zeros((height, width), np.int32)
        x, y = (int(v) for v in rng.integers(2, 30, 2))
        known = {70_000: 5, 2: 9, 300: 3, 4: 8}
        ids[: height // 2, :-8], ids[height // 2 :, :-8] = 70_000, 2
        ids[y : y + 30, x : x + 35], ids[y + 20 : y + 45, x + 10 : x + 50] = 300, 4
        pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        for index, segment in enumerate(known):
            pixels[ids == segment] += np.array([50 * index, 150 - 40 * index, 30 * index], np.uint8)
        cv2.imwrite(str(photographs / f"{number}.png"), pixels)
        cv2.imwrite(str(pngs / f"{number}.png"), np.ascontiguousarray(pixels_of(ids)[:, :, ::-1]))
        segments = []
        for segment, category in known.items():
            rows, columns = np.nonzero(ids == segment)
            x0, y0 = int(columns.min()), int(rows.min())
            bbox = [x0, y0, int(columns.max()) - x0 + 1, int(rows.max()) - y0 + 1]
            one = {"id": segment, "category_id": category, "bbox": bbox, "area": len(rows), "iscrowd": 0}
            segments.append(one)
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
    path = root / "panoptic.json"
    write_json(path, {"images": images, "annotations": annotations, "categories": CATEGORIES})
    return str(path), str(pngs), str(photographs)
