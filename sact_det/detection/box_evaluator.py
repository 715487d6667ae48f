"""COCO's mAP of boxes, masks and keypoints, by COCO's own program, whatever a file has for ids and names."""

import contextlib
import io
import itertools
import json
import logging
import math
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import COCOeval_opt, COCOevalMaxDets, instances_to_coco_json
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import Params

from sact_det.base.errors import InputError
from sact_det.base.files import replacing
from sact_det.data.coco_boxes import Box, CocoBoxes, coco_boxes, has_area
from sact_det.data.coco_file import coco_file
from sact_det.data.coco_panoptic import instances_of
from sact_det.data.coco_shapes import as_rle, labelled, mask_area, read_keypoints, read_segmentation

logger = logging.getLogger(__name__)

_METRICS = {
    "bbox": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "segm": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl"),
}
_NOUNS = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
COCO_SIGMAS = Params("keypoints").kpt_oks_sigmas
_COCO_MAX_DETECTIONS = 100


class _COCOeval(COCOevalMaxDets, COCOeval_opt):
    """COCOeval, fast, that summarizes more than 100 detections an image."""


class BoxEvaluator(DatasetEvaluator):
    """AP over IoU 0.5 to 0.95, in percent, with the numbers of Detectron2's COCOEvaluator on COCO's own files.

    * The ground truth is what `coco_boxes` finds, as in training: clipped to the image, with the box's area where the
      file has no usable one.
    * COCO's program gets copies with ids of its own, for it takes an annotation of id 0 for none.
    * All detections count that the model gives: 100 an image as in COCO, more where an image has more
      (TEST.DETECTIONS_PER_IMAGE), which the printed columns name. Of keypoints COCO counts 20 an image.
    * A category has its own AP, 0 where nothing of it is found and NaN where there is nothing to find; so has the set.
    * What the file does not say is not judged: of an object without a mask, a mask inside its box counts neither as
      found nor as wrong, as in a crowd; an object without labelled keypoints is passed over, as in COCO.
    * output_dir/coco_instances_results.json appears whole or not at all; there is no pickled copy of it.

    Args:
        dataset_name: a registered data set.
        output_dir: where the boxes go, with masks and keypoints, in COCO's result format with the ids of the file.
        masks: whether masks are judged.
        sigmas: of COCO's keypoint similarity (OKS), one for each keypoint; None: keypoints are not judged.

    Raises:
        InputError: the data set's file cannot be used, or has no masks or keypoints to judge.
    """

    def __init__(
        self, dataset_name: str, output_dir: str, masks: bool = False, sigmas: Optional[Sequence[float]] = None
    ):
        self._sigmas = sigmas
        self._tasks = ("bbox", *(("segm",) if masks else ()), *(() if sigmas is None else ("keypoints",)))
        self._json_file, self._truth = _ground_truth(dataset_name, masks)
        self._sizes = {image.id: (image.height, image.width) for image in self._truth.images}
        self._objects = {task: [self._object(box, task) for box in self._truth.boxes] for task in self._tasks}
        if masks and self._truth.boxes and not any(box.annotation.segmentation for box in self._truth.boxes):
            raise InputError(
                f"{self._json_file}: has boxes only, no segmentation of any object; MODEL.MASK_ON needs them"
            )
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
        """What is kept of an image, from a model's input and output: its boxes, masks and keypoints as plain values."""
        return coco_results(output["instances"], item["image_id"])

    def take(self, row: list[dict[str, Any]]) -> None:
        """Takes the `row` of an image, of this run or an earlier one."""
        self._detections.append(row)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """{"bbox": {...}} on the main process, and "segm" and "keypoints" where they are judged; nothing on the others.

        Keys: AP, AP50, AP75; APs (not of keypoints), APm, APl by the area of the object; AP-NAME of each of several
        categories.

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
        most = max(_COCO_MAX_DETECTIONS, *map(len, per_image))
        found = {task: self._results(task, detections, most) for task in self._tasks}
        for task, results in found.items():
            metrics = _METRICS[task]
            table = create_small_table({key: results[key] for key in metrics})
            logger.info("Evaluation of %s:\n%s", _NOUNS[task], table)
            if len(self._truth.categories) > 1:
                by_category = (
                    f"{key.removeprefix('AP-')} {ap:.2f}" for key, ap in results.items() if key not in metrics
                )
                logger.info("AP by category: %s", ", ".join(by_category))
        return found

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

    def _object(self, box: Box, task: str) -> dict[str, Any]:
        """What COCO's program needs of an object for a task."""
        known: dict[str, Any] = {"image_id": box.image_id, "category_id": box.category, "bbox": list(box.bbox)}
        known |= {"area": box.area, "iscrowd": int(box.iscrowd)}
        if task == "keypoints":
            assert self._sigmas is not None
            points = read_keypoints(self._json_file, box.annotation, len(self._sigmas))
            return {**known, "keypoints": points, "num_keypoints": labelled(points)}
        mask = read_segmentation(self._json_file, box.annotation) if task == "segm" else None
        if task == "segm" and mask is None:
            x, y, width, height = box.bbox
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            return {**known, "segmentation": as_rle([corners], self._sizes[box.image_id]), "iscrowd": 1}
        if mask is not None:
            known["segmentation"] = as_rle(mask, self._sizes[box.image_id])
            if not has_area(box.annotation):
                known["area"] = mask_area(mask, self._sizes[box.image_id])
        return known

    def _found(self, detection: dict[str, Any], task: str) -> dict[str, Any]:
        """The same of a detection: its area is the mask's or, as in Detectron2 of keypoints too, the box's."""
        _, _, width, height = detection["bbox"]
        area = int(rle.area(detection["segmentation"])) if task == "segm" else width * height
        return {**detection, "area": area, "iscrowd": 0}

    def _results(self, task: str, detections: Sequence[dict[str, Any]], max_detections: int) -> dict[str, float]:
        found = [self._found(detection, task) for detection in detections]
        evaluation = _COCOeval(self._coco(self._objects[task]), self._coco(found), task)
        if task == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(self._sigmas)
        else:
            evaluation.params.maxDets = [1, 10, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        results = {key: _percent(value) for key, value in zip(_METRICS[task], evaluation.stats)}
        if len(self._truth.categories) > 1:
            # [IoU thresholds, recall thresholds, categories, areas (all first), numbers of detections (most last)]
            precisions = evaluation.eval["precision"][:, :, :, 0, -1]
            for number, name in enumerate(self._truth.categories.values()):
                known = precisions[:, :, number][precisions[:, :, number] > -1]
                results[f"AP-{name}"] = _percent(known.mean() if known.size else -1)
        return results

    def _coco(self, boxes: Sequence[dict[str, Any]]) -> COCO:
        """Boxes for COCO's program: images and boxes numbered from 1, categories from 0."""
        images = {image: number for number, image in enumerate(self._sizes, start=1)}
        coco = COCO()
        coco.dataset = {
            "images": [
                {"id": number, "height": self._sizes[image][0], "width": self._sizes[image][1]}
                for image, number in images.items()
            ],
            "categories": [{"id": number} for number in range(len(self._truth.categories))],
            "annotations": [
                {**box, "id": number, "image_id": images[box["image_id"]]} for number, box in enumerate(boxes, start=1)
            ],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco


def coco_results(instances: Instances, image_id: Any) -> list[dict[str, Any]]:
    """What was found in an image in COCO's result format, boxes, masks and keypoints; classes count from 0."""
    instances = instances.to("cpu")
    if instances.has("pred_keypoints"):
        instances.pred_keypoints = instances.pred_keypoints.clone()  # Detectron2 moves them in place
    return instances_to_coco_json(instances, image_id)


def _ground_truth(dataset_name: str, masks: bool) -> tuple[str, CocoBoxes]:
    """What errors call the data set, and its objects, with masks or without."""
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("json_file") is None and metadata.get("panoptic_json") is not None:
        json_file = PathManager.get_local_path(metadata.panoptic_json)
        return json_file, coco_boxes(json_file, instances_of(json_file, metadata.panoptic_root))
    if "json_file" not in metadata.as_dict():
        return dataset_name, coco_boxes(dataset_name, convert_to_coco_dict(dataset_name))
    json_file = PathManager.get_local_path(metadata.json_file)
    return json_file, coco_file(json_file, masks, required=("images", "categories")).boxes


def _percent(value: float) -> float:
    """What COCO's program says with -1, nothing to be judged, is NaN."""
    return float(value * 100) if value > -1 else math.nan
