"""The local part of a halting branch as a node of PyTorch's graph."""

from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sact_det.execution.cpu.calls import LocalScoring, kernels, whole_vectors
from sact_det.execution.cpu.factors import PassBuffers
from sact_det.execution.cpu.memory import address, addresses, plain, zeros
from sact_det.execution.cpu.sites import Sites
from sact_det.execution.cpu.training_functions import GradientRows
from sact_det.execution.training import placeholder
from sact_det.network.convolution import TAPS


class LocalFunction(torch.autograd.Function):
    """The local convolution of a halting branch in the graph: (state, taps, bias) -> (logits, state)."""

    @staticmethod
    def forward(
        ctx: Any,
        sites: Sites,
        gradient: GradientRows,
        threads: int,
        state: Tensor,
        rows: Tensor,
        taps: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Evaluates the convolution, whose norm is folded into taps and bias.

        Args:
            sites: of the unit that is scored, at output resolution.
            gradient: the rows of the state's gradient.
            threads: how many the kernels use.
            state: its placeholder.
            rows: the state at sites.reads, [., C].
            taps, bias: float32 [TAPS, C] and [TAPS].

        Returns:
            Logits, float32 [N, H, W], zero where the unit was not evaluated; and a placeholder of the state.
        """
        struct = sites.struct
        logits = zeros(struct.images, struct.out_height, struct.out_width)
        if struct.num_writes:
            padded = F.pad(bias, (0, whole_vectors(TAPS) - TAPS))
            with PassBuffers() as buffers:
                scoring = LocalScoring(
                    channels=taps.shape[1],
                    packed=buffers.pack("taps", taps[:, :, None, None]),
                    products=buffers.room("products", struct.num_reads, whole_vectors(TAPS)),
                    **addresses(bias=padded, rows=rows, logits=logits),
                )
                kernels().local_forward(scoring, struct, buffers.factors(), threads)
        ctx.sites, ctx.gradient, ctx.threads = sites, gradient, threads
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, taps)
        new = placeholder(state.shape, state.device)
        if not ctx.needs_input_grad[3]:
            ctx.mark_non_differentiable(new)
        return logits, new

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logits: Optional[Tensor], grad_state: Optional[Tensor]) -> tuple[Optional[Tensor], ...]:
        """The gradients of forward's arguments; that of the state is grad_state, updated in place."""
        if grad_logits is None:
            return None, None, None, grad_state, None, None, None
        struct, threads = ctx.sites.struct, ctx.threads
        rows, taps = ctx.saved_tensors
        needs_state, needs_taps, needs_bias = (ctx.needs_input_grad[index] for index in (3, 5, 6))
        if not struct.num_writes:
            nothing = torch.zeros_like(taps) if needs_taps else None, taps.new_zeros(TAPS) if needs_bias else None
            return None, None, None, grad_state, None, *nothing
        adds = grad_state is not None
        if needs_state and grad_state is None:
            grad_state = ctx.gradient.start(grad_logits.numel(), taps.shape[1])
        grad_logits = plain(grad_logits)
        grad_taps = torch.empty_like(taps) if needs_taps else None
        with PassBuffers() as buffers:
            products = buffers.take("products", struct.num_reads, whole_vectors(TAPS))
            scoring = LocalScoring(
                channels=taps.shape[1],
                adds=adds,
                **addresses(taps=taps, rows=rows, products=products, logits=grad_logits, grad_taps=grad_taps),
                grad_rows=address(grad_state) if needs_state else None,
                filled=address(ctx.gradient.filled, torch.int32),
                scratch=buffers.room("scratch", threads, kernels().local_scratch_size()),
            )
            kernels().local_backward(scoring, struct, threads)
            grad_bias = products[:, :TAPS].sum(0) if needs_bias else None
        if needs_state:
            ctx.gradient.fill(ctx.sites.read_rows)
        return None, None, None, grad_state if needs_state else None, None, grad_taps, grad_bias
