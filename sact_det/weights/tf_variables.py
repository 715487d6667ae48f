"""What TensorFlow programs built on TF-Slim call the variables of our modules, and their layout.

Convolution weights are [height, width, in, out] there; a norm has beta, gamma and the moving statistics.
"""

import itertools
import re
from typing import Any, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.network.classifier import ClassifierNetwork
from sact_det.network.spec import NetworkSpec
from sact_det.weights.values import float32_tensor

_SIDES = (3, 2, 0, 1)  # of a convolution's weights, as PyTorch has them
_CONV = {"weight": "weights", "bias": "biases"}
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_WEIGHTS = {*_CONV.values(), *_NORM.values()}


def convert_classifier(
    spec: NetworkSpec, variables: Mapping[str, np.ndarray], scope: str, networks: str, source: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a classifier from its variables.

    Args:
        spec: of the network.
        variables: name -> array; each is asked for once, so they may be read from disk one by one.
        scope: of all variables of the network, with a slash at its end.
        networks: what an error calls networks of this kind.
        source: joins the metadata.

    Returns:
        The state dict (float32) and the metadata of a weight file (sact_det/weights/weight_file.py). `unused` lists the
        variables that the network does not have: slots of the optimizer, averages, counters.

    Raises:
        InputError: a variable is missing, has another shape or type than its network's, or is one of another network.
    """
    num_classes = out_channels(variables, f"{scope}logits/weights")
    with torch.device("meta"):
        network = ClassifierNetwork(spec, num_classes)
    state_dict: dict[str, Tensor] = {}
    unused = dict.fromkeys(variables)
    for name, module in network.named_modules():
        parameters = _CONV if isinstance(module, nn.Conv2d) else _NORM if isinstance(module, nn.BatchNorm2d) else {}
        for parameter, variable in parameters.items():
            target = getattr(module, parameter)
            if target is None:
                continue
            full_name = f"{scope}{variable_scope(name, spec.family)}/{variable}"
            values = _get(variables, full_name)
            state_dict[f"{name}.{parameter}"] = float32_tensor(full_name, values, target.shape, _SIDES)
            del unused[full_name]
        if isinstance(module, nn.BatchNorm2d):
            state_dict[f"{name}.num_batches_tracked"] = torch.tensor(0)
    for name in unused:
        if name.startswith(scope) and name.rpartition("/")[2] in _WEIGHTS:
            raise InputError(f"{name}: not a variable of {networks}, units {spec.units}")
    described = {"num_classes": num_classes, "source": source, "missing": [], "unused": list(unused)}
    return state_dict, {**spec.describe(), **described}


def variable_scope(module: str, family: str = "imagenet") -> str:
    """The scope of a module, below that of the network: block1/unit_1/bottleneck_v2/... for block1.units.0."""
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


def units_per_block(
    variables: Mapping[str, np.ndarray], unit: "re.Pattern[str]", num_blocks: int, networks: str
) -> tuple[int, ...]:
    """How many units every block has.

    Args:
        variables: name -> array; only the names count.
        unit: matches the start of the variables in units; its groups 1 and 2 are the numbers of block and unit.
        num_blocks: of the networks of this kind.
        networks: what an error calls these.

    Raises:
        InputError: there are more blocks, or a block lacks a unit.
    """
    found: dict[int, set[int]] = {block: set() for block in range(1, num_blocks + 1)}
    for match in filter(None, map(unit.match, variables)):
        if int(match[1]) not in found:
            raise InputError(f"{match.string}: {networks} have {num_blocks} blocks")
        found[int(match[1])].add(int(match[2]))
    for block, numbers in found.items():
        absent = next(number for number in itertools.count(1) if number not in numbers)
        if absent <= max(numbers, default=1):
            raise InputError(f"unit {absent} of block {block} is not in the checkpoint")
    return tuple(len(numbers) for numbers in found.values())


def out_channels(variables: Mapping[str, np.ndarray], name: str) -> int:
    """The last side of a convolution's weights. Raises InputError if they are missing or have another shape."""
    shape = _get(variables, name).shape
    if len(shape) != 4 or shape[3] == 0:
        raise InputError(f"{name}: has shape {list(shape)}; expected [height, width, in, out]")
    return shape[3]


def _get(variables: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in variables:
        raise InputError(f"{name}: not in the checkpoint, which has other variables of such a network")
    return variables[name]
