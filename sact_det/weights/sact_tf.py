"""The original program's checkpoints: ImageNet and CIFAR-10 classifiers, plain, ACT and SACT.

What the network is follows from the names and shapes of the variables. Slots of the optimizer, averages and counters
are left out and listed.
"""

import re
from pathlib import Path
from typing import Any, Mapping, Union

import numpy as np
import torch
from torch import Tensor, nn

from sact_det.classification.model import FAMILIES, Classifier
from sact_det.errors import InputError
from sact_det.network_spec import NetworkSpec
from sact_det.weights.tf_bundle import TensorBundle

_SCOPES = {"resnet_v2/": "imagenet", "resnet_residual/": "cifar"}
_UNIT = re.compile(r"(?:resnet_v2/block|resnet_residual/block_)(\d+)/unit_(\d+)/(.+)")
_CONV = {"weight": "weights", "bias": "biases"}
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def load_sact_tf(path: Union[str, Path]) -> dict[str, Tensor]:
    """The state dict of the classifier in a checkpoint, for the `build_classifier` of the same architecture.

    Args:
        path: a folder with a file `checkpoint`, a prefix, or an .index file.

    Raises:
        InputError: the checkpoint is missing, damaged or incomplete, or not one of the original program.
    """
    return convert_sact_tf(TensorBundle(path))[0]


def convert_sact_tf(variables: Mapping[str, np.ndarray]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict (float32) and metadata of a weight file (sact_det/weights/weight_file.py) from the variables.

    `unused` in the metadata lists the variables that the network does not have: slots, averages, counters.

    Raises:
        InputError: the variables are not those of one of the original's networks.
    """
    spec = _infer_spec(variables)
    scope = next(scope for scope, family in _SCOPES.items() if family == spec.family)
    num_classes = _out_channels(variables, f"{scope}logits/weights")
    with torch.device("meta"):
        network = Classifier(spec, num_classes)

    state_dict: dict[str, Tensor] = {}
    unused = dict.fromkeys(variables)
    for name, module in network.named_modules():
        parameters = _CONV if isinstance(module, nn.Conv2d) else _NORM if isinstance(module, nn.BatchNorm2d) else {}
        for parameter, variable in parameters.items():
            target = getattr(module, parameter)
            if target is None:
                continue
            source = f"{scope}{_variable_scope(name, spec.family)}/{variable}"
            state_dict[f"{name}.{parameter}"] = _to_tensor(source, variables, target.shape)
            del unused[source]
        if isinstance(module, nn.BatchNorm2d):
            state_dict[f"{name}.num_batches_tracked"] = torch.tensor(0)
    foreign = [name for name in unused if name.startswith(scope) and _is_weight(name)]
    if foreign:
        raise InputError(f"{foreign[0]}: not a variable of the original's {spec.family} network, units {spec.units}")
    metadata = {
        "family": spec.family,
        "units": spec.units,
        "base_channels": spec.base_channels,
        "halting": spec.halting,
        "dilation": getattr(spec, "dilation", (1,) * len(spec.units)),
        "num_classes": num_classes,
        "source": "the original SACT program",
        "missing": [],
        "unused": list(unused),
    }
    return state_dict, metadata


def _infer_spec(variables: Mapping[str, np.ndarray]) -> NetworkSpec:
    """The network whose variables these are. Raises InputError if it cannot be told."""
    scopes = [scope for scope in _SCOPES if any(name.startswith(scope) for name in variables)]
    if not scopes:
        raise InputError(
            f"no variable of the original program's networks ({' or '.join(_SCOPES)}...); "
            f"the checkpoint has {next(iter(variables), 'none at all')}"
        )
    family = _SCOPES[scopes[0]]
    spec = FAMILIES[family]
    found: dict[int, set[int]] = {block: set() for block in range(1, spec.max_blocks + 1)}
    halting = "none"
    for match in filter(None, map(_UNIT.fullmatch, variables)):
        if int(match[1]) not in found:
            raise InputError(f"{match[0]}: the original's {family} networks have {spec.max_blocks} blocks")
        found[int(match[1])].add(int(match[2]))
        if match[3].startswith("halting_proba/local_conv/"):
            halting = "sact"
        elif match[3].startswith("halting_proba/") and halting == "none":
            halting = "act"
    for block, numbers in found.items():
        absent = set(range(1, max(numbers, default=1) + 1)) - numbers
        if absent:
            raise InputError(f"unit {min(absent)} of block {block} is not in the checkpoint")
    units = tuple(len(numbers) for numbers in found.values())
    # Of [height, width, in, out], the last side: the bottleneck width of block 1, and the channels of the root.
    widths = {
        "imagenet": "resnet_v2/block1/unit_1/bottleneck_v2/conv1/weights",
        "cifar": "resnet_residual/Conv/weights",
    }
    return spec(units=units, base_channels=_out_channels(variables, widths[family]), halting=halting)


def _out_channels(variables: Mapping[str, np.ndarray], name: str) -> int:
    shape = _get(variables, name).shape
    if len(shape) != 4 or shape[3] == 0:
        raise InputError(f"{name}: has shape {list(shape)}; expected [height, width, in, out]")
    return shape[3]


def _variable_scope(module: str, family: str) -> str:
    """The original's name for a module: block1.units.0.norm2 is block1/unit_1/bottleneck_v2/conv2/BatchNorm."""
    cifar = family == "cifar"
    match = re.fullmatch(r"block(\d)\.units\.(\d+)\.(halting\.)?(\w+)", module)
    if not match:
        names = {"stem.conv": "Conv", "postnorm": "BatchNorm"} if cifar else {"stem.conv": "conv1"}
        return names.get(module, module)
    unit = f"block{'_' if cifar else ''}{match[1]}/unit_{int(match[2]) + 1}"
    if match[3]:
        return f"{unit}/halting_proba/{match[4].replace('norm', 'bn')}"
    layer = re.sub(r"^norm(\d)$", r"conv\1/BatchNorm", match[4])
    return f"{unit}/{'residual' if cifar else 'bottleneck_v2'}/{layer}"


def _get(variables: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in variables:
        raise InputError(f"{name}: not in the checkpoint, which has other variables of the original's networks")
    return variables[name]


def _to_tensor(name: str, variables: Mapping[str, np.ndarray], shape: torch.Size) -> Tensor:
    """float32 of `shape`, from [height, width, in, out] if it is a convolution's weights."""
    value = _get(variables, name)
    expected = (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else tuple(shape)
    if value.shape != expected or value.dtype.kind != "f":
        raise InputError(f"{name}: is {value.dtype} {list(value.shape)}; expected floats {list(expected)}")
    return torch.from_numpy(np.array(value.transpose(3, 2, 0, 1) if len(shape) == 4 else value, np.float32, order="C"))


def _is_weight(name: str) -> bool:
    return name.rpartition("/")[2] in {*_CONV.values(), *_NORM.values()}
