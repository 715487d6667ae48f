"""Images with fixations, and what another program says about them: maps, and log densities."""

import json

import cv2
import h5py
import numpy as np
from cat2000_folder import write_cat2000_folder
from command_lines import load_tool

from saliency.cat2000 import read_cat2000
from saliency.dataset import FixationDataset, FixationImage
from saliency.fixations import Fixations

tool = load_tool("evaluate_saliency")


def synthetic(number=5, shapes=((60, 90),)):
    """Images whose fixations gather in the middle, some on one pixel."""
    rng = np.random.default_rng(0)
    images = []
    for index in range(number):
        shape = shapes[index % len(shapes)]
        middle = np.array(shape[::-1]) / 2
        points = np.clip(rng.normal(middle, middle / 3, (30 + index, 2)), 0, np.array(shape[::-1]) - 1)
        points[:4] = points[0]
        pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        images.append(FixationImage(str(index), "", Fixations.from_points(points, shape), pixels))
    return FixationDataset("synthetic", images)


def tied_map(index, shape):
    """A map with few distinct values, as ponder maps have."""
    noise = np.random.default_rng(index).random(shape)
    return np.round(cv2.GaussianBlur(noise, (0, 0), 3), 2) + 0.5


def density_of(values):
    powers = np.exp(30 * values)
    return np.log(powers / powers.sum())


def without(density, pixels):
    """The density with probability 0 at some pixels, numbered row by row: ln p is -inf there."""
    values = np.exp(density).reshape(-1)
    values[pixels] = 0
    with np.errstate(divide="ignore"):
        return np.log(values / values.sum()).reshape(density.shape)


def write_given_maps(folder):
    """A data set, maps of it as .npy, and log densities in pysaliency's layout."""
    root = write_cat2000_folder(folder / "set")
    with h5py.File(folder / "densities.h5", "w") as file:
        for number, image in enumerate(read_cat2000(root)):
            values = tied_map(number, image.shape)
            path = folder / "maps" / f"{image.name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, values)
            file[f"{image.name}.jpg"] = density_of(values).astype(np.float32)
    return folder


def evaluated(folder, *options):
    output = folder / "out"
    arguments = ["--dataset", str(folder / "set"), "--output", str(output), "--processes", "1", *options]
    tool.main([*arguments, "--density-sigma", "5"])
    return json.loads((output / "results.json").read_text()), (output / "images.csv").read_text().splitlines()
