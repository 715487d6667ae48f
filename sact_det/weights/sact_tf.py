"""The original program's checkpoints: ImageNet and CIFAR-10 classifiers, plain, ACT and SACT.

What the network is follows from the names and shapes of the variables. Slots of the optimizer, averages and counters
are left out and listed.
"""

import re
from pathlib import Path
from typing import Any, Mapping, Union

import numpy as np
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.network.classifier import FAMILIES
from sact_det.network.spec import NetworkSpec
from sact_det.weights.tf_checkpoint import open_checkpoint
from sact_det.weights.tf_variables import convert_classifier, out_channels, units_per_block

_SCOPES = {"resnet_v2/": "imagenet", "resnet_residual/": "cifar"}
_UNIT = re.compile(r"(?:resnet_v2/block|resnet_residual/block_)(\d+)/unit_(\d+)/")


def load_sact_tf(path: Union[str, Path]) -> dict[str, Tensor]:
    """The state dict of the classifier in a checkpoint, for the `build_classifier` of the same architecture.

    Args:
        path: a folder with a file `checkpoint`, a prefix, an .index file, or the single file of a V1 checkpoint.

    Raises:
        InputError: the checkpoint is missing, damaged or incomplete, or not one of the original program.
    """
    return convert_sact_tf(open_checkpoint(path))[0]


def convert_sact_tf(variables: Mapping[str, np.ndarray]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights for Classifier, as `convert_classifier` returns them, from a checkpoint's variables by name.

    Raises:
        InputError: the variables are not those of one of the original's networks.
    """
    spec = _infer_spec(variables)
    scope = next(scope for scope, family in _SCOPES.items() if family == spec.family)
    networks = f"the original's {spec.family} network"
    return convert_classifier(spec, variables, scope, networks, "the original SACT program")


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
    units = units_per_block(variables, _UNIT, spec.max_blocks, f"the original's {family} networks")
    scored = [name for name in variables if _UNIT.match(name) and "/halting_proba/" in name]
    halting = "none" if not scored else "sact" if any("/local_conv/" in name for name in scored) else "act"
    # Of [height, width, in, out], the last side: the bottleneck width of block 1, and the channels of the root.
    widths = {
        "imagenet": "resnet_v2/block1/unit_1/bottleneck_v2/conv1/weights",
        "cifar": "resnet_residual/Conv/weights",
    }
    return spec(units=units, base_channels=out_channels(variables, widths[family]), halting=halting)
