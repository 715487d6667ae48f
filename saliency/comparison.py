"""Rows of a finished evaluation against each other: is one model's map better than another's on the same images?"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import numpy as np

from sact_det.base.errors import InputError, naming
from sact_det.base.text_files import read_text
from saliency.intervals import Interval, bootstrap_intervals
from saliency.methods import CENTER
from saliency.observers import PEOPLE

FILE = "images.csv"  # of every image's scores, in the folder of an evaluation
_KEYS = ("model", "map", "category", "image")


@dataclass(frozen=True, eq=False)
class ImageScores:
    """What tools/evaluate_saliency.py writes as images.csv.

    Attributes:
        metrics: their names, in the order of the columns.
        images: their names, in the order of the rows.
        rows: by model and map, float64 [images, metrics].
    """

    metrics: tuple[str, ...]
    images: tuple[str, ...]
    rows: Mapping[tuple[str, str], np.ndarray]

    @classmethod
    def read(cls, folder: Union[str, Path]) -> "ImageScores":
        """Those of an evaluation's folder. Raises InputError if the file is missing or is none."""
        path = Path(folder) / FILE
        text = read_text(path, missing="no such scores; expected the folder of tools/evaluate_saliency.py")
        with naming(f"{path}: not as tools/evaluate_saliency.py writes it"):
            head, *lines = csv.reader(io.StringIO(text, newline=""))
            if tuple(head[: len(_KEYS)]) != _KEYS or not head[len(_KEYS) :] or not lines:
                raise ValueError(f"expected the columns {', '.join(_KEYS)} and metrics, and rows")
            found: dict[tuple[str, str], dict[str, list[float]]] = {}
            for model, stage, _, image, *scores in lines:
                found.setdefault((model, stage), {})[image] = [float(score) for score in scores]
            images = tuple(next(iter(found.values())))
            rows = {key: np.array([own[image] for image in images]) for key, own in found.items()}
            if any(values.shape != (len(images), len(head) - len(_KEYS)) for values in rows.values()):
                raise ValueError("a row has another number of columns than the head")
        return cls(tuple(head[len(_KEYS) :]), images, rows)

    @property
    def models(self) -> list[str]:
        """The models, in order, without centre baselines and people."""
        return [name for name in dict.fromkeys(model for model, _ in self.rows) if name not in (CENTER, PEOPLE)]

    def of(self, model: str, stage: Optional[str] = None) -> np.ndarray:
        """The scores of a model's map, by default of its last one. Raises InputError if there is no such row."""
        own = {found: values for (name, found), values in self.rows.items() if name == model}
        if not own:
            raise InputError(f"no model {model!r}; there are {', '.join(self.models)}")
        if stage is not None and stage not in own:
            raise InputError(f"no map {stage!r} of {model!r}; there are {', '.join(own)}")
        return own[stage or list(own)[-1]]

    def differences(self, model: str, other: str, stage: Optional[str] = None) -> dict[str, Interval]:
        """By metric, the mean of model minus other over the images, with its interval (saliency/intervals.py).

        A metric by which an image scores -inf is left out.

        Args:
            model, other: two models.
            stage: which of their maps; default: the last of each.

        Raises:
            InputError: there is no such row.
        """
        one, two = self.of(model, stage), self.of(other, stage)
        finite = np.flatnonzero((np.isfinite(one) & np.isfinite(two)).all(axis=0))
        intervals = bootstrap_intervals(one[:, finite] - two[:, finite])
        return dict(zip((self.metrics[column] for column in finite), intervals))
