"""What an evaluation keeps of every image's PonderRecord, in plain numbers, and what it says of all of them."""

from typing import Any, Sequence

import numpy as np

from sact_det.engine.reference import Reference
from sact_det.rule.ponder import PonderRecord


def ponder_row(record: PonderRecord, size: tuple[int, int], reference: Reference) -> dict[str, Any]:
    """One image: height, width, flops_percent (of `reference`), and PonderRecord.numbers.

    Args:
        record: of the image, N = 1.
        size: (height, width) of the image as the network saw it.
        reference: the plain network whose FLOPs on an image of that size are 100%.
    """
    return {
        "height": size[0],
        "width": size[1],
        "flops_percent": 100 * int(record.flops) / reference.flops(size),
        **record.numbers(),
    }


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
