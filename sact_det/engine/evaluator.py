"""Evaluations that keep a row of plain numbers for every image, and say what they are on the whole."""

import logging
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from typing_extensions import override

from sact_det.base.files import write_json
from sact_det.engine.reference import Reference
from sact_det.rule.ponder import PonderRecord

logger = logging.getLogger(__name__)


class RowEvaluator(DatasetEvaluator):
    """Collects rows, gathers them over processes and summarizes them.

    A subclass has a `task`, the key of its results and the stem of its file; `id_type`, by which rows are sorted; `row`
    and `summarize`.

    Args:
        reference: the plain network whose FLOPs are 100%.
        output_dir: where TASK.json goes, with the rows; None writes nothing.

    Attributes:
        budget: share of the plain network's FLOPs that was asked for, told in TASK.json; None: as trained.
    """

    budget: Optional[float] = None
    task: str
    id_type: type
    pause = 5.0  # seconds between lines on what images took, as between Detectron2's on how many are done
    described: Sequence[str] = ("units", "base_channels")  # what the file says of the reference

    def __init__(self, reference: Reference, output_dir: Optional[str] = None):
        self.reference = reference
        self._output_dir = output_dir
        self.reset()

    @abstractmethod
    def row(self, item: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        """What is kept of an image, "image_id" among it, from a model's input and output."""

    @staticmethod
    @abstractmethod
    def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
        """What is said of at least one row."""

    @override
    def reset(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._told = time.monotonic()

    @override
    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        for item, output in zip(inputs, outputs):
            self.take(self.row(item, output))
        if time.monotonic() - self._told >= self.pause:
            self._told = time.monotonic()
            logger.info("%s", self._spent())

    def _spent(self) -> str:
        """What an image took so far, on average, in percent of the plain network's FLOPs and in units."""
        percent = np.mean([row["flops_percent"] for row in self._rows])
        units = np.mean([sum(row["units"].values()) for row in self._rows])
        return f"images: {len(self._rows)}  flops: {percent:.1f}%  units: {units:.1f}"

    def take(self, row: dict[str, Any]) -> None:
        """Takes the `row` of an image, of this run or an earlier one."""
        self._rows.append(row)

    @override
    def evaluate(self) -> Optional[dict[str, dict[str, float]]]:
        """{task: `summarize`'s dict} on the main process, None on the others; {} without images."""
        gathered = comm.gather(self._rows)
        if not comm.is_main_process():
            return None
        rows = sorted((row for part in gathered for row in part), key=lambda row: self.id_type(row["image_id"]))
        if not rows:
            logger.warning("[%s] Did not receive any predictions.", type(self).__name__)
            return {}
        summary = self.summarize(rows)
        if self._output_dir is not None:
            path = Path(self._output_dir) / f"{self.task}.json"
            reference = {name: getattr(self.reference.spec, name) for name in self.described}
            asked = {} if self.budget is None else {"budget": self.budget}
            write_json(path, {"summary": summary, **asked, "reference": reference, "images": rows})
            logger.info("What was found and spent in each image is in %s", path)
        return {self.task: summary}


def ponder_row(record: PonderRecord, size: tuple[int, int], reference: Reference) -> dict[str, Any]:
    """What an image took: height, width, flops_percent, and PonderRecord.numbers.

    Args:
        record: of the image, N = 1.
        size: (height, width) of the image as it was given to the network, which may have made it smaller.
        reference: the plain network whose FLOPs on an image of that size are 100%.
    """
    percent = 100 * int(record.flops) / reference.flops(size)
    return {"height": size[0], "width": size[1], "flops_percent": percent, **record.numbers()}


def mean_and_std(key: str, values: Sequence[float]) -> dict[str, float]:
    """`key`, the mean over images, and key_std, the standard deviation."""
    numbers = np.array(values, np.float64)
    return {key: float(numbers.mean()), f"{key}_std": float(numbers.std())}


def means_by_block(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """blockN_cost and blockN_units of every block: means over rows."""
    means = {}
    for block in rows[0]["units"]:
        means[f"{block}_cost"] = float(np.mean([row["ponder_cost"][block] for row in rows]))
        means[f"{block}_units"] = float(np.mean([row["units"][block] for row in rows]))
    return means
