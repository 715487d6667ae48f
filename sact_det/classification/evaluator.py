"""Accuracy and what it took, over a data set."""

from typing import Any, Iterable, Sequence

import numpy as np
from typing_extensions import override

from sact_det.base.markdown import markdown_table
from sact_det.engine.evaluator import RowEvaluator, mean_and_std, means_by_block, ponder_row

TOP = 5


class ClassificationEvaluator(RowEvaluator):
    """Accuracy, recall@5, FLOPs, ponder cost and units, gathered over processes.

    FLOPs are of the whole network, root convolution and logits included, as integers per image; the percentage compares
    each image with a plain network of the same family and width on the same image at the same size.

    Args:
        reference: the plain network whose FLOPs are 100%, logits included.
        output_dir: where classification.json goes, with the per-image values; None writes nothing.
    """

    task = "classification"
    id_type = int
    described = ("family", "units", "base_channels")

    @override
    def row(self, item: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        logits, size = output["logits"], tuple(item["image"].shape[-2:])
        return {
            "image_id": item["image_id"],
            "file_name": item["file_name"],
            "label": item["label"],
            "top": logits.topk(min(TOP, len(logits))).indices.tolist(),
            **ponder_row(output["ponder"], size, self.reference),
        }

    @staticmethod
    @override
    def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Means over images; _std is the deviation over images.

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


def accuracy_table(results: Iterable[tuple[str, int, dict[str, float]]]) -> str:
    """Accuracy against FLOPs as a table in Markdown.

    Args:
        results: for every line the name of the network, the side of the square images in pixels, and the evaluator's
            summary (`ClassificationEvaluator.summarize`).
    """
    heads = ("network", "image size", "accuracy", "recall@5", "FLOPs", "FLOPs (%)", "units per block", "images")
    rows = []
    for name, size, summary in results:
        units = ", ".join(f"{value:.2f}" for key, value in summary.items() if key.endswith("_units"))
        quality = (f"{summary[key]:.4f}" for key in ("accuracy", "recall_at_5"))
        flops = f"{summary['flops']:.4g} ± {summary['flops_std']:.3g}"
        percent = f"{summary['flops_percent']:.1f} ± {summary['flops_percent_std']:.1f}"
        rows.append((name, size, *quality, flops, percent, units, f"{summary['images']:.0f}"))
    return markdown_table(heads, rows)
