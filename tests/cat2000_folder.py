"""A tiny folder in CAT2000's layout, made on the spot."""

from pathlib import Path

import cv2
import numpy as np
from scipy.io import savemat

SHAPE = (36, 64)
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "osie_cat2000"


def write_cat2000_folder(root, categories=("Action", "Social"), numbers=(1, 2, 4, 10), shape=SHAPE, seed=0):
    """Images of noise, each with 12 fixated pixels near its middle; returns `root`."""
    rng = np.random.default_rng(seed)
    for category in categories:
        (root / "Stimuli" / category / "Output").mkdir(parents=True)
        (root / "FIXATIONLOCS" / category).mkdir(parents=True)
        for number in numbers:
            image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
            cv2.imwrite(str(root / "Stimuli" / category / f"{number:03}.jpg"), image)
            cv2.imwrite(str(root / "Stimuli" / category / "Output" / f"{number:03}_SaliencyMap.jpg"), image[:, :, 0])
            write_locations(root / "FIXATIONLOCS" / category / f"{number:03}.mat", random_locations(rng, shape))
    return root


def random_locations(rng, shape=SHAPE, number=12):
    """A binary map of fixated pixels, uint8."""
    middle = np.array(shape) / 2
    points = np.clip(rng.normal(middle, middle / 3, (number, 2)), 0, np.array(shape) - 1).astype(int)
    locations = np.zeros(shape, np.uint8)
    locations[points[:, 0], points[:, 1]] = 1
    return locations


def write_locations(path, locations, variable="fixLocs"):
    savemat(path, {variable: locations}, do_compression=True)


def cells(*content):
    """A cell array, as savemat writes it."""
    made = np.empty((1, len(content)), object)
    made[0, :] = content
    return made
