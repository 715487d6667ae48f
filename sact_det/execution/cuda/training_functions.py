"""The units of a block behind its first as nodes of PyTorch's graph, in Triton kernels.

Features are rows, and what stands for them in the graph are placeholders (sact_det/execution/training.py).

Shape shorthand in this module:
    N: images; C: channels; w: bottleneck width; H, W: feature map, padding included; P = N * H * W.
"""

from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sact_det.execution.cuda import training_kernels
from sact_det.execution.cuda.score_kernels import PRODUCT_BLOCK, SUM_BLOCK, taps_kernel
from sact_det.execution.cuda.training_passes import (
    COLUMNS,
    ROWS,
    UnitCall,
    UnitGradients,
    launch_forward,
    splits_of,
)
from sact_det.execution.training import placeholder
from sact_det.network.convolution import TAPS


class EntryFunction(torch.autograd.Function):
    """The first unit's output enters the chain of placeholders: x -> (state, output, sums)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, exists: Optional[Tensor], rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums up what a block begins with.

        Args:
            x: [N, C, H, W].
            exists: bool [N, H, W], False at padding, or None.
            rows: x in rows, [P, C], zero at padding.

        Returns:
            Placeholders of state and output, and the state summed over each image, float32 [N, C].
        """
        ctx.exists, ctx.shape, ctx.dtype = exists, x.shape, x.dtype
        ctx.set_materialize_grads(False)
        state, output = placeholder(rows.shape, x.device, rows.dtype), placeholder(rows.shape, x.device)
        return state, output, rows.view(len(x), -1, rows.shape[1]).sum(1, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_state: Optional[Tensor], grad_output: Optional[Tensor], grad_sums: Optional[Tensor]
    ) -> tuple[Optional[Tensor], None, None]:
        """The gradient of x: everything is a copy of it."""
        number, channels, height, width = ctx.shape
        parts = [part.view(number, height, width, channels) for part in (grad_state, grad_output) if part is not None]
        if grad_sums is not None:
            parts.append(grad_sums[:, None, None].expand(number, height, width, channels))
        if not parts:
            return None, None, None
        total = sum(parts[1:], parts[0])
        if ctx.exists is not None:
            total = total.masked_fill(~ctx.exists[..., None], 0)
        return total.permute(0, 3, 1, 2).to(ctx.dtype), None, None


class UnitFunction(torch.autograd.Function):
    """A unit in the graph: (state, output, sums, ...) -> (state, output, sums)."""

    @staticmethod
    def forward(
        ctx: Any,
        call: UnitCall,
        state: Tensor,
        output: Tensor,
        sums: Tensor,
        remaining: Tensor,
        before: Tensor,
        after: Tensor,
        out: Tensor,
        conv1: Tensor,
        conv2: Tensor,
        conv3: Tensor,
        bias3: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluates the unit.

        Args:
            call: where and how.
            state, output: placeholders.
            sums: float32 [N, C], the state summed over each image.
            remaining: float32 [N, H, W], the open share of each position.
            before: [P, C], the state in rows.
            after: likewise, written where `before` is read.
            out: float32 [P, C], updated: the block's output so far.
            conv1, conv2, conv3, bias3: parameters.

        Returns:
            Placeholders of state and output, and the new sums.
        """
        with torch.cuda.device_of(before):
            folded = call.fold(conv1, conv2, conv3, bias3)
            inner, middle = (call.rows(len(conv1), call.dtype) for _ in range(2))
            added = launch_forward(call, folded, before, after, inner, middle, out, remaining)
        ctx.call = call
        ctx.set_materialize_grads(False)
        weights = (folded.conv1, folded.conv2, folded.conv3)
        ctx.save_for_backward(before, after, inner, middle, remaining, *weights)
        shape, device = before.shape, before.device
        new = placeholder(shape, device, before.dtype), placeholder(shape, device), sums + added
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
            return (None,) * 12
        call: UnitCall = ctx.call
        before, after, inner, middle, remaining, *weights = ctx.saved_tensors
        _, needs_state, needs_output, needs_sums, needs_remaining, *_ = needs = ctx.needs_input_grad
        with torch.cuda.device_of(before):
            grads = UnitGradients(call, before, inner, middle, weights)
            grad_remaining = torch.zeros_like(remaining) if needs_remaining and grad_output is not None else None
            grad_bias = grads.of_residual(
                grad_state, grad_output, grad_sums, remaining, after, grad_remaining, wants_bias=needs[11]
            )
            of_conv3 = grads.of_conv3() if needs[10] else None
            of_conv2 = of_conv1 = None
            if needs_state or needs[8] or needs[9]:
                grads.of_middle()
                of_conv2 = grads.of_conv2() if needs[9] else None
            if needs_state or needs[8]:
                grads.of_inner()
                of_conv1 = grads.of_conv1() if needs[8] else None
            if needs_state:
                grad_state = torch.zeros_like(before) if grad_state is None else grad_state
                grads.of_state(grad_state)
        return (
            *(None, grad_state if needs_state else None, grad_output if needs_output else None),
            *(grad_sums if needs_sums else None, grad_remaining, None, None, None),
            *(of_conv1, of_conv2, of_conv3, grad_bias),
        )


class LocalFunction(torch.autograd.Function):
    """The local convolution of a halting branch in the graph: (state, taps, bias) -> (logits, state)."""

    @staticmethod
    def forward(
        ctx: Any, call: UnitCall, state: Tensor, rows: Tensor, taps: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Evaluates the convolution, whose norm is folded into taps and bias.

        Args:
            call: of the unit that is scored.
            state: its placeholder.
            rows: [P, C], the state where the unit has read it.
            taps, bias: float32 [TAPS, C] and [TAPS].

        Returns:
            Logits, float32 [N, H, W], zero where the unit was not evaluated; and a placeholder of the state.
        """
        (size, channels), lists, device = rows.shape, call.lists, rows.device
        make = torch.empty if lists.exists is None else torch.zeros
        products = make(TAPS, size, device=device)
        logits = torch.empty(call.active.shape, device=device)
        block_m, block_k = PRODUCT_BLOCK
        block_t, block_c = SUM_BLOCK
        with torch.cuda.device_of(rows):
            nothing = (products, products, lists.offsets, lists.offsets, 0)  # sums have been added
            taps_kernel[(-(-size // block_m),)](
                *(rows, taps, bias, products, lists.reads, lists.num_reads, size, *nothing),
                **{"C": channels, "BLOCK_M": block_m, "BLOCK_K": block_k, "BLOCK_T": block_t, "BLOCK_C": block_c},
            )
            block = {"BLOCK": lists.block}
            training_kernels.logits_kernel[(-(-size // lists.block),)](
                products, call.active, logits, size, *lists.sizes[:2], **block
            )
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, taps)
        new = placeholder(rows.shape, device, rows.dtype)
        if not ctx.needs_input_grad[1]:
            ctx.mark_non_differentiable(new)
        return logits, new

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logits: Optional[Tensor], grad_state: Optional[Tensor]) -> tuple[Optional[Tensor], ...]:
        """The gradients of forward's arguments; that of the state is grad_state, updated in place."""
        if grad_logits is None:
            return None, grad_state, None, None, None
        rows, taps = ctx.saved_tensors
        lists, (size, channels) = ctx.call.lists, rows.shape
        _, needs_state, _, needs_taps, needs_bias = ctx.needs_input_grad
        if needs_state and grad_state is None:
            grad_state = torch.zeros_like(rows)
        blocks = -(-channels // COLUMNS)
        splits = splits_of(size, blocks)
        partial_taps = taps.new_empty(splits, 16, channels) if needs_taps else None
        partial_bias = taps.new_empty(splits, 16)
        with torch.cuda.device_of(rows):
            training_kernels.local_gradient_kernel[(splits * blocks,)](
                *(grad_logits.contiguous(), ctx.call.active, rows, taps, grad_state if needs_state else None),
                *(partial_taps, partial_bias, lists.reads, lists.num_reads, *lists.sizes[:2]),
                **{"SPLITS": splits, "C": channels, "BLOCK_M": ROWS, "BLOCK_C": COLUMNS},
            )
        grad_taps = None if partial_taps is None else partial_taps[:, :TAPS].sum(0)
        grad_bias = partial_bias[:, :TAPS].sum(0) if needs_bias else None
        return None, grad_state if needs_state else None, None, grad_taps, grad_bias
