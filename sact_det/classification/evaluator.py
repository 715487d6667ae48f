"""Accuracy and what it took, over a data set."""

import logging
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from sact_det.base.files import write_json
from sact_det.engine.ponder_rows import mean_and_std, means_by_block, ponder_row
from sact_det.engine.reference import Reference

logger = logging.getLogger(__name__)

TOP = 5


class ClassificationEvaluator(DatasetEvaluator):
    """Accuracy, recall@5, FLOPs, ponder cost and units, gathered over processes.

    FLOPs are of the whole network, root convolution and logits included, as integers per image; the percentage compares
    each image with a plain network of the same family and width on the same image at the same size.

    Args:
        reference: the plain network whose FLOPs are 100%, logits included.
        output_dir: where classification.json goes, with the per-image values; None writes nothing.
    """

    def __init__(self, reference: Reference, output_dir: Optional[str] = None):
        self._reference = reference
        self._output_dir = output_dir
        self.reset()

    def reset(self) -> None:
        """Forgets what was processed."""
        self._rows: list[dict[str, Any]] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Takes "logits" and "ponder" of each output; "image" in the inputs tells the size the network saw."""
        for item, output in zip(inputs, outputs):
            logits, record = output["logits"], output["ponder"]
            top = logits.topk(min(TOP, len(logits))).indices.tolist()
            height, width = item["image"].shape[-2:]
            self._rows.append(
                {
                    "image_id": item["image_id"],
                    "file_name": item["file_name"],
                    "label": item["label"],
                    "top": top,
                    **ponder_row(record, (height, width), self._reference),
                }
            )

    def evaluate(self) -> Optional[dict[str, dict[str, float]]]:
        """{"classification": `summarize`'s dict} on the main process, None on the others."""
        gathered = comm.gather(self._rows)
        if not comm.is_main_process():
            return None
        rows = sorted((row for part in gathered for row in part), key=lambda row: row["image_id"])
        if not rows:
            logger.warning("[ClassificationEvaluator] Did not receive any predictions.")
            return {}
        summary = summarize(rows)
        if self._output_dir is not None:
            path = Path(self._output_dir) / "classification.json"
            spec = self._reference.spec
            reference = {"family": spec.family, "units": spec.units, "base_channels": spec.base_channels}
            write_json(path, {"summary": summary, "reference": reference, "images": rows})
            logger.info("Per-image predictions, FLOPs and ponder costs are in %s", path)
        return {"classification": summary}


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over per-image rows as `ClassificationEvaluator` collects them; _std is the deviation over images.

    Keys: accuracy, recall_at_5 (shares, from 0 to 1); flops, flops_std; flops_percent, flops_percent_std;
    mean_ponder_cost, mean_ponder_cost_std (the sum over blocks); blockN_cost, blockN_units; images.
    """
    summary = {
        "accuracy": float(np.mean([row["top"][0] == row["label"] for row in rows])),
        "recall_at_5": float(np.mean([row["label"] in row["top"] for row in rows])),
    }
    for key in ("flops", "flops_percent", "mean_ponder_cost"):
        summary.update(mean_and_std(key, [row[key] for row in rows]))
    return {**summary, **means_by_block(rows), "images": len(rows)}


def accuracy_row(name: str, size: int, summary: dict[str, float]) -> str:
    """The results of one network at one resolution as a table, in text.

    Args:
        name: of the network.
        size: of the square images, in pixels.
        summary: of `summarize`.
    """
    units = ", ".join(f"{value:.2f}" for key, value in summary.items() if key.endswith("_units"))
    header = (
        "| network | image size | accuracy | recall@5 | FLOPs | FLOPs (%) | units per block | images |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    flops = f"{summary['flops']:.4g} ± {summary['flops_std']:.3g}"
    percent = f"{summary['flops_percent']:.1f} ± {summary['flops_percent_std']:.1f}"
    return (
        f"{header}\n| {name} | {size} | {summary['accuracy']:.4f} | {summary['recall_at_5']:.4f} | {flops} | {percent} "
        f"| {units} | {summary['images']:.0f} |"
    )
