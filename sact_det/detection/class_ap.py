"""AP of some classes of a data set: those that there is enough to learn of."""

from typing import Collection, Mapping, Sequence

import numpy as np
from detectron2.data import MetadataCatalog

from sact_det.base.errors import InputError

KEY = "AP_of_classes"  # where it stands among the results of boxes
_CLASS = "AP-"


def check_classes(classes: Sequence[str], dataset: str) -> None:
    """Raises InputError, naming --classes, if one is none of a registered data set's; nothing where it names none."""
    known = MetadataCatalog.get(dataset).get("thing_classes")
    if known is not None:
        _check(classes, known)


def mean_over_classes(results: Mapping[str, float], classes: Sequence[str]) -> float:
    """The mean AP of these classes; NaN if one of them has nothing to be found.

    Args:
        results: of boxes, with AP-NAME of every class (BoxEvaluator).
        classes: at least one of the names.

    Raises:
        InputError: a class is none of the data set's.
    """
    _check(classes, [key.removeprefix(_CLASS) for key in results if key.startswith(_CLASS)])
    return float(np.mean(np.array([results[f"{_CLASS}{name}"] for name in classes], np.float64)))  # null is NaN


def mean_over_present(results: Mapping[str, float], classes: Sequence[str]) -> float:
    """As `mean_over_classes`, over those that there is something to be found of, as COCO's own mean; NaN: of none."""
    present = [name for name in classes if not np.isnan(mean_over_classes(results, [name]))]
    return mean_over_classes(results, present) if present else float("nan")


def _check(classes: Sequence[str], known: Collection[str]) -> None:
    for name in classes:
        if name not in known:
            raise InputError(f"--classes {name}: expected one of {', '.join(sorted(known)) or 'several classes'}")
