"""Weights of classifiers whose halting scores differ from position to position, as a training would leave them."""

from pathlib import Path

from detectron2.config import CfgNode
from small_networks import images, randomize

from sact_det.classification.model import Classifier
from sact_det.engine.spec import spec_from_config
from sact_det.network.classifier import FAMILIES
from sact_det.weights.weight_file import save_weights


def write_random_weights(path: Path, cfg: CfgNode, seed: int = 0) -> str:
    """Writes a weight file for the classifier of a config; returns its path."""
    spec = spec_from_config(cfg, FAMILIES[cfg.MODEL.CLASSIFIER.FAMILY])
    network = randomize(Classifier(spec, cfg.MODEL.CLASSIFIER.NUM_CLASSES), images(8, 40, 40), seed)
    save_weights(path, network.state_dict(), {"units": spec.units})
    return str(path)
