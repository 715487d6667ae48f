"""Images of the demo set with made-up fixations, to show that the saliency pipeline works. Nobody looked at them.

Most points of an image lie around its digits, some anywhere. They follow no model of human vision.
"""

import io
from pathlib import Path
from typing import Union

import numpy as np
from scipy.io import savemat

from sact_det.base.errors import InputError
from sact_det.base.files import replacing
from sact_det.base.text_files import read_json
from sact_det.data.demo import MAX_DIGITS, Box, DemoDataset

CATEGORIES = ("SyntheticFew", "SyntheticMany")  # images with up to 3 digits, and with more
POINTS = 60  # of an image
STRAY = 0.15  # share of them that lies anywhere
SPREAD = 0.3  # deviation of the others from the middle of a box, in its sides
NOTICE = """\
These fixations are SYNTHETIC: points drawn at random around the digits of the demo's images. Nobody looked at anything.
The folder has CAT2000's layout to show that the saliency pipeline works; scores on it say nothing about people.
"""


def make_synthetic_fixations(root: Union[str, Path], demo: DemoDataset, per_category: int = 40, seed: int = 0) -> Path:
    """Writes validation images of the demo set and made-up fixations, in CAT2000's layout.

    The same arguments always give the same images and points; what lies there is written again.

    Args:
        root: receives README.txt (NOTICE), Stimuli/<category>/NNNNN.png and FIXATIONLOCS/<category>/NNNNN.mat.
        demo: as `make_demo_dataset` returned it.
        per_category: images of each of CATEGORIES, at least 2; fewer if the set has no more.
        seed: non-negative.

    Returns:
        root.

    Raises:
        InputError: an argument is out of range.
        OSError: `root` cannot be written, or the demo set cannot be read.
    """
    if per_category < 2 or seed < 0:
        raise InputError(f"`per_category` must be at least 2 and `seed` 0 or more; got {per_category} and {seed}")
    root, coco = Path(root), read_json(demo.val_json)
    boxes: dict[int, list[Box]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        boxes[annotation["image_id"]].append(Box(*annotation["bbox"]))
    _write(root / "README.txt", NOTICE.encode())
    left = dict.fromkeys(CATEGORIES, per_category)
    for image in coco["images"]:
        name, own_boxes = Path(image["file_name"]), boxes[image["id"]]
        category = CATEGORIES[len(own_boxes) > MAX_DIGITS // 2]
        if not left[category]:
            continue
        left[category] -= 1
        rng = np.random.default_rng([seed, image["id"]])
        with io.BytesIO() as file:
            savemat(file, {"fixLocs": _draw(rng, own_boxes, (image["height"], image["width"]))}, do_compression=True)
            _write(root / "FIXATIONLOCS" / category / f"{name.stem}.mat", file.getvalue())
        _write(root / "Stimuli" / category / name.name, (demo.val_images / name).read_bytes())
    return root


def _draw(rng: np.random.Generator, boxes: list[Box], shape: tuple[int, int]) -> np.ndarray:
    """A binary map of fixated pixels, uint8 of `shape` (H, W)."""
    limits = np.array([shape[1], shape[0]])
    corners, sizes = np.split(np.array(boxes, float)[rng.integers(len(boxes), size=POINTS)], 2, axis=1)
    points = corners + sizes / 2 + SPREAD * sizes * rng.normal(size=(POINTS, 2))
    stray = rng.random(POINTS) < STRAY
    points[stray] = rng.random((int(stray.sum()), 2)) * limits
    x, y = np.clip(points, 0, limits - 1).astype(int).T
    locations = np.zeros(shape, np.uint8)
    locations[y, x] = 1
    return locations


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
