"""Inference without the parameters themselves: the kernels' packed weights are enough."""

from functools import partial
from typing import Any, Optional, Union

import torch
from torch import nn

from sact_det.base.precision import compute_type
from sact_det.execution.cpu.conditions import why_not_here
from sact_det.execution.cpu.packed import factor_type, pack_block, pack_stem
from sact_det.execution.cpu.run import why_not_rows
from sact_det.execution.packing import is_released, refuse_released
from sact_det.execution.perforated import PackingPlan
from sact_det.network.plan import PlannedBlock, PlannedStem, planned_parts
from sact_det.network.resnet_v2 import BottleneckUnit

Part = Union[PlannedBlock, PlannedStem]


@torch.no_grad()
def release_weights(model: nn.Module) -> None:
    """Packs the weights of a model's stem and blocks for the kernels of the CPU, and lets go of the weights themselves.

    The kernels need a copy of their own, so that this halves the memory for weights. What is left can be evaluated, at
    any budget, and nothing else: the weights of the stem's and the units' convolutions become meta tensors, but for
    those that make the products that a block reads. Norms, biases and halting branches stay, in ResNet-101 a sixtieth
    of all. Training, execution "dense", copying and moving the model, reading its state dict and loading one raise
    RuntimeError.

    Args:
        model: in evaluation mode, on a CPU, with execution "perforated" or "auto" (set_execution); classifier,
            detector, or any module with stems and blocks of these inside. Afterwards it can be evaluated in the
            precision in which it could before: under autocast if this is called under autocast, else without.

    Raises:
        ValueError: it is none of that, or the kernels cannot evaluate it; nothing has been released then.
    """
    parts = [part for part in planned_parts(model) if isinstance(part, (PlannedBlock, PlannedStem))]
    reasons = [_why_not(part) for part in parts] or ["there is neither a stem nor a block"]
    if any(reasons):
        raise ValueError(f"the weights cannot be released: {next(filter(None, reasons))}")
    for part in parts:
        assert isinstance(part.plan, PackingPlan)
        dtype = factor_type(compute_type(next(part.parameters())))
        if isinstance(part, PlannedStem):
            packed_stem = pack_stem(part, dtype)
            part.plan.packed.keep(packed_stem, part.to("meta"), pack_stem, dtype)
        else:
            # Unit by unit: never much more than one copy of everything.
            packed_block = pack_block(part, dtype, done_with=partial(_release_unit, part))
            part.plan.packed.keep(packed_block, part, pack_block, dtype)
        part.register_state_dict_pre_hook(_refuse)
        part.register_load_state_dict_pre_hook(_refuse)


def _release_unit(block: PlannedBlock, unit: BottleneckUnit) -> None:
    convs = [unit.conv2, unit.conv3]
    if not (block.reads_products and unit is block.units[0]):  # else PyTorch evaluates the others
        convs += [unit.conv1] if unit.shortcut is None else [unit.conv1, unit.shortcut]
    for conv in convs:
        conv.weight = nn.Parameter(conv.weight.to("meta"), requires_grad=conv.weight.requires_grad)


def _why_not(part: Part) -> Optional[str]:
    if is_released(part):
        return "they have been released"
    if not isinstance(part.plan, PackingPlan):
        return 'execution "dense" needs them'
    if part.training:
        return "the model is in training"
    weight = part.conv.weight if isinstance(part, PlannedStem) else part.reader.weight
    x = weight.new_empty(1, weight.shape[1], 1, 1)
    reason = why_not_here(part, x, weight) if isinstance(part, PlannedStem) else why_not_rows(part, x)
    return None if reason is None else f"the kernels for CPUs cannot serve ({reason})"


def _refuse(part: Part, *state: Any) -> None:
    refuse_released(part, "for a state dict")
