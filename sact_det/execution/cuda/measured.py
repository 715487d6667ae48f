"""On which blocks the kernels were measured faster than dense execution on this GPU: what "auto" decides by there.

`make gpu` measures and writes the table (sact_det/benchmark/gpu/table.py) to the cache folder, one file per card and
versions. Without one, "auto" is dense on GPUs.
"""

import logging
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Sequence

import torch

import sact_det
from sact_det.base.cache_folder import cache_folder
from sact_det.base.errors import one_line
from sact_det.base.files import write_json
from sact_det.base.text_files import read_json

logger = logging.getLogger(__name__)

# "auto" leaves dense execution where it was slower down to FLOP ratios of at most this: what a trained network needs.
WORTHWHILE = 0.6


@dataclass(frozen=True)
class Measured:
    """One block of a network, measured on a card.

    Attributes:
        training: whether a training step was measured, or inference.
        precision: the type in which products are computed, e.g. "bfloat16".
        channels: of the block's input.
        positions: of its output, over the whole batch.
        share: the largest FLOP ratio at which the kernels were faster than dense execution; 0: at none.
    """

    training: bool
    precision: str
    channels: int
    positions: int
    share: float


def table_path(device: torch.device) -> Path:
    """The file for a card under these versions of PyTorch, Triton and this package."""
    try:
        from triton import __version__ as triton
    except ImportError:
        triton = "none"
    name = f"{torch.cuda.get_device_name(device)} torch {torch.__version__} triton {triton} {sact_det.__version__}"
    return cache_folder() / "gpu" / f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', name)}.json"


def write_table(device: torch.device, rows: Sequence[Measured]) -> Path:
    """Keeps what was measured on the card. Raises OSError if the cache folder cannot be written."""
    path = table_path(device)
    write_json(path, [asdict(row) for row in rows])
    read_table.cache_clear()
    return path


@lru_cache(maxsize=None)
def read_table(device: torch.device) -> tuple[Measured, ...]:
    """What was measured on the card; nothing if there is no table, or if it cannot be read, which is logged."""
    path = table_path(device)
    if not path.exists():
        return ()
    try:
        return tuple(_row(row) for row in read_json(path))
    except (ValueError, TypeError) as error:
        logger.warning('Execution "auto" is dense on %s: its table cannot be read (%s)', device, one_line(error))
        return ()


def _row(row: dict[str, Any]) -> Measured:
    """A row of the table from its JSON form. Raises TypeError or ValueError if it is none."""
    made = Measured(**row)
    kinds = {"training": bool, "precision": str, "channels": int, "positions": int, "share": (int, float)}
    for name, kind in kinds.items():
        if not isinstance(getattr(made, name), kind):  # type: ignore[arg-type]
            raise ValueError(f"{name}: {getattr(made, name)!r}")
    return made


def is_faster(device: torch.device, dtype: torch.dtype, channels: int, positions: int) -> bool:
    """Whether the kernels, in training or inference, beat the dense execution of a block.

    The row that counts is that of the largest map which is not larger than the block's.

    Args:
        device: a GPU.
        dtype: in which products are computed.
        channels: of the block's input.
        positions: of its output, over the whole batch.
    """
    key = (torch.is_grad_enabled(), str(dtype).removeprefix("torch."), channels)
    rows = [row for row in read_table(device) if (row.training, row.precision, row.channels) == key]
    smaller = [row for row in rows if row.positions <= positions]
    return bool(smaller) and max(smaller, key=lambda row: row.positions).share >= WORTHWHILE
