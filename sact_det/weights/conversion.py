"""Files that are no weight files of ours as weights: which conversion reads which file, and what comes out."""

import contextlib
import shlex
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence

from torch import Tensor

from sact_det.base.archives import is_tar
from sact_det.base.errors import InputError
from sact_det.weights.compact import is_compact, load_compact
from sact_det.weights.sact_tf import convert_sact_tf
from sact_det.weights.tf_checkpoint import is_checkpoint, open_checkpoint
from sact_det.weights.tf_slim import convert_tf_slim, read_npz
from sact_det.weights.tf_slim_checkpoint import convert_tf_slim_checkpoint, is_tf_slim
from sact_det.weights.timm import IMAGE_MEAN, convert_timm, is_timm, read_timm_file


class Converted(NamedTuple):
    """What a conversion makes of a file.

    Attributes:
        state_dict: of Classifier, or, from weights in a byte each, of any network of ours; float32.
        metadata: of a weight file (sact_det/weights/weight_file.py).
        files: that were read.
        choice: which of several state dicts in the file was taken, and how to take the other; None: there is but one.
    """

    state_dict: dict[str, Tensor]
    metadata: dict[str, Any]
    files: list[Path]
    choice: Optional[str] = None


def from_sact_tf(path: Path) -> Converted:
    """From a checkpoint of the original SACT program. Raises InputError if it is damaged or none of these networks."""
    checkpoint = open_checkpoint(path)
    return Converted(*convert_sact_tf(checkpoint), checkpoint.files)


def from_tf_slim(path: Path) -> Converted:
    """From TF-Slim's checkpoint or npz. Raises InputError if it is damaged or none of these networks."""
    if path.suffix == ".npz":
        return Converted(*convert_tf_slim(read_npz(path)), [path])
    checkpoint = open_checkpoint(path)
    return Converted(*convert_tf_slim_checkpoint(checkpoint), checkpoint.files)


def from_timm(
    path: Path, mean: Sequence[float] = IMAGE_MEAN, std: Sequence[float] = IMAGE_MEAN, ema: Optional[bool] = None
) -> Converted:
    """From a file of timm's; arguments and errors are those of `read_timm_file` and `convert_timm`."""
    file = read_timm_file(path, ema)
    state_dict, metadata = convert_timm(file.state_dict, mean, std)
    if file.other is None:
        return Converted(state_dict, metadata, [path])
    metadata["source"] += f" ({file.key})"
    option = "--no-ema" if file.averaged else "--ema"
    return Converted(state_dict, metadata, [path], f"{file.key} is taken; {option} takes {file.other}")


def from_compact(path: Path) -> Converted:
    """From weights in a byte each (compact.py). Raises InputError if the file is damaged or none of these."""
    return Converted(*load_compact(path), [path])


CONVERSIONS = {"sact-tf": from_sact_tf, "tf-slim": from_tf_slim, "timm": from_timm, "from-compact": from_compact}


def recognise(path: Path) -> Optional[str]:
    """The key in CONVERSIONS of what reads a file of another program; None if it is a weight file of ours.

    Raises:
        InputError: the file is missing, unreadable or damaged.
    """
    if path.suffix == ".npz":
        return "from-compact" if is_compact(path) else "tf-slim"
    if path.suffix == ".safetensors":
        return "timm"
    if is_checkpoint(path):
        return "tf-slim" if is_tf_slim(open_checkpoint(path)) else "sact-tf"
    return "timm" if is_timm(read_timm_file(path).state_dict) else None


def how_to_convert(path: Path) -> Optional[str]:
    """The command that makes a weight file of a file of another program; None if it is none that can be converted."""
    command = "sact-tf, or tf-slim," if path.is_file() and is_tar(path) else None
    with contextlib.suppress(InputError):
        command = command or recognise(path)
    return command and f"python tools/convert_weights.py {command} {shlex.quote(str(path))} OUT.pth"
