"""Whether what a model does is recorded, to be done on other inputs, or repeats what it did before."""

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode


def is_recording() -> bool:
    """Whether this call is recorded: by torch.jit.trace, torch.export, torch.onnx.export, torch.compile or make_fx.

    A recording has no branches: what depends on the values of a tensor must then be arithmetic, and what runs outside
    PyTorch would not be in it.
    """
    return torch.jit.is_tracing() or torch.compiler.is_compiling() or get_proxy_mode() is not None


def is_recomputing() -> bool:
    """Whether this call belongs to a backward pass: there, torch.utils.checkpoint repeats what a forward pass did."""
    return not is_recording() and torch._C._current_graph_task_id() != -1
