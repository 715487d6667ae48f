"""What the extractor spent, over a data set: the FLOPs column of the paper's Table 1."""

from typing import Any, Optional, Sequence

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from torch import Tensor
from typing_extensions import override

from sact_det.base.markdown import markdown_table
from sact_det.detection.reference import DetectorReference
from sact_det.engine.evaluator import RowEvaluator, mean_and_std, means_by_block, ponder_row
from sact_det.engine.reference import Reference
from sact_det.rule.ponder import PonderRecord

GIGA = 1e9
_PARTS = (
    ("proposal", "proposal_generator"),
    ("neck", "neck"),
    ("head", "head"),
    ("sem_seg", "sem_seg_head"),
)
# Column of the table, task, metric.
_FURTHER = (
    ("mask AP (%)", "segm", "AP"),
    ("keypoint AP (%)", "keypoints", "AP"),
    ("PQ (%)", "panoptic_seg", "PQ"),
    ("mIoU (%)", "sem_seg", "mIoU"),
)


class PonderEvaluator(RowEvaluator):
    """FLOPs, ponder cost and units per image, gathered over processes.

    The percentage compares each image with a plain extractor on the same image at the same size; its mean and standard
    deviation are over images. It covers the extractor alone (root convolution and blocks 1-3), as in the paper.

    Where the data set has annotations, the ponder map is also averaged over the image, over the pixels inside and
    outside the ground-truth boxes (crowds included), and over every single object (tools/object_costs.py).

    Args:
        dataset_name: a registered data set.
        reference: the plain extractor whose FLOPs are 100%.
        output_dir: where ponder.json goes, with the per-image values; None writes nothing.
        detector: the whole plain detector, whose FLOPs at as many regions, rejected ones included, are 100% of the
            whole; None: only the extractor is accounted for.
    """

    task = "ponder"
    id_type = str

    def __init__(
        self,
        dataset_name: str,
        reference: Reference,
        output_dir: Optional[str] = None,
        detector: Optional[DetectorReference] = None,
    ):
        super().__init__(reference, output_dir)
        self.detector = detector
        self._annotations = {d["image_id"]: d.get("annotations", []) for d in DatasetCatalog.get(dataset_name)}

    @override
    def row(self, item: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        record, size = output["ponder"], tuple(item["image"].shape[-2:])
        return {
            "image_id": item["image_id"],
            **ponder_row(record, size, self.reference),
            "box_head_flops": output["box_head_flops"],
            **({} if self.detector is None else detector_row(output, size, self.detector)),
            **self._costs_of_objects(item, record),
        }

    def _costs_of_objects(self, item: dict[str, Any], record: PonderRecord) -> dict[str, Any]:
        """Means of the ponder map over the image, inside and outside all boxes, and over each; None: no such pixels."""
        height, width = item["image"].shape[-2:]
        cost = record.map((height, width))[0]
        inside = torch.zeros_like(cost, dtype=torch.bool)
        scale = cost.new_tensor([width / item["width"], height / item["height"]]).repeat(2)
        objects = []
        for annotation in self._annotations[item["image_id"]]:
            box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
            x0, y0, x1, y1 = (scale.new_tensor(box) * scale).round().clamp(min=0).int().tolist()
            inside[y0:y1, x0:x1] = True
            pixels = cost[y0:y1, x0:x1]
            if not annotation.get("iscrowd", 0):
                objects.append({"area_percent": 100 * pixels.numel() / cost.numel(), "cost": _mean(pixels)})
        return {
            "cost_mean": _mean(cost),
            "cost_inside": _mean(cost[inside]),
            "cost_outside": _mean(cost[~inside]),
            "objects": objects,
        }

    @staticmethod
    @override
    def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Means over images; _std is the deviation over images.

        Keys: flops_percent, flops_percent_std; gflops, gflops_std; box_head_gflops; blockN_cost, blockN_units;
        of the whole detector, where it was accounted for, detector_flops_percent and detector_gflops with their _std,
        proposal_gflops (RPN), neck_gflops (FPN), head_gflops (RetinaNet's), sem_seg_gflops, regions, rejected_regions,
        units_per_region (mean over all regions of the data set that evaluated any); cost_inside, cost_outside (means
        over the images that have pixels both inside and outside of boxes); images.
        """
        summary = {
            **mean_and_std("flops_percent", [row["flops_percent"] for row in rows]),
            **mean_and_std("gflops", [row["flops"] / GIGA for row in rows]),
            "box_head_gflops": float(np.mean([row["box_head_flops"] for row in rows])) / GIGA,
            **means_by_block(rows),
        }
        if "detector_flops" in rows[0]:
            parts = [row["detector_flops"] for row in rows]
            summary |= mean_and_std("detector_flops_percent", [row["detector_flops_percent"] for row in rows])
            summary |= mean_and_std("detector_gflops", [flops["total"] / GIGA for flops in parts])
            for key, part in _PARTS:
                if parts[0].get(part):
                    summary[f"{key}_gflops"] = float(np.mean([flops[part] for flops in parts])) / GIGA
            for key in ("regions", "rejected_regions"):
                summary[key] = float(np.mean([row[key] for row in rows]))
            met = [row for row in rows if row["units_per_region"] is not None]  # none of a head without blocks
            if met:
                units, regions = zip(*((row["units_per_region"], row["regions"]) for row in met))
                summary["units_per_region"] = float(np.average(units, weights=regions))
        both = [row for row in rows if row.get("cost_inside") is not None and row.get("cost_outside") is not None]
        for key in ("cost_inside", "cost_outside") if both else ():
            summary[key] = float(np.mean([row[key] for row in both]))
        return {**summary, "images": len(rows)}


def _mean(values: Tensor) -> Optional[float]:
    return float(values.mean()) if values.numel() else None


def detector_row(output: dict[str, Any], size: tuple[int, int], detector: DetectorReference) -> dict[str, Any]:
    """What the whole detector took of an image, and its regions.

    Args:
        output: of a `Priced` model, for the image.
        size: (height, width) of the image as it was given to the network, which may have made it smaller.
        detector: the whole plain detector, whose FLOPs at as many regions, rejected ones included, are 100%.
    """
    regions, rejected, detections = (output[key] for key in ("regions", "rejected_regions", "detections"))
    flops = detector.flops_with(output["flops"], output["seen_size"], regions, detections)
    percent = 100 * flops["total"] / detector.flops(size, regions + rejected, detections)["total"]
    return {
        "regions": regions,
        "detections": detections,
        "rejected_regions": rejected,
        "units_per_region": output["units_per_region"],
        "detector_flops": flops,
        "detector_flops_percent": percent,
    }


def table_1_row(name: str, results: dict[str, dict[str, float]]) -> str:
    """The paper's Table 1 for one model, as text; beside its columns, the whole detector and its regions per image.

    Args:
        name: of the feature extractor.
        results: of COCOEvaluator and PonderEvaluator together.
    """
    ponder, boxes = results["ponder"], results.get("bbox", {})
    ap, ap50 = (f"{boxes[key]:.2f}" if key in boxes else "-" for key in ("AP", "AP50"))
    row = {
        "feature extractor": name,
        "FLOPs (%)": _percent(ponder, "flops_percent"),
        "mAP @ [.5, .95] (%)": ap,
        "AP50 (%)": ap50,
        **{title: f"{results[task][key]:.2f}" for title, task, key in _FURTHER if task in results},
        "images": f"{ponder['images']:.0f}",
    }
    if "regions" in ponder:
        row["whole detector (%)"] = _percent(ponder, "detector_flops_percent")
        row["regions"] = f"{ponder['regions']:.1f}"
    if "units_per_region" in ponder:
        row["units per region"] = f"{ponder['units_per_region']:.2f}"
    return markdown_table(list(row), [list(row.values())])


def _percent(summary: dict[str, float], key: str) -> str:
    return f"{summary[key]:.1f} ± {summary[f'{key}_std']:.1f}"
