"""MODEL.SACT.FROM_WEIGHTS: what the network is comes from the weights' own description."""

import logging
from typing import Any, Collection, Mapping

from detectron2.config import CfgNode

from sact_det.base.errors import InputError
from sact_det.engine.checkpoint import CONFIG_KEYS, local_weights, telling_how_to_convert
from sact_det.engine.config_checks import value_of
from sact_det.weights.weight_file import load_weights

KEY = "MODEL.SACT.FROM_WEIGHTS"
_CLASSIFIER = "SACTClassifier"
_HALTING, _REFERENCE = "MODEL.SACT.HALTING", "MODEL.SACT.REFERENCE_UNITS"
_DRAWN = "MODEL.SACT.BUDGET_TRAINING"
_PIXELS = {"pixel_mean": "MODEL.PIXEL_MEAN", "pixel_std": "MODEL.PIXEL_STD"}
_TO_MINUS_ONE_TO_ONE = [127.5] * 3  # of pixels, where a description says nothing
_OF_CLASSIFIERS = {"family": CONFIG_KEYS["family"], "num_classes": "MODEL.CLASSIFIER.NUM_CLASSES"}

logger = logging.getLogger(__name__)


def take_description(cfg: CfgNode, given: Collection[str], overridden: Collection[str]) -> None:
    """Gives the keys that say what a network is the values that MODEL.WEIGHTS needs.

    A key that no config file and no override has given takes the weights' value; one that was given another value is a
    contradiction. How pixels are normalised belongs to the weights: of that, overrides alone can contradict. Weights of
    a plain network may start one that halts, if that was asked for. 100% is the plain network of as many units, if no
    other was asked for. Afterwards FROM_WEIGHTS is False: the config says everything itself.

    Args:
        cfg: changed in place.
        given: the keys that config files or overrides have given a value.
        overridden: those of them that overrides have.

    Raises:
        InputError: there are no weights, they cannot be read or do not describe their network, or keys contradict it:
            all of them are named.
    """
    path = cfg.MODEL.WEIGHTS
    if not path:
        raise InputError(f"{KEY} True needs MODEL.WEIGHTS, which is empty")
    with telling_how_to_convert(path):
        wanted = _wanted(cfg, load_weights(local_weights(path)).metadata)
    if not wanted:
        raise InputError(
            f"{path}: does not describe its network, as {KEY} True needs; give the keys of MODEL.SACT their values"
        )
    wrong = []
    for key, value in wanted.items():
        own = value_of(cfg, key)
        if key == _HALTING and value == "none" and key in given:
            continue
        if list(_plain(own)) == list(_plain(value)):
            continue
        if key in (overridden if key in _PIXELS.values() else given):
            wrong.append(f"{key} {value} (the config has {own})")
        else:
            logger.info("%s: %s %s, by the weights", KEY, key, value)
            cfg.merge_from_list([key, repr(value) if isinstance(value, str) else value])
    sact = cfg.MODEL.SACT
    if _REFERENCE not in given:
        sact.REFERENCE_UNITS = sact.UNITS[: None if _is_classifier(cfg) else len(sact.REFERENCE_UNITS)]
    sact.FROM_WEIGHTS = False  # what is written down of the run says it all
    if wrong:
        raise InputError(f"{path}: {KEY} True: the weights need {'; '.join(wrong)}")


def _plain(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _is_classifier(cfg: CfgNode) -> bool:
    return cfg.MODEL.META_ARCHITECTURE == _CLASSIFIER


def _wanted(cfg: CfgNode, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Key -> value, of all that a description says and that a network of this kind has; {}: it describes none."""
    if "units" not in metadata:
        return {}
    keys = {name: key for name, key in CONFIG_KEYS.items() if name not in _OF_CLASSIFIERS}
    if _is_classifier(cfg):
        keys.update(_OF_CLASSIFIERS)
    found = {
        key: metadata[name] for name, key in {**keys, "halting": _HALTING}.items() if metadata.get(name) is not None
    }
    if metadata.get("prices") is not None:
        low, tau, high = metadata["prices"]
        found.update({"MODEL.SACT.TAU": tau, _DRAWN: (low, high), f"{_DRAWN}_DRAWS": "tau"})
    normalised = {key: list(metadata.get(name, _TO_MINUS_ONE_TO_ONE)) for name, key in _PIXELS.items()}
    sequences = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    return {**sequences, **normalised}
