"""ImageNet weights of timm's resnetv2_50, _101 and _152: pre-activation networks with batch norm.

https://github.com/huggingface/pytorch-image-models, timm/models/resnetv2.py. Its layout is this network's: the stride
sits in the first unit of stages 2-4, on the 3x3 convolution and the shortcut; norms have epsilon 1e-5. What differs:

* its convolutions have no bias, the logits apart: ours is 0;
* its stem pools with PyTorch's symmetric padding, which on maps of even size is another function than TensorFlow's
  SAME: the metadata ask for `stem_pool` "symmetric";
* there is no background class: 1000 logits;
* the input may be normalised otherwise than to [-1, 1]: the metadata carry `pixel_mean` and `pixel_std`. They cannot be
  folded into the stem exactly, because its convolution pads the normalised image with zeros.

timm's other resnetv2 models (group norm and standardised weights: BiT; deep stems: "d", "t"; basic blocks: 18, 34) are
other functions.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any, Mapping, Sequence, Union

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sact_det.classification.model import Classifier
from sact_det.errors import InputError
from sact_det.resnet_v2 import UNITS_BY_DEPTH, ResNetV2Spec
from sact_det.weights.weight_file import load_torch

_UNIT = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.")
_NUM_BLOCKS = 4
_PARALLEL = "module."
_PIXEL_RANGE = 255
_EXPECTED = "expected timm's resnetv2_50, _101 or _152 (batch norm, 7x7 stem)"


def read_timm(path: Union[str, Path]) -> dict[str, Tensor]:
    """The state dict in a .safetensors file or in one that torch.save wrote, without `module.` before the names.

    Raises:
        InputError: the file is missing, broken, or holds no state dict.
    """
    is_safetensors = Path(path).suffix == ".safetensors"
    state_dict = _read_safetensors(path) if is_safetensors else load_torch(path)["model"]
    if all(name.startswith(_PARALLEL) for name in state_dict):
        state_dict = {name.removeprefix(_PARALLEL): value for name, value in state_dict.items()}
    return state_dict


def _read_safetensors(path: Union[str, Path]) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such weight file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a parser's answer to arbitrary bytes may be any exception
        raise InputError(f"{path}: damaged, or not a safetensors file") from error


def convert_timm(
    weights: Mapping[str, Tensor], mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.5, 0.5, 0.5)
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights for Classifier from timm's.

    Args:
        weights: timm's state dict, e.g. of `read_timm`. The logits (head.fc) may be absent.
        mean, std: of the input, per channel (RGB), as in timm's `pretrained_cfg`: of pixels in [0, 1]. The default is
            that of all published weights of these networks.

    Returns:
        The state dict (float32) and the metadata of a weight file (sact_det/weights/weight_file.py).

    Raises:
        InputError: a tensor is missing, unknown, or has another shape or type than its network's.
    """
    spec = _infer_spec(weights)
    fc = weights.get("head.fc.weight")
    num_classes = None if fc is None else max((1, *fc.shape[:1]))
    with torch.device("meta"):
        network = Classifier(spec, num_classes or 1)

    state_dict: dict[str, Tensor] = {}
    unknown = dict.fromkeys(weights)
    for name, module in network.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) or (name == "logits" and num_classes is None):
            continue
        for key, target in module.state_dict().items():
            source = f"{_source(name)}.{key}"
            unknown.pop(source, None)
            if source in weights:
                state_dict[f"{name}.{key}"] = _checked(source, weights[source], target)
            elif key == "num_batches_tracked" or (key == "bias" and name != "logits" and isinstance(module, nn.Conv2d)):
                state_dict[f"{name}.{key}"] = torch.zeros(target.shape, dtype=target.dtype)
            else:
                raise InputError(f"{source}: not in the source; {_EXPECTED}")
    if unknown:
        raise InputError(f"{next(iter(unknown))}: not in the network of units {spec.units}; {_EXPECTED}")
    depths = [depth for depth, units in UNITS_BY_DEPTH.items() if units == spec.units]
    metadata = {
        **spec.describe(),
        "num_classes": num_classes,
        "pixel_mean": [_PIXEL_RANGE * value for value in mean],
        "pixel_std": [_PIXEL_RANGE * value for value in std],
        "source": f"timm resnetv2_{depths[0]}" if depths else "timm resnetv2",
        "missing": [] if num_classes else ["logits"],
    }
    return state_dict, metadata


def _infer_spec(weights: Mapping[str, Tensor]) -> ResNetV2Spec:
    """Units per block and width from the names and shapes."""
    units: Counter[int] = Counter()
    for stage, _ in {match.groups() for match in map(_UNIT.match, weights) if match}:
        units[int(stage)] += 1
    conv = weights.get("stages.0.blocks.0.conv1.weight")
    if conv is None or sorted(units) != list(range(_NUM_BLOCKS)):
        raise InputError(
            f"{next(iter(weights), 'nothing')}, ...: not the weights of a network of this kind; {_EXPECTED}"
        )
    if conv.ndim != 4 or conv.shape[2] != 1 or not conv.shape[0]:
        raise InputError(f"stages.0.blocks.0.conv1.weight: is {list(conv.shape)}; {_EXPECTED}")
    return ResNetV2Spec(
        tuple(units[stage] for stage in range(_NUM_BLOCKS)), conv.shape[0], halting="none", stem_pool="symmetric"
    )


def _source(module: str) -> str:
    """timm's name for a module: block1.units.0.norm2 is stages.0.blocks.0.norm3."""
    match = re.fullmatch(r"block(\d)\.units\.(\d+)\.(\w+)", module)
    if not match:
        return {"postnorm": "norm", "logits": "head.fc"}.get(module, module)
    names = {"preact": "norm1", "norm1": "norm2", "norm2": "norm3", "shortcut": "downsample.conv"}
    return f"stages.{int(match[1]) - 1}.blocks.{match[2]}.{names.get(match[3], match[3])}"


def _checked(name: str, value: Tensor, target: Tensor) -> Tensor:
    """The values in the type of `target`, after a look at the shape and the kind of number."""
    if value.shape != target.shape or value.is_floating_point() != target.is_floating_point():
        kind = "floats" if target.is_floating_point() else "an integer"
        raise InputError(
            f"{name}: is {str(value.dtype).removeprefix('torch.')} {list(value.shape)}; "
            f"expected {kind} {list(target.shape)}"
        )
    return value.to(target.dtype)
