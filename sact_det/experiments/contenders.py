"""Who takes part in a comparison at several budgets: trainings, and the ways in which each is evaluated."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence

from detectron2.config import CfgNode

from sact_det.base.errors import InputError, naming
from sact_det.detection.config_kinds import is_retinanet
from sact_det.tasks import load_config
from sact_det.weights.matched_units import first_units
from sact_det.weights.weight_file import load_weights, save_weights


class Way(NamedTuple):
    """How a trained network is evaluated.

    Attributes:
        setting: what tells it from others of the training, e.g. "96 pixels"; "": as trained.
        budget: to which the network is calibrated; None: it is static.
        overrides: KEY VALUE pairs.
    """

    setting: str = ""
    budget: Optional[float] = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contender:
    """A training, and where it is evaluated.

    Attributes:
        name: of the row that it belongs to.
        config: file.
        overrides: KEY VALUE pairs, OUTPUT_DIR and SEED among them.
        seed: of the training.
        setting: what tells it from others of the row, e.g. "units 1,1,2,1"; "" where only the way does.
        ways: of its evaluation, all at a budget or none.
    """

    name: str
    config: str
    overrides: tuple[str, ...]
    seed: int
    setting: str = ""
    ways: tuple[Way, ...] = (Way(),)

    def load(self, *more: str) -> CfgNode:
        """The config. Raises InputError if it has not one test set, or is no classifier's nor that of a detector."""
        cfg = load_config(self.config, [*self.overrides, *more])
        if len(cfg.DATASETS.TEST) != 1:
            raise InputError(f"{self.config}: DATASETS.TEST must name one data set; got {tuple(cfg.DATASETS.TEST)}")
        return cfg

    @property
    def folder(self) -> Path:
        """Of the training."""
        return Path(self.overrides[self.overrides.index("OUTPUT_DIR") + 1])

    @property
    def budgets(self) -> tuple[float, ...]:
        """To which it is calibrated; (): it is static."""
        return tuple(way.budget for way in self.ways if way.budget is not None)


def is_classifier(cfg: CfgNode) -> bool:
    """Whether a config is of a classifier; else it is of a detector."""
    return cfg.MODEL.META_ARCHITECTURE == "SACTClassifier"


def at_budgets(budgets: Sequence[float]) -> tuple[Way, ...]:
    """The ways of a network that is calibrated to budgets."""
    return tuple(Way("", budget, ("MODEL.SACT.BUDGET", repr(budget))) for budget in budgets)


def at_sides(cfg: CfgNode, sides: Sequence[int]) -> tuple[Way, ...]:
    """The ways of a network on images of other sides, rising: squares, or, of a detector, short sides.

    A detector's longest side is scaled with the short one. Raises InputError if the config has no size to scale.
    """
    found: dict[int, tuple[str, ...]]
    if is_classifier(cfg):
        found = {side: ("INPUT.CLASSIFICATION.SIZE_TEST", str(side)) for side in sides}
    elif cfg.INPUT.MIN_SIZE_TEST == 0:
        raise InputError("INPUT.MIN_SIZE_TEST is 0, so that images have no size to change (--sizes)")
    else:
        most = cfg.INPUT.MAX_SIZE_TEST / cfg.INPUT.MIN_SIZE_TEST
        keys = ("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST")
        found = {side: (keys[0], str(side), keys[1], str(round(side * most))) for side in sides}
    return tuple(Way(f"{side} pixels", None, found[side]) for side in sorted(found))


def at_proposals(cfg: CfgNode, numbers: Sequence[int]) -> tuple[Way, ...]:
    """The ways of a detector with so many proposals, rising. Raises InputError if it has none."""
    if is_classifier(cfg) or is_retinanet(cfg):
        raise InputError(f"{cfg.MODEL.META_ARCHITECTURE} has no proposals (--proposals)")
    key = "MODEL.RPN.POST_NMS_TOPK_TEST"
    return tuple(Way(f"{number} proposals", None, (key, str(number))) for number in sorted(set(numbers)))


def with_first_units(weights: str, units: Sequence[int], path: Path) -> None:
    """Writes the plain network of so many units per block whose weights are the first ones of another's.

    Raises:
        InputError: the file cannot be read, or has fewer units.
    """
    state_dict, metadata = load_weights(weights)
    with naming(weights, ValueError):
        kept = first_units(state_dict, units)
    described = {**metadata, "units": tuple(units), "halting": "none", "source": f"the first units of {weights}"}
    save_weights(path, kept, described)


def judged_by(cfg: CfgNode) -> tuple[Any, ...]:
    """What all networks of a comparison must have in common: the task and the data they are judged by."""
    (name,) = cfg.DATASETS.TEST
    entries = (*cfg.DATASETS.CLASSIFICATION, *cfg.DATASETS.COCO_FORMAT)
    return is_classifier(cfg), name, [list(entry) for entry in entries if entry[0] == name]
