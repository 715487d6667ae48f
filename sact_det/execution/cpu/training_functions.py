"""The units of a block as nodes of PyTorch's graph (torch.autograd.Function).

Features are rows, and what stands for them in the graph are placeholders (sact_det/execution/training.py). A unit
returns the state and the output so far, whose gradient is the same all along, as placeholders, and the sums of the
state over each image as they are: branches read them.

Shape shorthand in this module:
    N: images; C: channels; w: bottleneck width; H, W: feature map, padding included; P = N * H * W.
"""

from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sact_det.execution.cpu.buffers import free_memory
from sact_det.execution.cpu.calls import BackwardPass, ForwardPass, TrainedUnit, kernels, whole_vectors
from sact_det.execution.cpu.factors import PassBuffers
from sact_det.execution.cpu.memory import addresses, empty, plain, zeros
from sact_det.execution.cpu.sites import Sites
from sact_det.execution.training import placeholder
from sact_det.network.convolution import TAPS

Affine = tuple[Tensor, Tensor]


class GradientRows:
    """Which rows of a state's gradient, [P, C], hold numbers: the others stand for zeros that nobody has written.

    Attributes:
        filled: int32 [P], negative where a row holds nothing yet; None: every row holds numbers.
    """

    def __init__(self) -> None:
        self.filled: Optional[Tensor] = None

    def start(self, positions: int, channels: int) -> Tensor:
        """A gradient [P, C] without filled rows: uninitialised, or zero in PyTorch's anomaly mode, which reads them."""
        make = zeros if torch.is_anomaly_enabled() else empty
        return make(positions, channels)

    def fill(self, rows: Tensor) -> None:
        """Declares rows filled: those of a table, int32 [P], that are not negative. No others were before."""
        self.filled = None if torch.is_anomaly_enabled() else rows


@dataclass(frozen=True, eq=False)
class UnitCall:
    """What the passes of a unit read beside tensors with gradients.

    Attributes:
        sites: where the unit is evaluated.
        x_rows: where a position's row stands in x, int32; None: at the position's own number.
        norms: scale and shift of the three norms, float32.
        stride, dilation: of the 3x3 convolution.
        squares: float64 [C] or None; the growth of the sums of the state's squares is added to it.
        threads: how many the kernels use.
        gradient: the rows of the state's gradient, one object for all units and branches of a block.
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
        """The kernels' structure of a unit, without packed weights.

        Args:
            x: rows [., C].
            conv1, conv3, bias3: parameters; bias3 with the shortcut's.
            projects: whether the shortcut is a convolution.
        """
        (scale, shift), (scale1, shift1), (scale2, shift2) = self.norms
        return TrainedUnit(
            in_channels=x.shape[1],
            width=len(conv1),
            out_channels=len(conv3),
            stride=self.stride,
            dilation=self.dilation,
            projects=projects,
            **addresses(scale=scale, shift=shift, bias1=shift1, bias2=shift2, bias3=bias3),
            **addresses(scale1=scale1, scale2=scale2),
        )


class UnitFunction(torch.autograd.Function):
    """A unit in the graph: (state, output, sums, ...) -> (state, output, sums)."""

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
        """Evaluates the unit at call.sites.

        Args:
            call: how.
            state, output: placeholders; None for the first unit of a block.
            sums: float64 [N, C], the state summed over each image; None for the first unit.
            remaining: float32 [N, H, W], the open share of each position; None for the first unit.
            x: the rows of the input, [., C].
            rows: [., C], written: the state at the positions that were read (first unit: at all); None: not needed.
            out: [N, C, H, W], channels last, updated: the block's output so far.
            conv1, conv2, conv3, bias3: parameters.
            shortcut, shortcut_bias: parameters of a projecting shortcut, which only a first unit has, or None.

        Returns:
            Placeholders of state and output, and the new sums.
        """
        sites, threads = call.sites.struct, call.threads
        width, channels = len(conv1), len(conv3)
        shape = (sites.images * sites.out_height * sites.out_width, channels)
        inner = empty(sites.num_reads + 1, whole_vectors(width))
        middle = empty(sites.num_writes, whole_vectors(width))
        added = zeros(sites.images, channels, dtype=torch.float64)
        if sites.num_writes:
            bias = bias3 if shortcut_bias is None else bias3 + shortcut_bias
            with PassBuffers() as buffers:
                bias = plain(bias)
                unit = call.unit(x, conv1, conv3, bias, shortcut is not None)
                unit.conv1 = buffers.pack("conv1", conv1, call.norms[1][0])
                unit.conv2 = buffers.pack("conv2", conv2, call.norms[2][0])
                unit.conv3 = buffers.pack("conv3", conv3 if shortcut is None else torch.cat([conv3, shortcut], 1))
                forward = ForwardPass(
                    **addresses(x=x, inner=inner, middle=middle, state=rows, output=out.permute(0, 2, 3, 1)),
                    **addresses(remaining=remaining),
                    **addresses(torch.int32, x_rows=call.x_rows),
                    **addresses(torch.float64, sums=added, squares=call.squares),
                    scratch=buffers.room("scratch", kernels().forward_scratch_size(unit, sites, threads)),
                )
                kernels().train_forward(unit, sites, forward, buffers.factors(), threads)
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, rows, inner, middle, remaining, conv1, conv2, conv3, bias3, shortcut)
        new_sums = added if sums is None else sums + added
        new = placeholder(shape, x.device), placeholder(shape, x.device), new_sums
        depends = [index for index, needed in enumerate(ctx.needs_input_grad) if needed]
        if not set(depends) - {2, 4}:  # neither the state before nor the weights have gradients
            ctx.mark_non_differentiable(new[0], new[2])
        return new

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_state: Optional[Tensor], grad_output: Optional[Tensor], grad_sums: Optional[Tensor]
    ) -> tuple[Optional[Tensor], ...]:
        """The gradients of forward's arguments; that of the state is grad_state, updated in place."""
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
            with PassBuffers() as buffers:
                unit = call.unit(x, conv1, conv3, bias3, shortcut is not None)
                if through_middle:
                    unit.back3 = buffers.pack("conv3", conv3, transposed=True)
                if through_inner:
                    unit.back2 = buffers.pack("conv2", conv2, call.norms[2][0], transposed=True)
                if needs_x:
                    unit.back1 = buffers.pack("conv1", conv1, call.norms[1][0], transposed=True)
                if needs_x and shortcut is not None:
                    unit.shortcut = buffers.pack("shortcut", shortcut, transposed=True)

                def take(name: str, needed: bool, *shape: int) -> Optional[Tensor]:
                    return buffers.take(name, *shape) if needed else None

                transposed = take("grad_conv3_transposed", through_conv3, width + 1, channels)
                backward = BackwardPass(
                    **addresses(x=x, inner=inner, middle=middle, state=rows, remaining=remaining),
                    **addresses(torch.int32, x_rows=call.x_rows, filled=call.gradient.filled),
                    **addresses(grad_state=grad_state, grad_output=grad_output, grad_sums=sums),
                    adds=shortcut is None if first else grad_state is not None,
                    **addresses(
                        grad_x=grad_x if needs_x else None,
                        grad_remaining=grad_remaining,
                        grad_conv1=grad_conv1,
                        grad_conv2=grad_conv2,
                        grad_conv3=grad_conv3,
                        grad_shortcut=grad_shortcut,
                        grad_conv3_transposed=transposed,
                        grad_shortcut_transposed=take(
                            "grad_shortcut_transposed", grad_shortcut is not None, x.shape[1], channels
                        ),
                        grad_inner=take("grad_inner", through_inner, sites.struct.num_reads, size),
                        grad_middle=take("grad_middle", through_middle, sites.struct.num_writes + 1, size),
                        scratch=buffers.take("scratch", call.threads, kernels().backward_scratch_size(unit)),
                    ),
                    taps=buffers.room("taps_of_writes", sites.struct.num_writes, TAPS),
                )
                kernels().train_backward(unit, sites.struct, backward, buffers.factors(), call.threads)
                if grad_bias3 is not None and transposed is not None:
                    grad_bias3.copy_(transposed[-1])
                if needs_x and not first:
                    call.gradient.fill(sites.read_rows)
        if first:  # the next block's are smaller or larger, and the next step begins with all its activations
            free_memory("grad_inner", "grad_middle")
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
    """The gradient of features that are state, output and summand of the sums at once: [P, C], zero at padding."""
    writes, struct = call.sites.writes, call.sites.struct
    if state is not None and call.gradient.filled is not None:
        state = state.masked_fill(call.gradient.filled[:, None] < 0, 0)
    parts = [part.index_select(0, writes) for part in (state, output) if part is not None]
    if sums is not None:
        parts.append(sums.float().index_select(0, writes // (struct.out_height * struct.out_width)))
    total = sum(parts[1:], parts[0])
    return total.new_zeros(len(call.sites.write_rows), total.shape[1]).index_copy_(0, writes, total)
