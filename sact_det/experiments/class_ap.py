"""AP of some classes of a data set: those that there is enough to learn of."""

from typing import Mapping, Sequence

import numpy as np

from sact_det.base.errors import InputError

KEY = "AP_of_classes"  # where it stands among the results of boxes
_CLASS = "AP-"


def mean_over_classes(results: Mapping[str, float], classes: Sequence[str]) -> float:
    """The mean AP of these classes; NaN if one of them has nothing to be found.

    Args:
        results: of boxes, with AP-NAME of every class (BoxEvaluator).
        classes: at least one of the names.

    Raises:
        InputError: a class is none of the data set's.
    """
    for name in classes:
        if f"{_CLASS}{name}" not in results:
            known = [key.removeprefix(_CLASS) for key in results if key.startswith(_CLASS)]
            raise InputError(f"--classes {name}: expected one of {', '.join(sorted(known)) or 'several classes'}")
    return float(np.mean(np.array([results[f"{_CLASS}{name}"] for name in classes], np.float64)))  # null is NaN
