"""Our weight files: torch.save of {"model": state dict, "sact": what the state dict alone cannot say}.

The metadata under "sact" is plain JSON-like data:
    family: "imagenet" or "cifar";
    units, base_channels, halting, dilation, stem_pool: the network, as in ResNetV2Spec (sact_det/resnet_v2.py);
    num_classes: outputs of the logits, or None without them;
    pixel_mean, pixel_std: per channel (RGB, 0-255), how images are normalised; 127.5 if absent: to [-1, 1];
    source: where the weights come from;
    missing: names of the modules that the source lacks and that therefore start fresh;
    unused: names of what the source has besides (slots of an optimizer, say).

Detectron2's checkpoints ({"model": ...} and the state of the training) and bare state dicts are read too; they have no
metadata. Nothing is ever unpickled.
"""

import json
import pickle
import warnings
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Union

import torch
from torch import Tensor

from sact_det.errors import InputError
from sact_det.files import write_torch

_EXPECTED = "expected tensors and plain values written by torch.save"


class WeightFile(NamedTuple):
    """What a weight file holds; the metadata is empty where the file has none."""

    state_dict: dict[str, Tensor]
    metadata: dict[str, Any]


def save_weights(path: Union[str, Path], state_dict: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes a weight file; an existing one is replaced only when the new one is complete.

    Raises:
        TypeError: `metadata` is not plain data.
        OSError: `path` cannot be written.
    """
    json.dumps(dict(metadata))
    model = {name: value.detach().cpu() for name, value in state_dict.items()}
    write_torch(path, {"model": model, "sact": dict(metadata)})


def load_weights(path: Union[str, Path]) -> WeightFile:
    """Reads a weight file onto the CPU. Raises InputError if it is missing, broken or something else."""
    return unwrap(load_torch(path))


def unwrap(checkpoint: Mapping[str, Any]) -> WeightFile:
    """State dict and metadata of what `load_torch` returned, as copies that may be changed."""
    return WeightFile(dict(checkpoint["model"]), dict(checkpoint.get("sact", {})))


def load_torch(path: Union[str, Path]) -> dict[str, Any]:
    """Everything a weight file or checkpoint holds, on the CPU.

    A state dict that is bare, or under "state_dict", comes back as {"model": ...}.

    Raises:
        InputError: the file is missing or broken, holds pickled objects, or has no state dict.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on a foreign pickle precede an error that says more
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such weight file") from error
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds pickled objects, which are never loaded, or is damaged; {_EXPECTED}"
        ) from error
    except Exception as error:  # a parser's answer to arbitrary bytes may be any exception
        raise InputError(f"{path}: damaged, or not a weight file; {_EXPECTED}") from error

    if isinstance(content, dict) and "model" not in content:
        content = {"model": content.get("state_dict", content)}
    if not isinstance(content, dict) or not _is_state_dict(content["model"]):
        raise InputError(
            f"{path}: holds no weights; expected a state dict (names and tensors), bare, under 'model' or 'state_dict'"
        )
    if not isinstance(content.get("sact", {}), dict):
        raise InputError(
            f"{path}: 'sact' is a {type(content['sact']).__name__}; expected a dict that describes the network"
        )
    return content


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )
