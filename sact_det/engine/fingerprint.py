"""What tells two evaluations apart."""

import hashlib
import json

from detectron2.config import CfgNode

from sact_det.engine.config_checks import leaves

# The results do not depend on them.
_INDIFFERENT = (
    "OUTPUT_DIR",
    "MODEL.WEIGHTS",
    "MODEL.SACT.EXECUTION",
    "DATALOADER.NUM_WORKERS",
    "INPUT.CLASSIFICATION.BATCH_SIZE_TEST",
)


def fingerprint(cfg: CfgNode, weights_sha256: str) -> str:
    """Tells evaluations apart that may give other results: by the content of the weights and by the config."""
    judged = {key: value for key, value in leaves(cfg) if key not in _INDIFFERENT}
    return hashlib.sha256(f"{weights_sha256}\n{json.dumps(judged, sort_keys=True)}".encode()).hexdigest()
