"""Small tensors of Python numbers, brought to a device without waiting for it."""

from typing import Sequence, Union

import numpy as np
import torch
from torch import Tensor


def to_device(values: Union[Sequence[int], Sequence[Sequence[int]]], device: torch.device) -> Tensor:
    """int64, of the shape of `values`; torch.tensor(values, device=device) would wait until a GPU's queue is empty."""
    tensor = torch.from_numpy(np.asarray(values, dtype=np.int64))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the CPU, without gradient. Those of one GPU are copied together, and waited for once."""
    tensors = [tensor.detach() if tensor.requires_grad else tensor for tensor in tensors]
    on_gpus = [tensor for tensor in tensors if tensor.is_cuda]
    copies = [
        torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
        if tensor.is_cuda
        else tensor.cpu()
        for tensor in tensors
    ]
    for device in {tensor.device for tensor in on_gpus}:
        torch.cuda.current_stream(device).synchronize()
    return copies
