"""AP and FLOPs of a detector over a data set, by the project's own evaluation; and which of its images are timed."""

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import inference_on_dataset
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.base.files import file_sha256
from sact_det.base.text_files import read_json
from sact_det.benchmark.setting import Setting
from sact_det.data.coco import register_coco_file
from sact_det.data.coco_boxes import coco_boxes
from sact_det.data.coco_json import read_coco
from sact_det.data.subsets import evenly
from sact_det.detection.loader import build_test_loader
from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.checkpoint import local_weights
from sact_det.engine.fingerprint import fingerprint


def register_few(name: str, most: int, folder: str, option: str = "--ap-images") -> str:
    """Registers at most so many images of a data set, evenly spread by id, as one of its own. Returns its name.

    Args:
        name: of a registered data set.
        most: images.
        folder: where its file goes; it must stay as long as the data set is used.
        option: of a command line, that asks for it.

    Raises:
        InputError: the data set is not one of a file in COCO format.
    """
    metadata = MetadataCatalog.get(name).as_dict()
    if "json_file" not in metadata or "image_root" not in metadata:
        raise InputError(f"{option}: {name!r} is no data set of a file in COCO format, which could be cut")
    json_file = PathManager.get_local_path(metadata["json_file"])
    content = read_coco(json_file)
    all_images = coco_boxes(json_file, content).images
    ids = {image.id for image in evenly(all_images, most)}
    images = [image for image in content["images"] if image["id"] in ids]
    annotations = [annotation for annotation in content["annotations"] if annotation["image_id"] in ids]
    few = f"{name}_{len(images)}_of_{len(all_images)}"
    path = Path(folder) / f"{few}.json"
    path.write_text(json.dumps({**content, "images": images, "annotations": annotations}), encoding="utf-8")
    shapes = (metadata.get("masks", False), metadata.get("keypoints", False))
    register_coco_file(few, str(path), metadata["image_root"], *shapes)
    return few


def timed_batches(cfg: CfgNode, dataset: str, most: int, batch: int = 1) -> list[list[tuple[Any, Tensor]]]:
    """Evenly spread images of a data set as the config's loader gives them, (id, [3, H, W]), `batch` in each list.

    Images of a batch are alike in their aspect ratio, so that little of it is padding, and those are left out that do
    not fill one. Which they are, and in which order, does not depend on the config.

    Raises:
        InputError: the data set, or an image of it, cannot be used, or there are too few for a batch.
    """
    items = build_test_loader(cfg, dataset).dataset
    chosen = [items[index] for index in evenly(range(len(items)), most)]  # type: ignore[arg-type]
    if len(chosen) < batch:
        raise InputError(f"--batch {batch}: {dataset!r} has {len(chosen)} images to time (see --max-images)")
    if batch > 1:
        chosen.sort(key=lambda item: item["width"] / item["height"])
    images = [(item["image_id"], item["image"]) for item in chosen[: len(chosen) // batch * batch]]
    return [images[first : first + batch] for first in range(0, len(images), batch)]


def evaluation_key(cfg: CfgNode, dataset: str, precision: str = "fp32") -> str:
    """Tells evaluations apart that may give other results: by weights, config, annotations and precision."""
    json_file = MetadataCatalog.get(dataset).get("json_file")
    path = None if json_file is None else PathManager.get_local_path(json_file)
    data = file_sha256(path) if path is not None and os.path.isfile(path) else path  # labels of YOLO are a folder
    weights = file_sha256(local_weights(cfg.MODEL.WEIGHTS))
    return fingerprint(cfg, f"{weights} {data} {dataset} {precision}")


def evaluate(cfg: CfgNode, model: nn.Module, dataset: str, setting: Setting) -> dict[str, Any]:
    """What a model is worth on all images of a data set, and what it takes: plain values.

    Keys: "bbox" and "ponder", the results of BoxEvaluator and PonderEvaluator, and "images", a row for each with
    "image_id", "height" and "width" as the network saw it, "regions" and "gflops" of the whole detector.

    Raises:
        InputError: the data set cannot be used, or is not the model's.
    """
    with tempfile.TemporaryDirectory() as folder:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = folder
        loader = DetectionTrainer.build_test_loader(cfg, dataset)
        evaluator = DetectionTrainer.build_evaluator(cfg, dataset)
        with setting.autocast(), contextlib.redirect_stdout(io.StringIO()):  # COCO's program prints
            results = inference_on_dataset(model, setting.bar(loader), evaluator)
        rows = read_json(Path(folder) / "inference" / dataset / "ponder.json")["images"]
    kept = ("image_id", "height", "width", "regions")
    images = [{**{key: row[key] for key in kept}, "gflops": row["detector_flops"]["total"] / 1e9} for row in rows]
    return {**results, "images": images}
