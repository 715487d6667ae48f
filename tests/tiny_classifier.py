"""The tiny classifiers of configs/tests on a small data set."""

from pathlib import Path

from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[1] / "configs/tests"
FAMILIES = {"imagenet": "tiny_classifier.yaml", "cifar": "tiny_cifar.yaml"}


def config(data=None, *overrides, family="imagenet"):
    """The tiny config of a family; `data` (a path, if any) is DATASETS.TRAIN and TEST, called "toy"."""
    use = () if data is None else ("DATASETS.CLASSIFICATION", str([("toy", str(data))]), "DATASETS.TRAIN", "('toy',)")
    test = () if data is None else ("DATASETS.TEST", "('toy',)")
    return load_config(str(CONFIGS / FAMILIES[family]), [*use, *test, *map(str, overrides)])
