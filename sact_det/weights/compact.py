"""Weights in a byte each, so that small networks can come with the package.

A file is a compressed .npz of three arrays. "description" is JSON: the metadata of a weight file
(sact_det/weights/weight_file.py) under "sact", name and shape of every tensor under "packed" and "whole". Weights of a
convolution or a linear layer are packed: whole numbers from -127 to 127, one after the other in "numbers", with one
scale an output channel, w = scale * number; the error is at most half a scale. Norms, biases and layers with one
output, as halting scores are, stay whole: they follow the scales in "values", float32.
"""

import json
import math
from pathlib import Path
from typing import Any, Mapping, Union

import numpy as np
import torch
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.base.files import replacing
from sact_det.base.npz_file import read_arrays
from sact_det.weights.values import COUNTER
from sact_det.weights.weight_file import WeightFile, check_metadata, take_state_dict

_WHAT = "npz of weights in a byte each"
_DESCRIPTION = "description"
_LARGEST = 127
_MATRIX = 2  # sides; what has fewer is not worth packing


def save_compact(path: Union[str, Path], state_dict: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes weights in a byte each; an existing file is replaced only when the new one is complete.

    Args:
        path: of the file, .npz.
        state_dict: float32, and counters of norms.
        metadata: of a weight file; plain data.

    Raises:
        OSError: `path` cannot be written.
    """
    tensors = {name: values.detach().cpu() for name, values in state_dict.items()}
    packed = {name: _pack(values) for name, values in tensors.items() if _is_packed(values)}
    whole = {name: values.float() for name, values in tensors.items() if name not in packed}
    description = {
        "sact": dict(metadata),
        "packed": {name: list(numbers.shape) for name, (numbers, _) in packed.items()},
        "whole": {name: list(values.shape) for name, values in whole.items()},
    }
    numbers = torch.cat([numbers.flatten() for numbers, _ in packed.values()])
    values = torch.cat([scales for _, scales in packed.values()] + [values.flatten() for values in whole.values()])
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary, description=np.array(json.dumps(description)), numbers=numbers.numpy(), values=values.numpy()
        )


def load_compact(path: Union[str, Path]) -> WeightFile:
    """The float32 weights that a file of `save_compact` stands for.

    Raises:
        InputError: the file is missing, damaged or none of these.
    """
    arrays = read_arrays(path, _WHAT)
    try:
        description = json.loads(str(arrays[_DESCRIPTION]))
        packed, whole = (
            {str(name): tuple(map(int, shape)) for name, shape in description[key].items()}
            for key in ("packed", "whole")
        )
        sizes = [shape[0] for shape in packed.values()] + [math.prod(shape) for shape in whole.values()]
        values = torch.from_numpy(arrays["values"]).float().split(sizes)
        numbers = torch.from_numpy(arrays["numbers"]).float().split([math.prod(shape) for shape in packed.values()])
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise InputError(f"{path}: expected an {_WHAT}, as tools/convert_weights.py compact writes it") from error
    check_metadata(path, description.get("sact"))
    state_dict = {
        name: (rows.view(len(scales), -1) * scales[:, None]).view(shape)
        for (name, shape), rows, scales in zip(packed.items(), numbers, values)
    }
    for (name, shape), content in zip(whole.items(), values[len(packed) :]):
        state_dict[name] = (content.long() if name.endswith(COUNTER) else content).view(shape)
    return WeightFile(take_state_dict(path, state_dict, ()), description["sact"])


def is_compact(path: Union[str, Path]) -> bool:
    """Whether an .npz is one of `save_compact`. Raises InputError if it is missing or damaged."""
    return _DESCRIPTION in read_arrays(path, _WHAT)


def _is_packed(values: Tensor) -> bool:
    return values.is_floating_point() and values.dim() >= _MATRIX and len(values) > 1


def _pack(values: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers, and the scale of each output channel, [channels]."""
    rows = values.float().flatten(1)
    scales = rows.abs().amax(1) / _LARGEST
    numbers = (rows / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
    return numbers.to(torch.int8).view(values.shape), scales
