"""Small data sets of labelled noise images whose colour tells the class, and the layouts they are published in."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ((220, 40, 40), (40, 220, 40), (40, 40, 220))
SIZES = ((60, 80), (80, 60), (57, 71), (64, 64))  # (height, width)


def noise_image(label: int, number: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 RGB [H, W, 3], another one for every (label, number)."""
    height, width = size or SIZES[number % len(SIZES)]
    noise = np.random.default_rng([label, number]).integers(-40, 40, (height, width, 3))
    return np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)


def encoded(image: np.ndarray, form: str = "png") -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form)
    return buffer.getvalue()


def write_class_folders(root: Path, per_class: int = 4, classes: tuple[str, ...] = ("apple", "leaf", "sky")) -> str:
    """Writes root/CLASS/NUMBER.png; returns root."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            (root / name / f"{number}.png").write_bytes(encoded(noise_image(label, number)))
    return str(root)
