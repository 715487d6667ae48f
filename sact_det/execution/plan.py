"""The plans by their names, and how a model is given one."""

from functools import partial
from typing import Callable, Optional, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from sact_det.base.checks import check_choice
from sact_det.base.log import info_once
from sact_det.base.precision import compute_type, convolution_precision
from sact_det.execution.compiled import CompiledPlan
from sact_det.execution.cuda.graphs import Capture, Graphs, capture_graph, padded_number
from sact_det.execution.cuda.packed import pack_block
from sact_det.execution.cuda.run import why_not_triton
from sact_det.execution.packing import refuse_released
from sact_det.execution.perforated import PackingPlan, PerforatedPlan
from sact_det.network.plan import (
    BlockInputs,
    DensePlan,
    ExportPlan,
    Plan,
    PlannedBlock,
    planned_parts,
)
from sact_det.rule.padding import strided_size
from sact_det.rule.ponder import BlockPonder


class GraphsPlan(PerforatedPlan):
    """Execution "graphs": as "perforated", and what a block launches on an NVIDIA GPU is one CUDA graph (graphs.py)."""

    def __init__(self, capture: Capture = capture_graph) -> None:
        super().__init__()
        self.graphs = Graphs(capture)

    @override
    def train(self, mode: bool = True) -> "GraphsPlan":
        """Forgets the graphs, too."""
        self.graphs.clear()
        super().train(mode)
        return self

    def why_not_recorded(self, block: PlannedBlock, x: Tensor) -> Optional[str]:
        """Why a block is evaluated at x without a graph, or None."""
        if not x.is_cuda:
            return f"they are for NVIDIA GPUs, not for {x.device.type}"
        if torch.cuda.is_current_stream_capturing():
            return "one is being captured"
        return why_not_triton(block, x)

    @override
    def block(self, block: PlannedBlock, inputs: BlockInputs) -> tuple[Tensor, BlockPonder]:
        x, valid_in, valid, dense_in, dense_out, *others = inputs
        assert x is not None
        reason = self.why_not_recorded(block, x)
        if reason is not None:
            info_once(f"Blocks run without CUDA graphs: {reason}")
            return super().block(block, inputs)
        if valid is None and padded_number(len(x)) > len(x):
            size = (x.shape[2], x.shape[3])
            valid_in, valid = (
                torch.ones(len(x), 1, *shape, dtype=torch.bool, device=x.device)
                for shape in (size, strided_size(size, block.units[0].stride))
            )

        def compute(*inputs: Optional[Tensor]) -> Sequence[Tensor]:
            features, ponder = block.compute(*inputs)
            return [features, *ponder.tensors()]

        weights = self.packed.get(block, pack_block, compute_type(x))
        settings = (block.settings, compute_type(x), convolution_precision(), _stream(x.device))
        inputs = (x, valid_in, valid, dense_in, dense_out, *others)
        features, cost, units, flops, distribution = self.graphs(compute, inputs, settings, weights)
        return features, BlockPonder(cost, units, flops, distribution)


def _stream(device: torch.device) -> int:
    """The present stream of a device; 0 on a CPU."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


PLANS: dict[str, Callable[[], Plan]] = {
    "dense": DensePlan,
    "perforated": PerforatedPlan,
    "auto": partial(PerforatedPlan, auto=True),
    "graphs": GraphsPlan,
    "compile": CompiledPlan,
    "export": ExportPlan,
}
EXECUTIONS = tuple(PLANS)


def set_execution(model: nn.Module, execution: str) -> None:
    """Says how stems, blocks, pyramids, poolers and heads compute, in place; parameters and results stay the same.

    Units and FLOPs are equal integers under every execution; features and scores are equal to rounding.

    Args:
        model: a network, a block or a detector.
        execution: "dense" computes every position and masks the residual: the reference, in which batch statistics see
            what they saw in the original program. "perforated" computes the active positions only, where no norm
            depends on the batch: in evaluation, and in training with frozen norms. "auto" perforates where that is
            faster. Inference and training with frozen norms run in kernels of our own under both, in float32 on a CPU,
            and in 16 bits, too, on an NVIDIA GPU; inference of plain blocks too. "graphs" is "perforated", but
            inference on an NVIDIA GPU launches a block as one CUDA graph: for images of a few sizes that come again and
            again. "compile" is dense, and torch.compile makes one program of a block, for such images as well.
            "export" is dense and runs all units,
            so that nothing depends on the values of a tensor.

    Raises:
        ValueError: there is no such execution.
        RuntimeError: weights that it needs are gone (release.py).
    """
    check_choice("execution", execution, EXECUTIONS)
    parts = planned_parts(model)
    plans = [PLANS[execution]() for _ in parts]
    for part, plan in zip(parts, plans):
        if not isinstance(plan, PackingPlan):
            refuse_released(part, f'for execution "{execution}"')
    for part, plan in zip(parts, plans):
        if isinstance(plan, PackingPlan) and isinstance(part.plan, PackingPlan):
            plan.packed, plan.half_states = part.plan.packed, part.plan.half_states
        part.plan = plan


def keep_half_states(model: nn.Module, half: bool = True) -> None:
    """Has kernels for training on an NVIDIA GPU keep what units add to in autocast's 16 bits, as dense execution does.

    Otherwise they keep float32. Gradients of these states are 16 bits, too; outputs of blocks, sums and scores stay
    float32. An execution set later keeps it, if both have kernels.
    """
    for part in planned_parts(model):
        if isinstance(part.plan, PackingPlan):
            part.plan.half_states = half


class Executable:
    """A mixin: a module whose execution can be chosen."""

    def set_execution(self, execution: str) -> None:
        """Says how stems and blocks compute: by one of sact_det.execution.EXECUTIONS."""
        assert isinstance(self, nn.Module)
        set_execution(self, execution)
