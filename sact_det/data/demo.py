"""A small detection set made on the spot, without a download: handwritten digits on crops of photographs.

Both come inside the scikit-learn and scikit-image wheels: the 1797 digits of 8x8 pixels as `load_digits`, and the
photographs listed in `PHOTOGRAPHS` with their licences. An image depends on its seed, split, number and size alone.
Train and val share nothing: the digits are divided by index, and every photograph by a vertical line.

Shape shorthand in this module: H, W - size of an image; h, w - size of a box; colours are BGR, as OpenCV has them.
"""

import functools
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import cv2
import numpy as np
from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.base.files import replacing, write_json
from sact_det.base.text_files import read_json

CLASSES = tuple("0123456789")
MAX_DIGITS = 6  # per image
SIDES = (24, 72)  # pixels, the range of the longer side of a box, drawn log-uniformly
MAX_ANGLE = 25.0  # degrees, to either side
MAX_COVERED = 0.1  # the part of a box that another box may cover
BACKGROUND_LIGHT = 0.55  # the share of a photograph's brightness that is kept, so that bright digits stand out
MIN_CONTRAST = 110.0  # of 255, between the luma of a digit and the mean luma behind it
TRAIN_SHARE = 0.6  # of the digits, the first ones; of every photograph, the left part

# package/path of each photograph, what its package says of author and licence, and the address it gives.
PHOTOGRAPHS = {
    "skimage/data/astronaut.png": ("NASA, public domain", "https://flic.kr/p/r9qvLn"),
    "skimage/data/chelsea.png": ("Stefan van der Walt, CC0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "skimage/data/coffee.png": ("Rachel Michetti, CC0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "skimage/data/rocket.jpg": ("SpaceX, public domain", "https://www.flickr.com/photos/spacexphotos/16511594820/"),
    "sklearn/datasets/images/china.jpg": (
        "danielbuechele, CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/)",
        "https://www.flickr.com/photos/danielbuechele/6061409035/",
    ),
    "sklearn/datasets/images/flower.jpg": (
        "vultilion, CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/)",
        "https://www.flickr.com/photos/vultilion/6056698931/",
    ),
}

_RECIPE = 1  # raised with every change that alters the images
_CELL = 10  # the contour of a digit is found at this many pixels per pixel of its 8x8
_CONTOUR = (0.33, 0.55)  # no ink below the first, full ink above the second; the 8x8 reach 1
_PLACES = 20  # tried for a digit before it is left out
_LUMA = np.array([0.114, 0.587, 0.299])  # of a BGR colour


class DemoDataset(NamedTuple):
    """Where the set lies: for each split the COCO json, and the folder that its file names start from."""

    train_json: Path
    train_images: Path
    val_json: Path
    val_images: Path


class Box(NamedTuple):
    """COCO's box in whole pixels: left, top, width, height."""

    x: int
    y: int
    w: int
    h: int

    def covers(self, other: "Box") -> float:
        """The part of `other` that lies inside this box, 0 to 1."""
        w = min(self.x + self.w, other.x + other.w) - max(self.x, other.x)
        h = min(self.y + self.h, other.y + other.h) - max(self.y, other.y)
        return max(w, 0) * max(h, 0) / (other.w * other.h)


def make_demo_dataset(
    root: Union[str, Path],
    num_train: int = 1200,
    num_val: int = 300,
    image_size: tuple[int, int] = (128, 160),
    seed: int = 0,
) -> DemoDataset:
    """Writes the set below `root`, or finds it finished there; the same arguments always give the same bytes.

    An image shows 1 to 6 bright digits, each in a box tight around its ink whose longer side measures 24 to 72 pixels.
    Beyond COCO's own keys an image has its `photograph` and, in pixels of that, its `crop` (x, y, width, height);
    an annotation has the `digit_index` in `load_digits`. Its `area` is that of the box. The json files are written
    last, so that they mark a finished set; what an interrupted run left is overwritten.

    Args:
        root: receives images/{train,val}/NNNNN.png and annotations/instances_{train,val}.json.
        num_train: number of training images, at least 1.
        num_val: number of validation images, at least 1.
        image_size: (H, W) of every image in pixels, each at least 64.
        seed: non-negative; another seed gives other images of the same digits and photographs.

    Raises:
        InputError: an argument is out of range, `root` holds another set, or scikit-learn or scikit-image is missing.
        OSError: `root` cannot be read or written.
    """
    if min(num_train, num_val) < 1 or min(image_size) < SIDES[1] or seed < 0:
        raise InputError(
            f"demo set: expected `num_train` and `num_val` >= 1, `image_size` >= {SIDES[1]} and `seed` >= 0, "
            f"got {num_train}, {num_val}, {tuple(image_size)} and {seed}"
        )
    root = Path(root)
    annotations, images = root / "annotations", root / "images"
    dataset = DemoDataset(
        annotations / "instances_train.json", images / "train", annotations / "instances_val.json", images / "val"
    )
    parameters = {
        "recipe": _RECIPE,
        "num_train": num_train,
        "num_val": num_val,
        "image_size": list(image_size),
        "seed": seed,
    }
    train_is_there = _is_finished(dataset.train_json, dataset.train_images, parameters)
    val_is_there = _is_finished(dataset.val_json, dataset.val_images, parameters)
    if not (train_is_there and val_is_there):
        train = _write_images(dataset.train_images, "train", parameters)
        val = _write_images(dataset.val_images, "val", parameters)
        write_json(dataset.train_json, train)
        write_json(dataset.val_json, val)
    return dataset


def background(image: dict[str, Any]) -> np.ndarray:
    """The darkened photograph crop, without digits, behind an entry of `images`: uint8 [H, W, 3], BGR.

    Raises:
        InputError: scikit-learn or scikit-image is missing.
    """
    x, y, w, h = image["crop"]
    crop = _photograph(image["photograph"])[y : y + h, x : x + w]
    resized = cv2.resize(crop, (image["width"], image["height"]), interpolation=cv2.INTER_AREA)
    return np.rint(BACKGROUND_LIGHT * resized).astype(np.uint8)


def _is_finished(annotations: Path, images: Path, parameters: dict[str, Any]) -> bool:
    """Whether this split is there, complete. Raises InputError if there is one of other parameters, or not of ours."""
    if not annotations.exists():
        return False
    try:
        coco = read_json(annotations)
        found = coco["info"]["parameters"]
        files = [images / image["file_name"] for image in coco["images"]]
    except (ValueError, LookupError, TypeError):
        raise InputError(f"{annotations}: is not of a demo set and is not overwritten; choose another folder") from None
    if found != parameters:
        raise InputError(
            f"{annotations}: is of a demo set with {found}, expected {parameters}; choose another folder or remove it"
        )
    return all(file.is_file() for file in files)


def _empty_coco(split: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """COCO annotations that lack only images and annotations; `info` keeps what the set was made with."""
    return {
        "info": {"description": f"Handwritten digits on photographs, {split}", "parameters": parameters},
        "licenses": [
            {"id": i, "name": f"{photograph}: {terms}", "url": url}
            for i, (photograph, (terms, url)) in enumerate(PHOTOGRAPHS.items(), start=1)
        ],
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name, "supercategory": "digit"} for i, name in enumerate(CLASSES, start=1)],
    }


def _write_images(folder: Path, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Writes the images of one split to `folder` and returns its COCO annotations."""
    digits, labels = _digits()
    first_val = round(TRAIN_SHARE * len(digits))
    own_digits = np.arange(first_val) if split == "train" else np.arange(first_val, len(digits))
    height, width = parameters["image_size"]
    photographs = [(name, _photograph(name).shape[:2]) for name in PHOTOGRAPHS]
    coco = _empty_coco(split, parameters)
    for number in tqdm(range(parameters[f"num_{split}"]), desc=f"demo set, {split}", unit="image"):
        rng = np.random.default_rng([parameters["seed"], int(split == "val"), number])
        choice = int(rng.integers(len(photographs)))
        photograph, photograph_size = photographs[choice]
        image = {
            "id": number,
            "file_name": f"{number:05d}.png",
            "width": width,
            "height": height,
            "license": choice + 1,
            "photograph": photograph,
            "crop": _draw_crop(rng, photograph_size, split, (height, width)),
        }
        pixels = background(image)
        boxes: list[Box] = []
        for index in rng.choice(own_digits, size=rng.integers(1, MAX_DIGITS + 1), replace=False):
            alpha = _draw_ink(rng, digits[index])
            box = _draw_place(rng, alpha.shape, (height, width), boxes)
            if box is None:
                continue
            boxes.append(box)
            _paint(rng, pixels[box.y : box.y + box.h, box.x : box.x + box.w], alpha)
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": number,
                    "category_id": int(labels[index]) + 1,
                    "bbox": list(box),
                    "area": box.w * box.h,
                    "iscrowd": 0,
                    "digit_index": int(index),
                }
            )
        coco["images"].append(image)
        with replacing(folder / image["file_name"]) as temporary:
            temporary.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return coco


def _draw_crop(rng: np.random.Generator, photograph: tuple[int, int], split: str, image: tuple[int, int]) -> list[int]:
    """A crop (x, y, width, height) of the image's shape inside the split's part of a photograph; sizes are (H, W).

    It is at least as large as the image where the part has room for that.
    """
    border = round(TRAIN_SHARE * photograph[1])
    left, right = (0, border) if split == "train" else (border, photograph[1])
    largest = min(photograph[0] / image[0], (right - left) / image[1])
    scale = rng.uniform(min(1.0, largest), largest)
    h, w = int(scale * image[0]), int(scale * image[1])
    return [int(rng.integers(left, right - w + 1)), int(rng.integers(photograph[0] - h + 1)), w, h]


def _draw_ink(rng: np.random.Generator, digit: np.ndarray) -> np.ndarray:
    """Turns and scales a digit, float32 [8, 8] in 0..1, to its ink: float32 [h, w] in 0..1, cropped to what is > 0."""
    angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
    side = round(float(np.exp(rng.uniform(*np.log(SIDES)))))
    canvas = 14 * _CELL  # a turned digit measures less than 8 * sqrt(2) cells, and its cubic one more to each side
    to_middle = np.array([[0, 0, canvas / 2 - 3.5]] * 2)
    matrix = cv2.getRotationMatrix2D((3.5, 3.5), angle, _CELL) + to_middle
    low, high = _CONTOUR
    smooth = cv2.warpAffine(digit, matrix, (canvas, canvas), flags=cv2.INTER_CUBIC)
    ink = np.clip((smooth - low) / (high - low), 0, 1)
    x, y, w, h = cv2.boundingRect((ink > 0).astype(np.uint8))
    scale = side / max(h, w)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    return cv2.resize(ink[y : y + h, x : x + w], size, interpolation=cv2.INTER_AREA)


def _draw_place(
    rng: np.random.Generator, size: tuple[int, ...], image: tuple[int, int], others: list[Box]
) -> Optional[Box]:
    """A place for a box of `size` (h, w) clear of the others inside an image of (H, W); None if none was found."""
    h, w = size
    for _ in range(_PLACES):
        box = Box(int(rng.integers(image[1] - w + 1)), int(rng.integers(image[0] - h + 1)), w, h)
        if all(max(box.covers(other), other.covers(box)) <= MAX_COVERED for other in others):
            return box
    return None


def _paint(rng: np.random.Generator, pixels: np.ndarray, alpha: np.ndarray) -> None:
    """Paints ink of a random colour, lighter than what is behind it, into uint8 [h, w, 3]."""
    colour = rng.uniform(0, 255, size=3)
    wanted = float((pixels @ _LUMA).mean()) + MIN_CONTRAST
    luma = float(colour @ _LUMA)
    colour += (255 - colour) * np.clip((wanted - luma) / (255 - luma), 0, 1)
    pixels[:] = np.rint(pixels + (colour - pixels) * alpha[:, :, None])


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """The handwritten digits, float32 [1797, 8, 8] in 0..1, and their labels, int64 [1797]."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise _missing() from error
    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target


@functools.cache
def _photograph(name: str) -> np.ndarray:
    """The file `name`, package/path, of an installed package: uint8 [height, width, 3], BGR."""
    package, path = name.split("/", 1)
    try:
        data = (resources.files(package) / path).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise _missing() from error
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise _missing()
    return pixels


def _missing() -> InputError:
    return InputError("the demo set is made from data of scikit-learn and scikit-image: pip install sact_det[demo]")
