"""Any TensorFlow checkpoint, whichever of the two formats it has."""

import os
from pathlib import Path
from typing import Union

from sact_det.weights.tf_bundle import TensorBundle, resolve_checkpoint
from sact_det.weights.tf_table import is_table
from sact_det.weights.tf_tensors import Checkpoint
from sact_det.weights.tf_v1 import V1Checkpoint


def open_checkpoint(path: Union[str, Path]) -> Checkpoint:
    """The tensors by name, each read when it is asked for.

    Args:
        path: a folder with a file `checkpoint`, a prefix, an .index file, or the single file of a V1 checkpoint.

    Raises:
        InputError: there is no checkpoint, or its index is damaged.
    """
    prefix = resolve_checkpoint(path)
    return TensorBundle(prefix) if os.path.isfile(f"{prefix}.index") else V1Checkpoint(prefix)


def is_checkpoint(path: Union[str, Path]) -> bool:
    """Whether `open_checkpoint` is what reads a path: a folder, an index or a prefix, or a table by its last bytes."""
    path = Path(path)
    return path.is_dir() or path.suffix == ".index" or os.path.isfile(f"{path}.index") or is_table(path)
