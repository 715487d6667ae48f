"""COCO's mAP of boxes, by COCO's own program, whatever a file in COCO format has for ids and names."""

import contextlib
import io
import itertools
import json
import logging
import math
from pathlib import Path
from typing import Any, Sequence

from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import COCOeval_opt, COCOevalMaxDets, instances_to_coco_json
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from pycocotools.coco import COCO

from sact_det.base.errors import InputError
from sact_det.base.files import replacing
from sact_det.data.coco_boxes import CocoBoxes, coco_boxes
from sact_det.data.coco_json import read_coco

logger = logging.getLogger(__name__)

_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_COCO_MAX_DETECTIONS = 100


class _COCOeval(COCOevalMaxDets, COCOeval_opt):
    """COCOeval, fast, that summarizes more than 100 detections an image."""


class BoxEvaluator(DatasetEvaluator):
    """AP over IoU 0.5 to 0.95, in percent, with the numbers of Detectron2's COCOEvaluator on COCO's own files.

    * The ground truth is what `coco_boxes` finds, as in training: clipped to the image, with the box's area where the
      file has no usable one.
    * COCO's program gets copies with ids of its own, for it takes an annotation of id 0 for none.
    * All detections count that the model gives: 100 an image as in COCO, more where an image has more
      (TEST.DETECTIONS_PER_IMAGE), which the printed columns name.
    * A category has its own AP, 0 where nothing of it is found and NaN where there is nothing to find; so has the set.
    * output_dir/coco_instances_results.json appears whole or not at all; there is no pickled copy of it.

    Args:
        dataset_name: a registered data set.
        output_dir: where the boxes go, in COCO's result format with the ids of the file.

    Raises:
        InputError: the data set's file cannot be used.
    """

    def __init__(self, dataset_name: str, output_dir: str):
        self._truth = _ground_truth(dataset_name)
        self._results_file = Path(output_dir) / "coco_instances_results.json"
        self.reset()

    def reset(self) -> None:
        """Forgets what was processed."""
        self._detections: list[list[dict[str, Any]]] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Takes the "instances" of each output."""
        for item, output in zip(inputs, outputs):
            self.take(self.row(item, output))

    def row(self, item: dict[str, Any], output: dict[str, Any]) -> list[dict[str, Any]]:
        """What is kept of an image, from a model's input and output: its boxes as plain values."""
        return instances_to_coco_json(output["instances"].to("cpu"), item["image_id"])

    def take(self, row: list[dict[str, Any]]) -> None:
        """Takes the `row` of an image, of this run or an earlier one."""
        self._detections.append(row)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """{"bbox": {...}} on the main process, nothing on the others.

        Keys: AP, AP50, AP75; APs, APm, APl by the area of the object; AP-NAME of each of several categories.

        Raises:
            InputError: the model has more classes than the data set.
            OSError: the boxes cannot be written.
        """
        gathered = comm.gather(self._detections)
        if not comm.is_main_process():
            return {}
        per_image = list(itertools.chain(*gathered))
        if not per_image:
            logger.warning("[BoxEvaluator] Did not receive any predictions.")
            return {}
        detections = list(itertools.chain(*per_image))
        self._check_classes(detections)
        self._write(detections)
        results = self._results(detections, max(_COCO_MAX_DETECTIONS, *map(len, per_image)))
        logger.info("Evaluation of boxes:\n%s", create_small_table({key: results[key] for key in _METRICS}))
        if len(self._truth.categories) > 1:
            by_category = (f"{key.removeprefix('AP-')} {ap:.2f}" for key, ap in results.items() if key not in _METRICS)
            logger.info("AP by category: %s", ", ".join(by_category))
        return {"bbox": results}

    def _check_classes(self, detections: Sequence[dict[str, Any]]) -> None:
        most, there = max((box["category_id"] for box in detections), default=-1), len(self._truth.categories)
        if most >= there:
            raise InputError(
                f"MODEL.ROI_HEADS.NUM_CLASSES must be {there}, the data set's; the model found class {most}"
            )

    def _write(self, detections: Sequence[dict[str, Any]]) -> None:
        ids = list(self._truth.categories)
        boxes = [{**box, "category_id": ids[box["category_id"]]} for box in detections]
        with replacing(self._results_file) as temporary:
            temporary.write_text(json.dumps(boxes))

    def _results(self, detections: Sequence[dict[str, Any]], max_detections: int) -> dict[str, float]:
        truth = [{**box._asdict(), "category_id": box.category, "bbox": list(box.bbox)} for box in self._truth.boxes]
        found = [{**box, "area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0} for box in detections]
        evaluation = _COCOeval(self._coco(truth), self._coco(found), "bbox")
        evaluation.params.maxDets = [1, 10, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        results = {key: _percent(value) for key, value in zip(_METRICS, evaluation.stats)}
        if len(self._truth.categories) > 1:
            # [IoU thresholds, recall thresholds, categories, areas (all first), numbers of detections (most last)]
            precisions = evaluation.eval["precision"][:, :, :, 0, -1]
            for number, name in enumerate(self._truth.categories.values()):
                known = precisions[:, :, number][precisions[:, :, number] > -1]
                results[f"AP-{name}"] = _percent(known.mean() if known.size else -1)
        return results

    def _coco(self, boxes: Sequence[dict[str, Any]]) -> COCO:
        """Boxes for COCO's program: images and boxes numbered from 1, categories from 0."""
        images = {image.id: number for number, image in enumerate(self._truth.images, start=1)}
        coco = COCO()
        coco.dataset = {
            "images": [{"id": number} for number in images.values()],
            "categories": [{"id": number} for number in range(len(self._truth.categories))],
            "annotations": [
                {**box, "id": number, "image_id": images[box["image_id"]]} for number, box in enumerate(boxes, start=1)
            ],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco


def _ground_truth(dataset_name: str) -> CocoBoxes:
    metadata = MetadataCatalog.get(dataset_name)
    if "json_file" not in metadata.as_dict():
        return coco_boxes(dataset_name, convert_to_coco_dict(dataset_name))
    json_file = PathManager.get_local_path(metadata.json_file)
    return coco_boxes(json_file, read_coco(json_file, required=("images", "categories")))


def _percent(value: float) -> float:
    """What COCO's program says with -1, nothing to be judged, is NaN."""
    return float(value * 100) if value > -1 else math.nan
