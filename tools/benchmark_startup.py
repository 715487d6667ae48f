#!/usr/bin/env python
"""Times how several processes come to their first training step on
annotations of COCO's size, and how much they take.

    python tools/benchmark_startup.py  # 8 processes, 118,000 images
    python tools/benchmark_startup.py --processes 2 --masks

Processes start, read the config, and build model, optimizer and loaders, as in
a training of ResNet-50 C4 (with --masks, of Mask R-CNN C4). The first of them
reads the annotations of both data sets, and checks every entry and every
image's existence. "A process" is the one that took most.

Annotations are synthetic: 22 objects in three images, a polygon of 26 points
each. Images are empty files. Peak memory is resident memory with the
libraries' pages, which processes share.
"""

import argparse
import json
import os
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
import torch
from detectron2.utils import comm
from tabulate import tabulate
from tqdm import tqdm

from sact_det.base.command_line import check_positive
from sact_det.base.doing import doing
from sact_det.base.files import writable_file, write_json
from sact_det.base.processes import command_line
from sact_det.engine.launch import launch
from sact_det.tasks import load_config, task_of

CONFIGS = Path(__file__).parents[1] / "configs"
PLAIN, MASKS = CONFIGS / "own_data/plain_R_50_C4.yaml", CONFIGS / "COCO/plain_R_50_Mask_C4_1x.yaml"
CLASSES, POINTS, HEIGHT, WIDTH = 80, 26, 480, 640
VALIDATION = 24  # training images for each of the validation's


def write_annotations(folder: Path, name: str, images: int) -> tuple[str, str, str]:
    """Writes NAME.json and an empty file for every image; returns an entry of DATASETS.COCO_FORMAT."""
    rng, objects = random.Random(name), 0
    pictures: list[dict[str, Any]] = []
    root = folder / name
    root.mkdir()
    with open(folder / f"{name}.json", "w") as file:
        file.write('{"annotations": [')
        for image in tqdm(range(1, images + 1), desc=name, unit="image", disable=None):  # silent elsewhere
            pictures.append({"id": image, "file_name": f"{image:012d}.jpg", "height": HEIGHT, "width": WIDTH})
            (root / pictures[-1]["file_name"]).touch()
            for _ in range(7 if image % 3 else 8):
                file.write(", " * (objects > 0))
                objects += 1
                file.write(json.dumps({**an_object(rng), "id": objects, "image_id": image, "iscrowd": 0}))
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
        file.write(f'], "images": {json.dumps(pictures)}, "categories": {json.dumps(categories)}}}')
    return name, str(folder / f"{name}.json"), str(root)


def an_object(rng: random.Random) -> dict[str, Any]:
    width, height = rng.uniform(10, WIDTH / 2), rng.uniform(10, HEIGHT / 2)
    x, y = rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height)
    corners = [(x + width * rng.random(), y + height * rng.random()) for _ in range(POINTS)]
    return {
        "bbox": [round(value, 2) for value in (x, y, width, height)],
        "area": round(width * height / 2, 4),
        "category_id": rng.randint(1, CLASSES),
        "segmentation": [[round(value, 2) for corner in corners for value in corner]],
    }


def start(config: str, overrides: list[str], began: float, results: str) -> None:
    """What a process does before its first step; the main one writes down what all of them took."""
    cfg = load_config(config, overrides)
    trainer = task_of(cfg).trainer(cfg)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    images = len(trainer.data_loader.dataset)
    took = {"seconds": time.time() - began, "cpu_seconds": time.process_time(), "peak_mib": peak, "images": images}
    gathered = comm.gather(took)
    if comm.is_main_process():
        write_json(results, gathered)


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8, metavar="N", help="default: 8")
    parser.add_argument("--images", type=int, default=118_000, metavar="N", help="default: 118000")
    parser.add_argument("--masks", action="store_true", help="polygons are read, too")
    parser.add_argument("--json", metavar="FILE", help="writes the numbers there as well")
    return parser.parse_args(argv)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    check_positive(args, "--processes", "--images")
    if args.json is not None:
        writable_file(args.json)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="sact_det_startup_") as root:
        folder = Path(root)
        sets = [write_annotations(folder, "train", args.images)]
        sets.append(write_annotations(folder, "val", max(1, args.images // VALIDATION)))
        size = (folder / "train.json").stat().st_size
        overrides = ["DATASETS.COCO_FORMAT", str(sets), "DATASETS.TRAIN", "('train',)", "DATASETS.TEST", "('val',)"]
        overrides += ["SOLVER.IMS_PER_BATCH", str(args.processes), "SOLVER.REFERENCE_WORLD_SIZE", "0"]
        overrides += ["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu"]
        config = str(MASKS if args.masks else PLAIN)
        words = (config, [*overrides, "OUTPUT_DIR", str(folder)], time.time(), str(folder / "results.json"))
        with doing(f"{args.processes} processes come to their first step"):
            launch(start, args.processes, args=words)
        took = json.loads((folder / "results.json").read_text())
    row = {
        "processes": args.processes,
        "cores": os.cpu_count(),
        "images": args.images,
        "json, MB": round(size / 1e6),
        "seconds": round(max(one["seconds"] for one in took), 1),
        "CPU seconds a process": round(max(one["cpu_seconds"] for one in took), 1),
        "of all": round(sum(one["cpu_seconds"] for one in took), 1),
        "peak MiB a process": round(max(one["peak_mib"] for one in took)),
        "the least": round(min(one["peak_mib"] for one in took)),
    }
    print(tabulate([row], headers="keys", tablefmt="github"))
    if args.json is not None:
        write_json(args.json, {"torch": torch.__version__, **row, "of_each": took})


if __name__ == "__main__":
    main()
