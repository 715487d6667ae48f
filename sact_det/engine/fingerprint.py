"""What tells two evaluations apart."""

import hashlib
import json
from pathlib import Path

from detectron2.config import CfgNode

from sact_det.base.files import check_input, file_sha256
from sact_det.budget import FILE_NAME
from sact_det.engine.checkpoint import local_weights
from sact_det.engine.config_checks import leaves

# The results do not depend on them.
_INDIFFERENT = (
    "OUTPUT_DIR",
    "MODEL.WEIGHTS",
    "MODEL.SACT.EXECUTION",
    "DATALOADER.NUM_WORKERS",
    "INPUT.CLASSIFICATION.BATCH_SIZE_TEST",
)


def budgets_sha256(cfg: CfgNode) -> str:
    """SHA-256 of the table that MODEL.SACT.BUDGET goes by; "" where none is asked for. Raises InputError without it."""
    if not cfg.MODEL.SACT.BUDGET:
        return ""
    path = Path(local_weights(cfg.MODEL.WEIGHTS)).parent / FILE_NAME
    check_input(path, "table of budgets")
    return file_sha256(path)


def fingerprint(cfg: CfgNode, weights_sha256: str) -> str:
    """Tells evaluations apart that may give other results: by the content of the weights, config and budgets."""
    judged = {key: value for key, value in leaves(cfg) if key not in _INDIFFERENT}
    judged |= {"budgets": table} if (table := budgets_sha256(cfg)) else {}
    return hashlib.sha256(f"{weights_sha256}\n{json.dumps(judged, sort_keys=True)}".encode()).hexdigest()
