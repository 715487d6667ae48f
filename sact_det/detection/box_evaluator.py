"""COCO's mAP, for what files in COCO format leave out and for disks that are full."""

import json
from pathlib import Path
from typing import Any, Optional, Sequence

from detectron2.evaluation import COCOEvaluator

from sact_det.files import replacing


class BoxEvaluator(COCOEvaluator):
    """COCOEvaluator for boxes.

    * Annotations may lack "area" and "iscrowd", which boxes alone do not need: the box's area and 0 stand in.
    * output_dir/coco_instances_results.json appears whole or not at all; there is no pickled copy of it.

    Args:
        dataset_name: a registered data set.
        output_dir: where the boxes go, in COCO's result format.
    """

    def __init__(self, dataset_name: str, output_dir: str):
        super().__init__(dataset_name, tasks=("bbox",), distributed=True, output_dir=output_dir)
        self._output_dir = None  # nothing is to be written there but what follows
        self._results_file = Path(output_dir) / "coco_instances_results.json"
        for annotation in self._coco_api.dataset.get("annotations", []):
            annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
            annotation.setdefault("iscrowd", 0)

    def _eval_predictions(self, predictions: Sequence[dict[str, Any]], img_ids: Optional[list[int]] = None) -> None:
        super()._eval_predictions(predictions, img_ids=img_ids)  # and gives the boxes the category ids of the file
        boxes = [box for prediction in predictions for box in prediction["instances"]]
        with replacing(self._results_file) as temporary:
            temporary.write_text(json.dumps(boxes))
