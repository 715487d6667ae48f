"""The backward passes of units and halting branches, as nodes of PyTorch's graph.

Features do not go through the graph: a forward pass reads and writes rows that PyTorch does not know of, and hands on
*tokens*, one number each that pretends to be [P, C]. What comes back for a token is the gradient of the features it
stands for, and that is real. Units and branches form a chain; every token has one reader, so that a gradient can be
updated in place. Three things are handed on: the state, the output so far (its gradient is the same all along) and the
sums of the state over each image (as numbers: halting branches read them).

Shape shorthand in this module:
    N: images; C: channels; w: bottleneck width; H, W: feature map, padding included; P = N * H * W.
"""

import math
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sact_det.execution.cpu.borrowed import Borrowed
from sact_det.execution.cpu.calls import BackwardPass, ForwardPass, TrainedUnit, kernels, whole_vectors
from sact_det.execution.cpu.memory import address, empty, plain, zeros
from sact_det.execution.cpu.sites import Sites
from sact_det.execution.cpu.workspace import workspace

Affine = tuple[Tensor, Tensor]
TAPS = 9


def token(positions: int, channels: int) -> Tensor:
    """Stands for features [P, C]."""
    return torch.empty_strided((positions, channels), (0, 0), dtype=torch.float32, device="cpu")


class GradientRows:
    """Which rows of a state's gradient, [P, C], are filled: what nothing has read has no gradient, and no zeros either.

    Attributes:
        filled: int32 [P], negative where there is no row yet; None: every row is there.
    """

    def __init__(self) -> None:
        self.filled: Optional[Tensor] = None

    def start(self, positions: int, channels: int) -> Tensor:
        """Room for the gradient of one backward pass. PyTorch's anomaly mode looks at every row: there all are zero."""
        make = zeros if torch.is_anomaly_enabled() else empty
        return make(positions, channels)

    def fill(self, rows: Tensor) -> None:
        """Says that there are rows now where the table `rows` has one; there were no others before."""
        self.filled = None if torch.is_anomaly_enabled() else rows


@dataclass(frozen=True, eq=False)
class UnitCall:
    """What the passes of a unit share beside tensors with gradients.

    Attributes:
        sites: where the unit is evaluated.
        x_rows: where a position's row stands in x, int32; None: at the position's own number.
        norms: scale and shift of the three norms, float32.
        stride, dilation: of the 3x3 convolution.
        squares: float64 [C] or None; what the state's squares grow by is added.
        threads: how many.
        gradient: of the state, shared by all of a block's units and branches.
    """

    sites: Sites
    x_rows: Optional[Tensor]
    norms: tuple[Affine, ...]
    stride: int
    dilation: int
    squares: Optional[Tensor]
    threads: int
    gradient: GradientRows

    def unit(self, x: Tensor, conv1: Tensor, conv3: Tensor, bias3: Tensor, projects: bool) -> TrainedUnit:
        """The structure, without packed weights."""
        (scale, shift), (scale1, shift1), (scale2, shift2) = self.norms
        tensors = {"scale": scale, "shift": shift, "scale1": scale1, "bias1": shift1, "scale2": scale2, "bias2": shift2}
        return TrainedUnit(
            in_channels=x.shape[1],
            width=len(conv1),
            out_channels=len(conv3),
            stride=self.stride,
            dilation=self.dilation,
            projects=projects,
            bias3=address(bias3),
            **{name: address(tensor) for name, tensor in tensors.items()},
        )


class UnitFunction(torch.autograd.Function):
    """A unit: (state, output, sums, ...) -> (state, output, sums)."""

    @staticmethod
    def forward(
        ctx: Any,
        call: UnitCall,
        state: Optional[Tensor],
        output: Optional[Tensor],
        sums: Optional[Tensor],
        remaining: Optional[Tensor],
        x: Tensor,
        rows: Optional[Tensor],
        out: Tensor,
        conv1: Tensor,
        conv2: Tensor,
        conv3: Tensor,
        bias3: Tensor,
        shortcut: Optional[Tensor],
        shortcut_bias: Optional[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The first unit of a block has a shortcut's weights, perhaps, and neither tokens, sums nor `remaining`.

        Args:
            call: see UnitCall.
            state, output: tokens.
            sums: float64 [N, C].
            remaining: float32 [N, H, W].
            x: rows [., C].
            rows: [., C], written: the state at the positions that were read (first unit: at all); None: not needed.
            out: [N, C, H, W], channels last, updated: the block's output so far.
            conv1, conv2, conv3, bias3, shortcut, shortcut_bias: parameters.
        """
        sites, threads = call.sites.struct, call.threads
        width, channels = len(conv1), len(conv3)
        positions = sites.images * sites.out_height * sites.out_width
        inner = empty(sites.num_reads + 1, whole_vectors(width))
        middle = empty(sites.num_writes, whole_vectors(width))
        added = zeros(sites.images, channels, dtype=torch.float64)
        if sites.num_writes:
            bias = bias3 if shortcut_bias is None else bias3 + shortcut_bias
            with Borrowed() as memory:
                bias = plain(bias)
                unit = call.unit(x, conv1, conv3, bias, shortcut is not None)
                unit.conv1 = memory.pack("conv1", conv1, call.norms[1][0])
                unit.conv2 = memory.pack("conv2", conv2, call.norms[2][0])
                unit.conv3 = memory.pack("conv3", conv3 if shortcut is None else torch.cat([conv3, shortcut], 1))
                forward = ForwardPass(
                    x=address(x),
                    x_rows=address(call.x_rows, torch.int32),
                    inner=address(inner),
                    middle=address(middle),
                    state=address(rows),
                    output=address(out.permute(0, 2, 3, 1)),
                    remaining=address(remaining),
                    sums=address(added, torch.float64),
                    squares=address(call.squares, torch.float64),
                    scratch=memory.room("scratch", kernels().forward_scratch_size(unit, sites, threads)),
                )
                kernels().train_forward(unit, sites, forward, memory.factors(), threads)
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, rows, inner, middle, remaining, conv1, conv2, conv3, bias3, shortcut)
        new_sums = added if sums is None else sums + added
        new = token(positions, channels), token(positions, channels), new_sums
        depends = [index for index, needed in enumerate(ctx.needs_input_grad) if needed]
        if not set(depends) - {2, 4}:  # neither the state before nor the weights have gradients
            ctx.mark_non_differentiable(new[0], new[2])
        return new

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_state: Optional[Tensor], grad_output: Optional[Tensor], grad_sums: Optional[Tensor]
    ) -> tuple[Optional[Tensor], ...]:
        """Updates grad_state in place."""
        if grad_state is None and grad_output is None and grad_sums is None:
            return (None,) * 14
        call: UnitCall = ctx.call
        x, rows, inner, middle, remaining, conv1, conv2, conv3, bias3, shortcut = ctx.saved_tensors
        needs, sites = ctx.needs_input_grad, call.sites
        first = remaining is None
        width, channels = len(conv1), len(conv3)

        make = empty if sites.struct.num_writes else zeros
        grad_remaining = None if grad_output is None or not needs[4] else zeros(*remaining.shape)
        grad_conv1 = make(width, x.shape[1]) if needs[8] else None
        grad_conv2 = make(width, TAPS, width) if needs[9] else None
        grad_conv3 = make(channels, width) if needs[10] else None
        grad_bias3 = make(channels) if needs[11] or needs[13] else None
        grad_shortcut = make(channels, x.shape[1]) if needs[12] else None
        if not first:
            grad_x = grad_state
            if needs[1] and grad_state is None and sites.struct.num_writes:
                grad_x = call.gradient.start(len(sites.write_rows), channels)
        elif not needs[5]:
            grad_x = None
        elif shortcut is None:
            grad_x = _gradient_at(call, grad_state, grad_output, grad_sums)
        else:
            grad_x = (torch.empty_like if sites.struct.num_reads == len(x) else torch.zeros_like)(x)

        if sites.struct.num_writes:
            needs_x = needs[5] if first else needs[1]
            through_inner = needs_x or grad_conv1 is not None
            # Behind the last unit nothing reads the state: its residual's gradient is the output's times `remaining`.
            through_middle = through_inner or grad_conv2 is not None or (rows is None and grad_remaining is not None)
            through_conv3 = grad_conv3 is not None or grad_bias3 is not None
            size = middle.shape[1]
            sums = None if grad_sums is None else plain(grad_sums.float())
            bias3 = plain(bias3)
            with Borrowed() as memory:
                unit = call.unit(x, conv1, conv3, bias3, shortcut is not None)
                if through_middle:
                    unit.back3 = memory.pack("conv3", conv3, transposed=True)
                if through_inner:
                    unit.back2 = memory.pack("conv2", conv2, call.norms[2][0], transposed=True)
                if needs_x:
                    unit.back1 = memory.pack("conv1", conv1, call.norms[1][0], transposed=True)
                if needs_x and shortcut is not None:
                    unit.shortcut = memory.pack("shortcut", shortcut, transposed=True)

                turned_conv3 = memory.take("turned_conv3", width + 1, channels) if through_conv3 else None
                scratch_size = kernels().backward_scratch_size(unit)

                def room(name: str, needed: bool, *shape: int) -> Optional[int]:
                    return memory.room(name, math.prod(shape)) if needed else None

                backward = BackwardPass(
                    x=address(x),
                    x_rows=address(call.x_rows, torch.int32),
                    inner=address(inner),
                    middle=address(middle),
                    state=address(rows),
                    remaining=address(remaining),
                    grad_state=address(grad_state),
                    filled=address(call.gradient.filled, torch.int32),
                    grad_output=address(grad_output),
                    grad_sums=address(sums),
                    grad_x=address(grad_x) if needs_x else None,
                    adds=shortcut is None if first else grad_state is not None,
                    grad_remaining=address(grad_remaining),
                    grad_conv1=address(grad_conv1),
                    grad_conv2=address(grad_conv2),
                    grad_conv3=address(grad_conv3),
                    grad_shortcut=address(grad_shortcut),
                    turned_conv3=address(turned_conv3),
                    turned_shortcut=room("turned_shortcut", grad_shortcut is not None, x.shape[1], channels),
                    grad_inner=room("grad_inner", through_inner, sites.struct.num_reads, size),
                    grad_middle=room("grad_middle", through_middle, sites.struct.num_writes + 1, size),
                    taps=memory.room("taps_of_writes", sites.struct.num_writes * TAPS),
                    scratch=memory.room("scratch", call.threads * scratch_size),
                )
                kernels().train_backward(unit, sites.struct, backward, memory.factors(), call.threads)
                if grad_bias3 is not None and turned_conv3 is not None:
                    grad_bias3.copy_(turned_conv3[-1])
                if needs_x and not first:
                    call.gradient.fill(sites.read_rows)
        if first:  # the next block's are smaller or larger, and the next step begins with all its activations
            workspace.forget("grad_inner", "grad_middle")
        return (
            None,
            None if first else grad_x,
            grad_output if needs[2] else None,
            grad_sums if needs[3] else None,
            grad_remaining,
            grad_x if first else None,
            None,
            None,
            None if grad_conv1 is None else grad_conv1.view_as(conv1),
            None if grad_conv2 is None else grad_conv2.view(width, 3, 3, width).permute(0, 3, 1, 2),
            None if grad_conv3 is None else grad_conv3.view_as(conv3),
            grad_bias3 if needs[11] else None,
            None if grad_shortcut is None else grad_shortcut.view_as(shortcut),
            grad_bias3.clone() if grad_bias3 is not None and needs[13] else None,
        )


def _gradient_at(call: UnitCall, state: Optional[Tensor], output: Optional[Tensor], sums: Optional[Tensor]) -> Tensor:
    """The gradient of what is state, output and summand at once, [P, C]; zero at padding."""
    writes, struct = call.sites.writes, call.sites.struct
    if state is not None and call.gradient.filled is not None:
        state = state.masked_fill(call.gradient.filled[:, None] < 0, 0)
    parts = [part.index_select(0, writes) for part in (state, output) if part is not None]
    if sums is not None:
        parts.append(sums.float().index_select(0, writes // (struct.out_height * struct.out_width)))
    total = sum(parts[1:], parts[0])
    return total.new_zeros(len(call.sites.write_rows), total.shape[1]).index_copy_(0, writes, total)
