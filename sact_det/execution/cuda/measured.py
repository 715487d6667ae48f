"""What was measured on this GPU: on which blocks the kernels are faster than dense execution, and in which units not.

`make gpu` measures and writes both tables (sact_det/benchmark/gpu/table.py, density.py) to the cache folder, a file per
card and versions. "auto" goes by the first; without one, it is dense on GPUs. "perforated" goes by the second.
"""

import logging
import re
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Iterable, Optional, Sequence, TypeVar

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


@dataclass(frozen=True)
class MeasuredUnit:
    """A unit behind the first of its block in inference, measured on a card.

    Attributes:
        precision: the type in which products are computed, e.g. "bfloat16".
        channels: of its state.
        positions: of it, over the whole batch.
        share: where at least this share of the positions is active, its 1x1 and 3x3 convolutions to fewer channels were
            faster everywhere, by cuDNN, than in kernels at these positions; NOWHERE: at no share.
    """

    precision: str
    channels: int
    positions: int
    share: float


NOWHERE = 2.0
Row = TypeVar("Row", Measured, MeasuredUnit)
_WITHOUT = {Measured: 'Execution "auto" is dense', MeasuredUnit: "Units are evaluated at active positions alone"}


def table_path(device: torch.device, kind: type[Row]) -> Path:
    """The file of rows of a kind, for a card under these versions of PyTorch, Triton and this package."""
    try:
        from triton import __version__ as triton
    except ImportError:
        triton = "none"
    name = f"{torch.cuda.get_device_name(device)} torch {torch.__version__} triton {triton} {sact_det.__version__}"
    name += " units" * (kind is MeasuredUnit)
    return cache_folder() / "gpu" / f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', name)}.json"


def write_table(device: torch.device, rows: Sequence[Row]) -> Path:
    """Keeps what was measured on the card, at least one row. Raises OSError if the cache folder cannot be written."""
    path = table_path(device, type(rows[0]))
    write_json(path, [asdict(row) for row in rows])
    read_table.cache_clear()
    return path


@lru_cache(maxsize=None)
def read_table(device: torch.device, kind: type[Row]) -> tuple[Row, ...]:
    """What was measured on the card; nothing if there is no table, or if it cannot be read, which is logged."""
    path = table_path(device, kind)
    if not path.exists():
        return ()
    try:
        return tuple(_row(kind, row) for row in read_json(path))
    except (ValueError, TypeError) as error:
        logger.warning("%s on %s: its table cannot be read (%s)", _WITHOUT[kind], device, one_line(error))
        return ()


def _row(kind: type[Row], row: dict[str, Any]) -> Row:
    """A row of the table from its JSON form. Raises TypeError or ValueError if it is none."""
    made = kind(**row)
    for field in fields(made):
        expected: Any = (int, float) if field.type is float else field.type
        if not isinstance(getattr(made, field.name), expected):
            raise ValueError(f"{field.name}: {getattr(made, field.name)!r}")
    return made


def _nearest(rows: Iterable[Row], positions: int) -> Optional[Row]:
    """The row of the largest map which is not larger."""
    return max((row for row in rows if row.positions <= positions), key=lambda row: row.positions, default=None)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def is_faster(device: torch.device, dtype: torch.dtype, channels: int, positions: int) -> bool:
    """Whether the kernels, in training or inference, beat the dense execution of a block.

    The row that counts is that of the largest map which is not larger than the block's.

    Args:
        device: a GPU.
        dtype: in which products are computed.
        channels: of the block's input.
        positions: of its output, over the whole batch.
    """
    key = (torch.is_grad_enabled(), _name(dtype), channels)
    rows = [row for row in read_table(device, Measured) if (row.training, row.precision, row.channels) == key]
    nearest = _nearest(rows, positions)
    return nearest is not None and nearest.share >= WORTHWHILE


def dense_from(device: torch.device, dtype: torch.dtype, channels: int, positions: int) -> float:
    """From which share of active positions on cuDNN is faster in a unit (MeasuredUnit); NOWHERE where none is known.

    Args:
        device: of the unit.
        dtype: in which products are computed.
        channels: of its state.
        positions: of it, over the whole batch.
    """
    if device.type != "cuda":
        return NOWHERE
    key = (_name(dtype), channels)
    rows = [row for row in read_table(device, MeasuredUnit) if (row.precision, row.channels) == key]
    nearest = _nearest(rows, positions)
    return NOWHERE if nearest is None else nearest.share
