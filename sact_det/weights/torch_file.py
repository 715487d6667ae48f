"""Files of torch.save, read with their checksums checked and nothing in them executed."""

import argparse
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any, Union

import torch

from sact_det.base.errors import InputError
from sact_det.base.files import check_input

_EXPECTED = "expected tensors and plain values written by torch.save"
_ZIP_MAGIC = b"PK\x03\x04"  # of torch.save since PyTorch 1.6; what came before has no checksums

_MS_DOS_FOLDER = 0x10  # among the attributes of a record


def read_torch(path: Union[str, Path]) -> Any:
    """Everything that a file of torch.save holds, on the CPU: tensors, plain values, argparse.Namespace.

    torch.load does not look at the checksums in the file; here they are compared first.

    Raises:
        InputError: the file is missing, unreadable or damaged, or holds pickled objects.
    """
    check_input(path, "weight file")
    try:
        _check_crc(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # torch's remarks on a foreign pickle precede an error that says more
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds pickled objects, which are never loaded, or is damaged; {_EXPECTED}"
        ) from error
    except Exception as error:  # a parser's answer to arbitrary bytes may be any exception
        raise InputError(f"{path}: damaged, or not a weight file; {_EXPECTED}") from error


def _check_crc(path: Union[str, Path]) -> None:
    """Raises InputError, or what zipfile raises, if the CRC-32 of a record in the file is not that of its bytes."""
    with open(path, "rb") as file:
        if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
            return
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            # torch.serialization.set_crc32_options(False) writes 0 everywhere.
            damaged = archive.testzip() if any(record.CRC for record in records) else None
    # Of a folder, PyTorch reads nothing, and returns whatever is in the memory meant for it.
    folders = (record.filename for record in records if record.external_attr & _MS_DOS_FOLDER and record.file_size)
    damaged = damaged or next(folders, None)
    if damaged is not None:
        raise InputError(f"{path}: damaged: the checksum or the header of its record {damaged!r} is wrong")
