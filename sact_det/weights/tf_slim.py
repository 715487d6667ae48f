"""ImageNet weights of TF-Slim's resnet_v2_50, _101 and _152, whole or in part.

The source is a frozen inference graph in one npz: `/` of the variable names became `_`, convolution weights are
[out, height, width, in], and the norms are constants:

* behind conv1 and conv2 of a unit they are folded into the convolution: its weights are scaled, and a `Conv2D_bias`
  stands for the rest of the norm;
* the pre-activations and postnorm are a scale `mul_0_param` and a shift `add_param`.

In both cases our norm gets mean 0 and variance 1 - epsilon, so that it computes weight * x + bias. Such a norm is meant
to stay frozen: it no longer holds the statistics of its input.

Where the stride sits. TF-Slim gives stride 2 to the *last* unit of blocks 1-3, this network to the *first* unit of
blocks 2-4. Both compute the same function if conv2 of that first unit is dilated by 2:

* Let y be the output of a block whose last unit has stride 1. With the stride there, its shortcut and its 3x3
  convolution, explicitly padded by 1, yield every second row and column: TF-Slim's output is y[::2, ::2].
* Our next unit gets all of y. Its shortcut, a 1x1 convolution of stride 2, reads y[::2, ::2] only. So does conv2: all
  before it acts on each position alone, and with stride 2, dilation 2 and padding 2 its output at p reads 2p - 2, 2p
  and 2p + 2. On y[::2, ::2] these are p - 1, p and p + 1, what TF-Slim's conv2 with padding 1 reads; they fall outside
  the one map exactly where they fall outside the other.

So TF-Slim's blocks 1-3 are our blocks 1-3 at the even positions, and block 4 and the logits are the same.
"""

import re
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, Mapping, Union

import numpy as np
import torch
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.base.npz_file import read_arrays
from sact_det.network.classifier import ClassifierNetwork
from sact_det.network.resnet_v2 import UNITS_BY_DEPTH, ResNetV2Spec
from sact_det.weights.values import float32_tensor

_SIDES = (0, 3, 1, 2)  # of [out, height, width, in], as PyTorch has them
_NETWORK = re.compile(r"resnet_v2_(50|101|152)_")
_UNIT = re.compile(r"resnet_v2_\d+_block([1-4])_unit_(\d+)_bottleneck_v2_(\w+)")


def read_npz(path: Union[str, Path]) -> dict[str, np.ndarray]:
    """The arrays of an npz of TF-Slim's variables. Raises InputError as `read_arrays` does."""
    return read_arrays(path, "npz of TF-Slim variables")


def convert_tf_slim(variables: Mapping[str, np.ndarray]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights for Classifier from TF-Slim's variables.

    The bottleneck width, and the units of every block that has convolutions in the source, follow from the source;
    the units of other blocks from the depth in the variables' names.

    Args:
        variables: name -> array of floats, e.g. of `read_npz`; layers may be absent as a whole.

    Returns:
        The state dict (float32) and the metadata of a weight file (sact_det/weights/weight_file.py). In `dilation`, a
        block whose first unit is in the source has 2 from block 2 on.

    Raises:
        InputError: a variable is unknown, has another shape or type than its network's, or lacks the rest of its layer.
    """
    prefix, units, base_channels = _architecture(variables)
    logits = variables.get(f"{prefix}logits_weights")
    num_classes = None if logits is None else _out_channels(logits)
    with torch.device("meta"):
        spec = ResNetV2Spec(units, base_channels, halting="none")
        network = ClassifierNetwork(spec, num_classes or 1)

    layers: dict[str, dict[str, nn.Module]] = defaultdict(dict)
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            layers[prefix + _layer(name)][name] = module

    state_dict: dict[str, Tensor] = {}
    missing: list[str] = []
    unknown = dict.fromkeys(variables)
    for layer, modules in layers.items():
        sources = {
            f"{name}.{parameter}": f"{layer}_{suffix}"
            for name, module in modules.items()
            for parameter, suffix in _suffixes(name, module).items()
        }
        absent = [source for source in sources.values() if source not in variables]
        if len(absent) == len(sources):
            missing += modules
            continue
        if absent:
            raise InputError(
                f"{absent[0]}: not in the source, which has other variables of this layer; expected all or none"
            )
        for name, module in modules.items():
            if isinstance(module, nn.BatchNorm2d):
                state_dict.update({f"{name}.{key}": value for key, value in _identity(module).items()})
        for target, source in sources.items():
            shape = network.get_parameter(target).shape
            state_dict[target] = float32_tensor(source, variables[source], shape, _SIDES)
            del unknown[source]
    if unknown:
        raise InputError(f"{next(iter(unknown))}: not a variable of TF-Slim's {prefix[:-1]} with units {units}")

    dilated = [index > 1 and f"block{index}.units.0.conv2.weight" in state_dict for index in range(1, len(units) + 1)]
    metadata = {
        **spec.describe(),
        "dilation": tuple(2 if yes else 1 for yes in dilated),
        "num_classes": num_classes,
        "source": f"TF-Slim {prefix[:-1]}",
        "missing": missing,
    }
    return state_dict, metadata


def _architecture(variables: Mapping[str, np.ndarray]) -> tuple[str, tuple[int, ...], int]:
    """Prefix of the names, units per block, bottleneck width of block 1."""
    prefix = next((match[0] for match in map(_NETWORK.match, variables) if match), "resnet_v2_50_")
    named: dict[int, set[str]] = defaultdict(set)
    widths: list[tuple[int, int]] = []
    for name, value in variables.items():
        if not name.startswith(prefix):
            raise InputError(f"{name}: not a variable of a TF-Slim resnet_v2_50, _101 or _152; expected {prefix}...")
        match = _UNIT.fullmatch(name)
        if match:
            named[int(match[1])].add(match[2])
            if match[3] == "conv1_weights":
                widths.append((int(match[1]), _out_channels(value)))
    if not widths:
        raise InputError(f"{prefix}block*_unit_*_bottleneck_v2_conv1_weights: no residual unit in the source")
    present = {block for block, _ in widths}
    depth_units = UNITS_BY_DEPTH[int(prefix.split("_")[2])]
    units = tuple(len(named[b]) if b in present else of_depth for b, of_depth in enumerate(depth_units, 1))
    # The most common width: a single wrong shape is then reported as such.
    return prefix, units, statistics.mode(max(width >> (block - 1), 1) for block, width in widths)


def _out_channels(weights: np.ndarray) -> int:
    """The first side of [out, height, width, in], or 1: a nonsensical shape is reported once its network is known."""
    return max((*weights.shape, 1)[0], 1)


def _layer(module: str) -> str:
    """TF-Slim's name for the layer of a module: block1.units.0.norm2 belongs to block1_unit_1_bottleneck_v2_conv2."""
    match = re.fullmatch(r"block(\d)\.units\.(\d+)\.(\w+)", module)
    if not match:
        return {"stem.conv": "conv1"}.get(module, module)
    return f"block{match[1]}_unit_{int(match[2]) + 1}_bottleneck_v2_{match[3].replace('norm', 'conv')}"


def _suffixes(name: str, module: nn.Module) -> dict[str, str]:
    """Which variable of the layer gives each parameter of a module that the source determines."""
    if isinstance(module, nn.Conv2d):
        return {"weight": "weights"} if module.bias is None else {"weight": "weights", "bias": "Conv2D_bias"}
    if name.endswith(("preact", "postnorm")):
        return {"weight": "FusedBatchNorm_mul_0_param", "bias": "FusedBatchNorm_add_param"}
    return {"bias": "Conv2D_bias"}


def _identity(norm: nn.BatchNorm2d) -> dict[str, Tensor]:
    """The state of a norm that changes nothing."""
    state = nn.BatchNorm2d(norm.num_features).state_dict()
    state["running_var"].fill_(1 - norm.eps)
    return state
