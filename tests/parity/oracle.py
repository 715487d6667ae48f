"""The outputs of the original program on TensorFlow 1.0, in tests/fixtures/oracle (see its README.md)."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sact_det import build_classifier
from sact_det.classification.model import Classifier
from sact_det.weights.sact_tf import convert_sact_tf, load_sact_tf

ORACLE = Path(__file__).parents[1] / "fixtures" / "oracle"
HALTING = {"vanilla": "none", "act": "act", "sact": "sact"}
CASES = ("sact_small_even", "act_small_even", "vanilla_small_odd", "cifar_sact")


@dataclass(frozen=True)
class Case:
    """A network of the original program, and what it answered to `images` [N, 3, H, W].

    Attributes:
        model: the same network here, with fresh weights.
        expected: arrays by the original's names: layouts NHWC.
    """

    name: str
    settings: dict
    model: Classifier
    expected: dict[str, np.ndarray]
    images: Tensor

    @property
    def halting(self) -> str:
        return HALTING[self.settings["model_type"]]

    @property
    def block_names(self) -> list[tuple[str, str]]:
        """(our name, the original's name) of every block."""
        return [(name, name.replace("block", self.block_prefix)) for name in self.model.block_names]

    @property
    def block_prefix(self) -> str:
        return "block_" if self.settings["family"] == "cifar" else "block"


def nchw(value: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(value, -1, 1)))


def read_case(name: str) -> Case:
    """A case with a network built from its settings, without looking at any variable."""
    settings = json.loads((ORACLE / name / "case.json").read_text())
    with np.load(ORACLE / name / "expected.npz", allow_pickle=False) as archive:
        expected = dict(archive)
    units = tuple(map(int, settings["model"].split("_")))
    cifar = settings["family"] == "cifar"
    model = build_classifier(
        units=units * 3 if cifar else units,
        halting=HALTING[settings["model_type"]],
        num_classes=settings["num_classes"],
        base_channels=settings["base_channels"],
        family=settings["family"],
    )
    return Case(name, settings, model, expected, nchw(expected["images"]))


def original_network(name: str) -> Case:
    """A case with the weights of its checkpoint, in evaluation mode."""
    case = read_case(name)
    case.model.load_state_dict(load_sact_tf(ORACLE / name / "ckpt"))
    case.model.eval()
    return case


def training_state(case: Case, moment: str) -> dict[str, Tensor]:
    """The state dict of the training case: "before" the step, "after1", or the gradients ("grad")."""
    variables = {n.removeprefix(f"{moment}/"): v for n, v in case.expected.items() if n.startswith(f"{moment}/")}
    if moment == "grad":  # a gradient exists for what is trained: the moving statistics come from elsewhere
        before = {n.removeprefix("before/"): v for n, v in case.expected.items() if n.startswith("before/")}
        variables = {**before, **variables}
    return convert_sact_tf(variables)[0]
