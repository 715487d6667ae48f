"""Stage "training": steps of a detector in float32, float16 and bfloat16, dense and as "auto" would have them."""

import copy
import math
from pathlib import Path
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor, nn

from sact_det.benchmark.gpu.stage import Machine, Report

CONFIGS = Path(__file__).parents[3] / "configs"
STEPS = 20
RATE = 1e-3
PRECISIONS: dict[str, Optional[torch.dtype]] = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
# Of the first step's losses between executions, relative: they round differently, convolutions on a GPU to TF32.
TOLERANCES = {"fp32": 1e-2, "fp16": 2e-2, "bf16": 5e-2}
# What depends on features alone. Regions are chosen by their scores: a rounding may choose others, with other losses.
COMPARED = ("loss_ponder", "loss_rpn_cls", "loss_rpn_loc")
TINY = ["MODEL.SACT.NORM", "FrozenBN"]
R_50 = ["MODEL.SACT.UNITS", "(3, 4, 6, 3)", "MODEL.SACT.REFERENCE_UNITS", "(3, 4, 6)"]
R_50 += ["MODEL.ROI_HEADS.NUM_CLASSES", "3"]


class Course(NamedTuple):
    """What some steps gave: every loss of every step, and the step's state afterwards."""

    losses: list[dict[str, float]]
    types: dict[str, torch.dtype]


def build(config: str, overrides: list[str], machine: Machine) -> nn.Module:
    """A detector with fresh weights, in training mode."""
    from sact_det.tasks import load_config

    # isort: split
    from detectron2.modeling import build_model

    cfg = load_config(str(CONFIGS / config), [*overrides, "MODEL.DEVICE", str(machine.device)])
    torch.manual_seed(1)
    return build_model(cfg).train()


def batches(number: int, sizes: list[tuple[int, int]]) -> list[list[dict[str, Any]]]:
    """Noise with a brighter box in every image, which is the only object."""
    from detectron2.structures import Boxes, Instances

    generator = torch.Generator().manual_seed(2)
    made = []
    for index in range(number):
        batch = []
        for height, width in sizes:
            image = 255 * torch.rand(3, height, width, generator=generator) * 0.5
            box = torch.tensor([[width * 0.2, height * 0.25, width * 0.7, height * 0.8]])
            left, top, right, bottom = box[0].int().tolist()
            image[index % 3, top:bottom, left:right] += 100
            instances = Instances((height, width), gt_boxes=Boxes(box), gt_classes=torch.tensor([index % 3]))
            batch.append({"image": image, "instances": instances, "height": height, "width": width})
        made.append(batch)
    return made


class Steps:
    """Stochastic gradient descent of a detector, in one precision.

    Args:
        model: in training mode.
        precision: of PRECISIONS.
        device: of the model.
    """

    def __init__(self, model: nn.Module, precision: str, device: torch.device):
        self.model, self._type, self._device = model, PRECISIONS[precision], device
        self._optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], RATE, momentum=0.9)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def run(self, data: list[list[dict[str, Any]]], first: int, last: int) -> Course:
        """Steps `first` to `last` - 1; what a step draws at random depends on its number alone."""
        from detectron2.utils.events import EventStorage

        losses: list[dict[str, Tensor]] = []
        with EventStorage(first) as storage:
            for step in range(first, last):
                torch.manual_seed(1000 + step)
                storage.iter = step
                with torch.autocast(self._device.type, self._type, enabled=self._type is not None):
                    found = self.model(data[step % len(data)])
                self._optimizer.zero_grad(set_to_none=True)
                self._scaler.scale(sum(found.values())).backward()
                self._scaler.step(self._optimizer)
                self._scaler.update()
                losses.append({name: loss.detach() for name, loss in found.items()})
        types = {name: loss.dtype for name, loss in losses[0].items()}
        return Course([{name: float(loss) for name, loss in step.items()} for step in losses], types)

    def state(self) -> dict[str, Any]:
        """The state of model, optimizer and gradient scaler, copied."""
        parts: dict[str, Any] = {"model": self.model, "optimizer": self._optimizer, "scaler": self._scaler}
        return {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])


def run(machine: Machine, report: Report) -> None:
    """A tiny detector in every precision, and a ResNet-50 at 480x640 on a GPU."""
    try:
        import sact_det.engine  # noqa: F401
    except ImportError as error:
        report.skip(str(error))
        return
    sizes = [(60, 72), (72, 50)] if machine.tiny else [(96, 128), (128, 100)]
    _compare("tiny", "tests/tiny.yaml", TINY, sizes, machine, report)
    if not machine.tiny:
        overrides = [*R_50, "MODEL.SACT.NORM", "FrozenBN"]
        _compare("ResNet-50", "Base-SACT-C4.yaml", overrides, [(480, 640), (448, 640)], machine, report)


def _compare(
    name: str, config: str, overrides: list[str], sizes: list[tuple[int, int]], machine: Machine, report: Report
) -> None:
    data, steps = batches(4, sizes), 2 if machine.tiny else STEPS
    precisions = ("fp32", "bf16") if machine.tiny else tuple(PRECISIONS)
    for precision in precisions:
        first: dict[str, dict[str, float]] = {}
        for execution in ("dense", "auto"):
            label = f"{name}, {precision}, {execution}"
            with report.part(label, least=10) as enough:
                if not enough:
                    continue
                model = build(config, [*overrides, "MODEL.SACT.EXECUTION", execution], machine)
                course = Steps(model, precision, machine.device).run(data, 0, steps)
                finite = all(math.isfinite(value) for step in course.losses for value in step.values())
                report.check("losses are finite", finite, label)
                ponder = course.types["loss_ponder"]
                report.check("loss_ponder is float32", ponder == torch.float32, f"{label}: {ponder}")
                report.values.setdefault("losses", {})[label] = course.losses
                first[execution] = course.losses[0]
        if len(first) == 2:
            for loss in COMPARED:
                value = first["dense"][loss]
                off = abs(first["auto"][loss] - value) / max(abs(value), 1e-3)
                label = f"{name}, {precision}, {loss}: {first['auto'][loss]:.6g} and {value:.6g}"
                report.check("the first step's losses agree", off <= TOLERANCES[precision], label)
    with report.part(f"{name}, resumed", least=10) as enough:
        if enough:
            _resume(name, config, overrides, data, machine, report)


def _resume(
    name: str, config: str, overrides: list[str], data: list[list[dict[str, Any]]], machine: Machine, report: Report
) -> None:
    """Two steps, two more, and the latter once again from the state between: how far apart."""
    steps = Steps(build(config, overrides, machine), "fp32", machine.device)
    steps.run(data, 0, 2)
    state = steps.state()
    through = steps.run(data, 2, 4)
    steps.load(state)
    again = steps.run(data, 2, 4)
    off = max(
        abs(again.losses[i][loss] - value) / max(abs(value), 1e-3)
        for i, step in enumerate(through.losses)
        for loss, value in step.items()
    )
    report.values.setdefault("resumed", {})[name] = off
    # cuDNN and atomic additions may sum in another order; on a CPU nothing does.
    tolerance = 0.0 if machine.device.type == "cpu" else 1e-3
    report.check("a resumed run goes on as it would have", off <= tolerance, f"{name}: losses are off by {off:.1e}")
