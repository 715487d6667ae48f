"""ImageNet weights of TF-Slim's resnet_v2_50, _101, _152 and _200 from its checkpoints.

https://github.com/tensorflow/models/blob/master/research/slim/nets/resnet_v2.py. The variables are those of the
original SACT program, which descends from it, under the scope `resnet_v2_50` and so on; the norms keep the statistics
of their input, so they may go on learning. The stride sits in the last unit of blocks 1-3: why the first units of
blocks 2-4 are dilated for that is said in sact_det/weights/tf_slim.py.
"""

import re
from typing import Any, Iterable, Mapping

import numpy as np
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.weights.tf_variables import convert_classifier, out_channels, units_per_block, variable_scope

_SCOPE = re.compile(r"(resnet_v2_\d+)/")
_DILATION = (1, 2, 2, 2)


def is_tf_slim(variables: Iterable[str]) -> bool:
    """Whether names of variables are those of TF-Slim's networks."""
    return any(map(_SCOPE.match, variables))


def convert_tf_slim_checkpoint(variables: Mapping[str, np.ndarray]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights for Classifier, as `convert_classifier` returns them, from a checkpoint's variables by name.

    Units, width and classes follow from the names and shapes.

    Raises:
        InputError: the variables are not those of one of these networks, or not all of them.
    """
    network_name = next((match[1] for match in map(_SCOPE.match, variables) if match), None)
    if network_name is None:
        raise InputError(
            "no variable of TF-Slim's networks (resnet_v2_50/..., _101, _152 or _200); "
            f"the checkpoint has {next(iter(variables), 'none at all')}"
        )
    scope = f"{network_name}/"
    unit = re.compile(rf"{scope}block(\d+)/unit_(\d+)/")
    spec = ResNetV2Spec(
        units=units_per_block(variables, unit, ResNetV2Spec.max_blocks, "TF-Slim's networks"),
        base_channels=out_channels(variables, f"{scope}{variable_scope('block1.units.0.conv1')}/weights"),
        halting="none",
        dilation=_DILATION,
    )
    return convert_classifier(spec, variables, scope, f"TF-Slim's {network_name}", f"TF-Slim {network_name}")
