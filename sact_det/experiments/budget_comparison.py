"""Networks at several budgets: one for all of them, one trained for each, and static ones that do less.

Everything is kept on the way: trainings go on from their checkpoints, calibrations from what they have measured, and an
evaluation that is finished is not repeated.
"""

import logging
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.transforms import ResizeShortestEdge

from sact_det.base.files import file_sha256, write_json
from sact_det.base.text_files import read_json
from sact_det.benchmark.quality import evaluate, evaluation_key
from sact_det.benchmark.setting import Setting
from sact_det.budget import FILE_NAME, BudgetPoint, BudgetTable
from sact_det.classification.sweep import Pair, evaluate_pairs
from sact_det.detection.class_ap import mean_over_classes
from sact_det.detection.config_kinds import is_retinanet
from sact_det.detection.predictor import load_detector
from sact_det.detection.reference import DetectorReference
from sact_det.engine.reference import Reference
from sact_det.experiments.calibration import Settings, calibrate_weights
from sact_det.experiments.contenders import Contender, is_classifier
from sact_det.network.classifier import FAMILIES

logger = logging.getLogger(__name__)

_CALIBRATED = "calibrated.json"  # what the table beside the weights was made of
_DETECTED = "evaluated.json"  # of a detector, in the folder of a way


def compare(
    contenders: Sequence[Contender],
    train: Callable[[Contender], None],
    calibration: Settings,
    classes: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Trains, calibrates and evaluates whatever is not finished.

    Args:
        contenders: in the order of their turns.
        train: leaves model_final.pth in a contender's folder, from its last checkpoint on.
        calibration: of adaptive ones; its budgets are the contender's own.
        classes: of detectors, whose mean AP is the quality; (): all.

    Returns:
        A dict for every contender and way: name, setting, budget (None: static), seed, flops (share of the plain
        network's at the config's size; of a detector with its proposals), flops_std (over images), metric ("accuracy",
        "AP" or "AP of" the classes), quality (percent), images, seconds (of an image, where calibrated), scale (of
        images, by the budget) and the folder.

    Raises:
        InputError: a config, weights or data cannot be used, a training failed, or a budget cannot be reached.
    """
    points = []
    for number, contender in enumerate(contenders, 1):
        said = f"[{number} of {len(contenders)}] {contender.name} {contender.setting} seed {contender.seed}"
        logger.info("%s", said)
        weights = contender.folder / "model_final.pth"
        if not weights.exists():
            train(contender)
        cfg = contender.load("MODEL.WEIGHTS", str(weights))
        table = _calibrated(contender, cfg, weights, calibration) if contender.budgets else None
        points += _evaluated(contender, cfg, weights, table, classes)
    return points


def _calibrated(contender: Contender, cfg: CfgNode, weights: Path, calibration: Settings) -> BudgetTable:
    """The table beside the weights, made unless it is there."""
    settings = calibration._replace(budgets=contender.budgets)
    made_of = {"weights": file_sha256(weights), **settings._asdict(), "budgets": list(settings.budgets)}
    note = contender.folder / _CALIBRATED
    if note.exists() and (contender.folder / FILE_NAME).exists() and read_json(note) == made_of:
        return BudgetTable.read(contender.folder / FILE_NAME)
    table = calibrate_weights(cfg, weights, settings, contender.folder)
    write_json(note, made_of)
    return table


def _evaluated(
    contender: Contender, cfg: CfgNode, weights: Path, table: Optional[BudgetTable], classes: Sequence[str]
) -> list[dict[str, Any]]:
    calibrated = {} if table is None else {point.budget: point for point in table.points}
    cfgs = []
    for setting, budget, own in contender.ways:
        where = setting if budget is None else f"budget {budget:g}"
        folder = str(contender.folder / (where or "as it is").replace(" ", "_"))
        cfgs.append((where, contender.load("MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", folder, *own)))
    about = (contender.name, cfgs, cfg)
    results = _classified(*about) if is_classifier(cfg) else _detected(*about, classes)
    points = []
    for way, result in zip(contender.ways, results):
        points.append(
            {
                **{"name": contender.name, "setting": contender.setting or way.setting, "budget": way.budget},
                **{"seed": contender.seed, **result},
                **_of_budget(None if way.budget is None else calibrated[way.budget]),
                "folder": str(contender.folder),
            }
        )
    return points


def _of_budget(point: Optional[BudgetPoint]) -> dict[str, Any]:
    return {"seconds": None, "scale": 1.0} if point is None else {"seconds": point.seconds, "scale": point.scale}


def _classified(name: str, cfgs: Sequence[tuple[str, CfgNode]], cfg: CfgNode) -> Iterator[dict[str, Any]]:
    """Accuracy in percent, and FLOPs as shares of the plain network's at the size of `cfg`."""
    size = cfg.INPUT.CLASSIFICATION.SIZE_TEST
    family = FAMILIES[cfg.MODEL.CLASSIFIER.FAMILY]
    whole = Reference.from_config(cfg, family, cfg.MODEL.CLASSIFIER.NUM_CLASSES).flops((size, size))
    pairs = [Pair(f"{name}, {where}".rstrip(", "), one.INPUT.CLASSIFICATION.SIZE_TEST, one) for where, one in cfgs]
    for result in evaluate_pairs(pairs):
        own = result["summary"]
        shares = {"flops": own["flops"] / whole, "flops_std": own["flops_std"] / whole}
        yield {**shares, "metric": "accuracy", "quality": 100 * own["accuracy"], "images": own["images"]}


def _detected(
    name: str, cfgs: Sequence[tuple[str, CfgNode]], cfg: CfgNode, classes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """AP in percent, and FLOPs of the whole as shares of the plain detector's with sizes and proposals of `cfg`."""
    (dataset,) = cfg.DATASETS.TEST
    short, most = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    regions = 0 if is_retinanet(cfg) else cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    sizes = [(image["height"], image["width"]) for image in DatasetCatalog.get(dataset)]
    if short:
        sizes = [ResizeShortestEdge.get_output_shape(*size, short, most) for size in sizes]
    reference = DetectorReference.from_config(cfg)
    whole = float(np.mean([reference.flops(size, regions)["total"] for size in sizes])) / 1e9
    for where, one in cfgs:
        path, key = Path(one.OUTPUT_DIR) / _DETECTED, evaluation_key(one, dataset)
        found = read_json(path) if path.exists() else {}
        if found.get("key") != key:
            logger.info("%s %s: evaluating", name, where)
            found = {"key": key, **evaluate(one, load_detector(one), dataset, Setting(progress=True))}
            write_json(path, found)
        own = found["ponder"]
        shares = {"flops": own["detector_gflops"] / whole, "flops_std": own["detector_gflops_std"] / whole}
        quality = mean_over_classes(found["bbox"], classes) if classes else found["bbox"]["AP"]
        metric = f"AP of {', '.join(classes)}" if classes else "AP"
        yield {**shares, "metric": metric, "quality": quality, "images": own["images"]}
