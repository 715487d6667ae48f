"""COCO's panoptic quality of a data set's images, and what the semantic segmentation alone is worth."""

import itertools
import json
import logging
from pathlib import Path
from typing import Any, Optional, Sequence

import cv2
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from sact_det.base.files import replacing
from sact_det.data.coco_panoptic import ids_of, pixels_of, read_panoptic, read_png
from sact_det.detection.panoptic_quality import Labelled, Tally, compare, quality
from sact_det.detection.semantic_quality import MEANS, confusion, semantic_quality

logger = logging.getLogger(__name__)


class PanopticEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ in percent, of all categories, of things (_th) and of stuff (_st), as COCO's own program counts.

    Where outputs have "sem_seg", also its mIoU, fwIoU, mACC and pACC, as Detectron2's SemSegEvaluator counts: of stuff,
    and of things as one class.

    Results go to output_dir in COCO's format, with the ids of the file: panoptic_results.json, whole or not at all, and
    the PNGs that it names, in panoptic/.

    Args:
        dataset_name: a registered data set with panoptic segments.
        output_dir: the folder.

    Raises:
        InputError: the data set's json cannot be used.
    """

    def __init__(self, dataset_name: str, output_dir: str):
        metadata = MetadataCatalog.get(dataset_name)
        self._panoptic = read_panoptic(PathManager.get_local_path(metadata.panoptic_json))
        self._truth = {one.image.id: one for one in self._panoptic.images}
        self._png_root = Path(PathManager.get_local_path(metadata.panoptic_root))
        self._categories = {
            isthing: {number: category for category, number in numbers.items()}
            for isthing, numbers in (
                (True, metadata.thing_dataset_id_to_contiguous_id),
                (False, metadata.stuff_dataset_id_to_contiguous_id),
            )
        }
        self._semantic_classes: Sequence[str] = metadata.stuff_classes
        self._semantic_class_of = {
            **dict.fromkeys(metadata.thing_dataset_id_to_contiguous_id, 0),
            **metadata.stuff_dataset_id_to_contiguous_id,
        }
        self._folder = Path(output_dir)
        self.reset()

    def reset(self) -> None:
        """Forgets what was processed."""
        self._rows: list[dict[str, Any]] = []
        self._confusion: Optional[np.ndarray] = None

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Takes the outputs of a panoptic detector.

        Args:
            inputs: with "image_id".
            outputs: "panoptic_seg": ids, int [H, W], and what Detectron2 says of the segments; perhaps "sem_seg",
                scores [classes, H, W].
        """
        for item, output in zip(inputs, outputs):
            ids, infos = output["panoptic_seg"]
            found = ids.cpu().numpy()
            segments = [Labelled(one["id"], self._categories[one["isthing"]][one["category_id"]]) for one in infos]
            true = self._truth[item["image_id"]]
            truth = ids_of(read_png(self._png_root / true.png, (true.image.height, true.image.width)))
            wanted = [Labelled(one.id, one.category_id, one.iscrowd) for one in true.segments]
            name = f"{Path(true.png).stem}.png"
            self._write_png(name, found)
            if "sem_seg" in output:
                classes, number = output["sem_seg"].argmax(0).cpu().numpy(), len(self._semantic_classes)
                counts = confusion(truth, wanted, self._semantic_class_of, classes, number)
                self._confusion = counts if self._confusion is None else self._confusion + counts
            self._rows.append(
                {
                    "image_id": item["image_id"],
                    "file_name": name,
                    "segments_info": [{"id": one.id, "category_id": one.category} for one in segments],
                    "tallies": compare(truth, wanted, found, segments),
                }
            )

    def _write_png(self, name: str, ids: np.ndarray) -> None:
        _, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels_of(ids)[:, :, ::-1]))
        with replacing(self._folder / "panoptic" / name) as temporary:
            temporary.write_bytes(encoded.tobytes())

    def evaluate(self) -> dict[str, dict[str, float]]:
        """{"panoptic_seg": {...}, "sem_seg": {...}} on the main process, nothing on the others.

        Raises:
            OSError: the results cannot be written.
        """
        gathered, counts = comm.gather(self._rows), comm.gather(self._confusion)
        if not comm.is_main_process():
            return {}
        # In one order, whoever processed them, for sums of floats depend on it.
        rows = sorted(itertools.chain(*gathered), key=lambda row: row["image_id"])
        if not rows:
            logger.warning("[PanopticEvaluator] Did not receive any predictions.")
            return {}
        tallies: dict[int, Tally] = {}
        for row in rows:
            for category, tally in row.pop("tallies").items():
                tallies[category] = tallies.get(category, Tally())
                tallies[category] += tally
        with replacing(self._folder / "panoptic_results.json") as temporary:
            temporary.write_text(json.dumps({"annotations": rows}))
        things, stuff = self._panoptic.things, self._panoptic.stuff
        results = quality(tallies, (*things, *stuff))
        for suffix, categories in (("_th", things), ("_st", stuff)):
            results |= {f"{key}{suffix}": value for key, value in quality(tallies, categories).items()}
        logger.info("Panoptic quality:\n%s", create_small_table(results))
        found = [own for own in counts if own is not None]
        if not found:
            return {"panoptic_seg": results}
        semantic = semantic_quality(sum(found), self._semantic_classes)
        logger.info("Semantic segmentation:\n%s", create_small_table({key: semantic[key] for key in MEANS}))
        return {"panoptic_seg": results, "sem_seg": semantic}
