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
from typing import Any, Mapping, NamedTuple, Optional, Sequence, Union

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sact_det.base.errors import InputError, naming
from sact_det.base.files import check_input
from sact_det.network.classifier import ClassifierNetwork
from sact_det.network.resnet_v2 import UNITS_BY_DEPTH, ResNetV2Spec
from sact_det.weights.torch_file import read_torch
from sact_det.weights.values import check_values, describe, is_of_kind, kind
from sact_det.weights.weight_file import find_key, take_state_dict

_UNIT = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.")
IMAGE_MEAN = (0.5, 0.5, 0.5)  # of all published weights of these networks, and their standard deviation
_NUM_BLOCKS = 4
_AVERAGES = ("state_dict_ema", "model_ema")
_WEIGHTS = ("state_dict", "model")
_PIXEL_RANGE = 255
_EXPECTED = "expected timm's resnetv2_50, _101 or _152 (batch norm, 7x7 stem)"


class TimmFile(NamedTuple):
    """What a file of timm holds.

    Attributes:
        state_dict: under the names of the bare model.
        key: where it was in a checkpoint of a training: "state_dict_ema", say; None if the file is the state dict.
        other: where the weights are that were not taken, the averaged ones or those that are not; None if nowhere.
    """

    state_dict: dict[str, Tensor]
    key: Optional[str] = None
    other: Optional[str] = None

    @property
    def averaged(self) -> bool:
        """Whether the state dict holds moving averages of the weights."""
        return self.key in _AVERAGES


def is_timm(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are weights of timm that `convert_timm` can convert."""
    try:
        convert_timm(weights)
    except InputError:
        return False
    return True


def read_timm_file(path: Union[str, Path], ema: Optional[bool] = None) -> TimmFile:
    """The state dict in a .safetensors file or in one that torch.save wrote.

    Args:
        path: of the file.
        ema: takes the moving averages of the weights, which timm's checkpoints of a training may hold beside the
            weights themselves, or does not; None: takes them if they are there, as timm's own loader does.

    Raises:
        InputError: the file is missing or damaged, or holds no state dict; a tensor holds what no weight does; there
            are no averages, and `ema` asks for them.
    """
    if Path(path).suffix == ".safetensors":
        return TimmFile(take_state_dict(path, _read_safetensors(path), ()))
    content = read_torch(path)
    averages, weights = find_key(content, _AVERAGES), find_key(content, _WEIGHTS)
    if ema and averages is None:
        raise InputError(f"{path}: holds no moving averages of the weights (under {' or '.join(_AVERAGES)})")
    if averages is None or ema is False:
        return TimmFile(take_state_dict(path, content, _WEIGHTS), weights, averages)
    return TimmFile(take_state_dict(path, content, _AVERAGES), averages, weights)


def _read_safetensors(path: Union[str, Path]) -> dict[str, Tensor]:
    check_input(path, "weight file")
    with naming(f"{path}: damaged, or not a safetensors file"):  # a parser's answer to arbitrary bytes may be anything
        return safetensors.torch.load_file(path)


def convert_timm(
    weights: Mapping[str, Tensor], mean: Sequence[float] = IMAGE_MEAN, std: Sequence[float] = IMAGE_MEAN
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights for Classifier from timm's.

    Args:
        weights: timm's state dict, e.g. of `read_timm_file`. The logits (head.fc) may be absent.
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
        network = ClassifierNetwork(spec, num_classes or 1)

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


def _checked(name: str, values: Tensor, target: Tensor) -> Tensor:
    """The values in the type of `target`, after a look at the shape and the kind of number, and at the values."""
    if values.shape != target.shape or not is_of_kind(name, values):
        raise InputError(f"{name}: is {describe(values)}; expected {kind(name)} {list(target.shape)}")
    check_values(name, values)
    return values.to(target.dtype)
