"""A trained classifier, whole, at several budgets, beside the plain network."""

import copy
from functools import partial
from typing import Any, Optional, Sequence

import torch
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.benchmark.executions import Executions
from sact_det.benchmark.fastest import FastestProgram
from sact_det.benchmark.networks import DensePart
from sact_det.benchmark.parts import check_features, rival_candidate
from sact_det.benchmark.report import Entry, Table
from sact_det.benchmark.rivals import build_rivals
from sact_det.benchmark.setting import Setting, relative_difference
from sact_det.benchmark.timing import Candidate
from sact_det.budget.image_scale import scaled_images, scaled_size
from sact_det.classification.meta_arch import SACTClassifier
from sact_det.engine.reference import Reference


class PlainClassifier(nn.Module):
    """The logits of a classifier in which nothing halts; no FLOPs are counted.

    Args:
        model: copied without its halting branches.
    """

    def __init__(self, model: SACTClassifier):
        super().__init__()
        units = [unit for name in model.block_names for unit in model.get_submodule(name).units]  # type: ignore
        self.part = DensePart(units, model.stem)
        self.postnorm, self.logits = copy.deepcopy(model.postnorm), copy.deepcopy(model.logits)
        self._pool = model.spec.pool

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W], as the network sees them -> [N, num_classes]."""
        return self.logits(self._pool(self.part(images), self.postnorm)).flatten(1)


def in_batches(images: Sequence[Tensor], batch: int) -> list[Sequence[Tensor]]:
    """Images, `batch` in each list; those that do not fill one are left out. Raises InputError if there are too few."""
    if len(images) < batch:
        raise InputError(f"--batch {batch}: there are {len(images)} photographs (see --images and --max-images)")
    return [images[first : first + batch] for first in range(0, len(images) - batch + 1, batch)]


def measure_classifier(
    title: str,
    model: SACTClassifier,
    batches: Sequence[Sequence[Tensor]],
    budgets: Sequence[Optional[float]],
    scales: Sequence[float],
    setting: Setting,
) -> Table:
    """Inference of a classifier beside the plain network with its weights, also on smaller images.

    Rivals get images that are normalised, and scaled, beforehand. FLOPs are those of the images that are timed.

    Args:
        title: of the table.
        model: in evaluation mode, on the device.
        batches: of images [3, H, W] of one size, in [0, 255]. A run takes them one after the other.
        budgets: that it spends, one by one; None: as trained.
        scales: of the sides of images, in (0, 1], for the plain network in its fastest program.
        setting: device, precision, rounds and who takes part.

    Raises:
        InputError: a budget cannot be spent.
        Disagreement: an execution computes other logits than the masked dense one.
    """
    with torch.no_grad(), setting.activated():
        inputs = [[{"image": image} for image in batch] for batch in batches]
        whole = [model.preprocess(batch) for batch in inputs]
        size = whole[0].shape[2], whole[0].shape[3]
        reference = Reference.of(model.spec, model.spec.units, model.logits.out_channels)
        dense_flops = sum(map(len, batches)) * reference.flops(size)
        model.set_budget(None)
        plain = PlainClassifier(model)
        rivals, differences, absent = build_rivals(plain, whole[0], setting, setting.rivals)
        candidates = [rival_candidate(rival, whole) for rival in rivals]
        entries = [Entry(rival.name, rival=True, difference=differences[rival.name]) for rival in rivals]
        program = FastestProgram("plain network", plain, setting, setting.rivals, alike=lambda shape: None)
        for scale in sorted({own for own in scales if own < 1} if rivals else (), reverse=True):
            smaller = [scaled_images(x, scale) for x in whole]
            program(smaller[0])  # is found and built
            ratio = reference.flops(scaled_size(size, scale)) / reference.flops(size)
            entries.append(Entry(f"plain x{scale:g}, {program.ran}", False, ratio))
            candidates.append(Candidate(entries[-1].name, partial(_run_all, program, smaller)))
        executions = Executions(model)
        for budget in budgets:
            _set_up(model, executions, budget, "dense")
            expected = _logits(_detailed(model, inputs, setting))
            for execution in setting.executions:
                name = f"as trained, {execution}" if budget is None else f"budget {budget:g}, {execution}"
                prepare = partial(_set_up, model, executions, budget, execution)
                prepare()
                outputs = _detailed(model, inputs, setting)
                difference = relative_difference(_logits(outputs), expected)
                if setting.precision == "fp32":
                    check_features(name, difference, setting)
                ratio = sum(int(output["ponder"].flops) for output in outputs) / dense_flops
                entries.append(Entry(name, False, ratio, difference, budget, execution))
                candidates.append(Candidate(name, lambda _: _detailed(model, inputs, setting), prepare))
        times = setting.times(candidates, title)
    return Table(title, whole[0].shape, dense_flops, entries, times, absent, len(whole), program.remarks)


def _set_up(model: SACTClassifier, executions: Executions, budget: Optional[float], execution: str) -> None:
    executions.choose(execution)
    model.set_budget(budget)


def _detailed(model: SACTClassifier, inputs: Sequence[list[dict[str, Any]]], setting: Setting) -> list[dict[str, Any]]:
    """What the model says of every image."""
    with setting.autocast():
        return [output for batch in inputs for output in model(batch)]


def _logits(outputs: Sequence[dict[str, Any]]) -> Tensor:
    return torch.stack([output["logits"] for output in outputs])


def _run_all(program: FastestProgram, inputs: Sequence[Tensor], prepared: Any) -> None:
    for x in inputs:
        program(x)
