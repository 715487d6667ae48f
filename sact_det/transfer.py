"""Small tensors of Python numbers, brought to a device without waiting for it."""

from typing import Sequence, Union

import numpy as np
import torch
from torch import Tensor


def to_device(values: Union[Sequence[int], Sequence[Sequence[int]]], device: torch.device) -> Tensor:
    """int64, of the shape of `values`. A GPU copies it from pinned memory when its turn comes.

    torch.tensor(values, device=device) waits until everything before has been computed.
    """
    tensor = torch.from_numpy(np.asarray(values, dtype=np.int64))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
