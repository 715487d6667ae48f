"""Models at several test resolutions: every pair of the two is evaluated once, and its result kept."""

import logging
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence

from detectron2.config import CfgNode

from sact_det.base.errors import InputError
from sact_det.base.files import file_sha256, write_json
from sact_det.base.text_files import read_json
from sact_det.classification.meta_arch import SACTClassifier
from sact_det.classification.predictor import load_classifier
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.engine.fingerprint import fingerprint

logger = logging.getLogger(__name__)

_SHOWN = {"accuracy", "recall_at_5", "flops", "flops_std", "flops_percent", "flops_percent_std", "images"}
_MOST = 1e24  # more than any of them is, and less than infinity


class Pair(NamedTuple):
    """A model at a test resolution.

    Attributes:
        model: its name.
        size: side of the square images, in pixels.
        cfg: names the weights, the one data set and the size; OUTPUT_DIR is the pair's own folder.
    """

    model: str
    size: int
    cfg: CfgNode


def evaluate_pairs(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Evaluates all pairs but those with a stored result, and stores each in OUTPUT_DIR/pair.json when it is finished.

    Args:
        pairs: those of a model one after the other.

    Returns:
        For every pair: model, size, dataset, weights, weights_sha256, fingerprint, and `summary`, the evaluator's
        (sact_det/classification/evaluator.py).

    Raises:
        InputError: weights or data cannot be used.
    """
    results = []
    digests = {weights: file_sha256(weights) for weights in {pair.cfg.MODEL.WEIGHTS for pair in pairs}}
    networks: dict[str, SACTClassifier] = {}  # one at a time
    for number, (name, size, cfg) in enumerate(pairs, 1):
        own = {"model": name, "size": size, "dataset": cfg.DATASETS.TEST[0], "weights": cfg.MODEL.WEIGHTS}
        sha256 = digests[cfg.MODEL.WEIGHTS]
        path, own_print = Path(cfg.OUTPUT_DIR) / "pair.json", fingerprint(cfg, sha256)
        result = _stored(path, own_print)
        if result is None:
            logger.info("[%d of %d] %s at %d pixels", number, len(pairs), name, size)
            if name not in networks:
                networks = {name: load_classifier(cfg)}
            summary = ClassificationTrainer.test(cfg, networks[name])["classification"]
            result = {**own, "weights_sha256": sha256, "fingerprint": own_print, "summary": summary}
            write_json(path, result)
        else:
            logger.info("[%d of %d] %s at %d pixels: evaluated before (%s)", number, len(pairs), name, size, path)
        results.append({**result, **own})
    return results


def _stored(path: Path, wanted: str) -> Optional[dict[str, Any]]:
    """The result in a file, if there is one and it is of the same weights and settings."""
    if not path.exists():
        return None
    try:
        result = read_json(path)
    except InputError:
        result = None
    if isinstance(result, dict) and result.get("fingerprint") == wanted and _is_summary(result.get("summary")):
        return result
    logger.info("%s is of other weights or settings: evaluating again", path)
    return None


def _is_summary(value: Any) -> bool:
    """Whether a file's value has the numbers that tables and figures show."""
    return (
        isinstance(value, dict)
        and value.keys() >= _SHOWN
        and all(isinstance(number, (int, float)) and 0 <= number <= _MOST for number in value.values())
    )
