"""What fails late, as errors that name the config: a part that cannot be built, sizes that do not fit into memory."""

import contextlib
import time
from typing import Any, Iterator, Sequence

from detectron2.config import CfgNode
from detectron2.modeling import build_model as build_model_of_detectron2
from detectron2.utils import comm

from sact_det.base.errors import InputError, is_out_of_memory, one_line
from sact_det.engine import peers
from sact_det.engine.config_checks import value_of

# What gloo and NCCL say when the process at the other end of a connection is no longer there.
_PEER_ENDED = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited", "ncclRemoteError")
_TO_BE_ENDED = 5.0  # seconds: whoever started the processes of a machine ends all behind the first
_MODEL_SIZES = ("MODEL.SACT.BASE_CHANNELS", "MODEL.SACT.UNITS", "MODEL.RPN.CONV_DIMS")


@contextlib.contextmanager
def sizes_fit(cfg: CfgNode, what: str, keys: Sequence[str]) -> Iterator[None]:
    """Has an error about memory name the keys of the config that decide how much is needed.

    Raises:
        InputError: there is too little memory for `what`.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        sizes = ", ".join(f"{key} {value_of(cfg, key)}" for key in keys)
        raise InputError(
            f"out of memory: {what} takes more than there is; lower {sizes} ({one_line(error)})"
        ) from error


@contextlib.contextmanager
def with_others() -> Iterator[None]:
    """For work that processes do together: one that ends lets the others end, too, and says why where it was started.

    The first process of every machine says which one it was; the others of the machine leave that to it, and wait to be
    ended.

    Raises:
        InputError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in _PEER_ENDED):
            raise
        ended = peers.silent()
        if comm.get_local_rank() > 0:
            time.sleep(_TO_BE_ENDED)
        which = ", ".join(ended) or "another process of the training"
        raise InputError(
            f"rank {comm.get_rank()} ends because {which} has ended; what was said there, by it or by who started it, "
            f"says why, and --resume goes on ({one_line(error).partition('. ')[0]})"
        ) from error


@contextlib.contextmanager
def built(what: str) -> Iterator[None]:
    """For the building of a part from a config, whose checks do not know everything that Detectron2's parts refuse.

    Raises:
        InputError: `what` cannot be built; the message has Detectron2's reason.
    """
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        kind = "" if isinstance(error, (AssertionError, ValueError)) else f"{type(error).__name__}: "
        raise InputError(f"{what} cannot be built from this config: {kind}{one_line(error)}") from error


def build_model(cfg: CfgNode) -> Any:
    """detectron2.modeling.build_model: the module of MODEL.META_ARCHITECTURE.

    Raises:
        InputError: the model cannot be built, or does not fit into memory.
    """
    with sizes_fit(cfg, "the model", _MODEL_SIZES), built("the model"):
        return build_model_of_detectron2(cfg)
