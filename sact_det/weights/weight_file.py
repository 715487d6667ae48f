"""Our weight files: torch.save of {"model": state dict, "sact": what the state dict alone cannot say}.

The metadata under "sact" is plain JSON-like data:
    family: "imagenet" or "cifar";
    units, base_channels, halting, dilation, stem_pool: the network, as in ResNetV2Spec (sact_det/network/resnet_v2.py);
    num_classes: outputs of the logits, or None without them;
    classes: names of the classes in the order of the model's outputs; absent: unknown;
    box_head_max_pool: of a detector, whether max pooling halves its regions before block 4;
    box_head_map_products: of a detector, whether block 4's first 1x1 products are computed on the map, before pooling;
    pixel_mean, pixel_std: per channel (RGB, 0-255), how images are normalised; 127.5 if absent: to [-1, 1];
    prices: that halting branches read: the lowest, the one at which they read 0, and the highest; absent: none;
    shifts: block -> the shift that the weights go with (sact_det/network/unit.py), where it is not 0;
    source: where the weights come from;
    missing: names of the modules that the source lacks and that therefore start fresh;
    unused: names of what the source has besides (slots of an optimizer, say).

Detectron2's checkpoints ({"model": ...} and the state of the training) and bare state dicts are read too; they have no
metadata. Nothing is ever unpickled.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Optional, Sequence, Union

from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.base.files import write_torch
from sact_det.base.value_rules import FINITE, POSITIVE, TEXT, Rule, listing, optional, whole
from sact_det.weights.torch_file import read_torch
from sact_det.weights.values import check_dense, check_values

_KEYS = ("model", "state_dict")
_COMPILED = "_orig_mod"  # a part of the names below a module that torch.compile made
_PARALLEL = "module."  # before all names of a DistributedDataParallel


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
        InputError: as `take_state_dict`; or the file is missing or damaged, holds pickled objects, or has metadata that
            are not those of a weight file.
    """
    content = read_torch(path)
    state_dict = take_state_dict(path, content, _KEYS)
    others = content if find_key(content, _KEYS) == "model" else {}
    check_metadata(path, others.get("sact", {}))
    return {**others, "model": state_dict}


def find_key(content: object, keys: Sequence[str]) -> Optional[str]:
    """The first of these keys under which a file's content has something."""
    return next((key for key in keys if isinstance(content, dict) and content.get(key) is not None), None)


def take_state_dict(path: Union[str, Path], content: Any, keys: Sequence[str]) -> dict[str, Tensor]:
    """The state dict in a file's content, under the names of the bare model.

    What torch.compile and DistributedDataParallel put into the names is taken out.

    Args:
        path: for errors.
        content: of the file.
        keys: where the state dict may be; the first that is there counts. Otherwise, the content is the state dict.

    Raises:
        InputError: there is no state dict, or a tensor holds what no weight does (sact_det/weights/values.py).
    """
    key = find_key(content, keys)
    state_dict = content if key is None else content[key]
    if not _is_state_dict(state_dict):
        places = f", bare or under {' or '.join(map(repr, keys))}" if keys else ""
        raise InputError(f"{path}: holds no weights; expected a state dict (names and tensors){places}")
    for name, values in state_dict.items():
        check_dense(f"{path}: {name}", values)
        check_values(f"{path}: {name}", values)
    names = {name: ".".join(part for part in name.split(".") if part != _COMPILED) for name in state_dict}
    while all(name.startswith(_PARALLEL) for name in names.values()):
        names = {name: bare.removeprefix(_PARALLEL) for name, bare in names.items()}
    repeated = [bare for bare, count in Counter(names.values()).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: {repeated[0]} is there twice, with and without {_COMPILED!r} in its name")
    return {bare: state_dict[name] for name, bare in names.items()}


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


_SHIFTS = Rule(
    lambda shifts: (
        isinstance(shifts, dict)
        and all(isinstance(block, str) for block in shifts)
        and all(isinstance(shift, (int, float)) and shift == shift for shift in shifts.values())
    ),
    "have a number for each block",
)
_METADATA: dict[str, Rule] = {
    **dict.fromkeys(("family", "halting", "stem_pool", "source"), TEXT),
    **dict.fromkeys(("units", "dilation"), listing(whole(1), "positive integers")),
    "base_channels": whole(1),
    "num_classes": optional(whole(1)),
    **dict.fromkeys(
        ("box_head_max_pool", "box_head_map_products"), Rule(lambda value: isinstance(value, bool), "be true or false")
    ),
    **dict.fromkeys(("pixel_mean", "pixel_std"), listing(FINITE, "finite numbers")),
    "shifts": _SHIFTS,
    "prices": listing(POSITIVE, "finite positive numbers", 3),
    **dict.fromkeys(("missing", "unused", "classes"), listing(TEXT, "names")),
}


def check_metadata(path: Union[str, Path], metadata: object) -> None:
    """Raises InputError, which names the file, if these are not the metadata of a weight file."""
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: 'sact' is a {type(metadata).__name__}; expected a dict that describes the network")
    for key, rule in _METADATA.items():
        if key in metadata and not rule.allows(metadata[key]):
            raise InputError(
                f"{path}: 'sact' does not describe a network as our weight files do: {key} must {rule.expected}; "
                f"got {metadata[key]!r}"
            )
