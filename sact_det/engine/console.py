"""What of a run's log reaches the terminal: what is trained, on what, and how it goes. The log file has all of it."""

import logging
import re
import sys
from typing import Optional

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

# Detectron2's words on environment, config, classes and data, and what this package says better.
_FOR_FILES = (
    *("detectron2", "detectron2.data.", "detectron2.checkpoint.", "detectron2.engine.defaults"),
    *("detectron2.evaluation.testing", "fvcore.common.checkpoint"),
)
_LOGGERS = ("fvcore", "detectron2", "sact_det")


def is_main_line(record: logging.LogRecord) -> bool:
    """A log filter: passes warnings, and lines of level INFO but for Detectron2's on what a run consists of."""
    # Detectron2's formatter shortens the name of the record itself, for whatever handles it next.
    own = re.sub(r"^d2\.", "detectron2.", record.name)
    described = any(own == name or (name.endswith(".") and own.startswith(name)) for name in _FOR_FILES)
    return record.levelno >= logging.WARNING or (record.levelno >= logging.INFO and not described)


def setup_log(folder: Optional[str] = None, verbose: bool = False, everyone: bool = False) -> None:
    """Sets up Detectron2's and this package's loggers: the main lines on stdout, all of them in `folder`/log.txt.

    Every process has a file; the first one alone writes to stdout, every line once, unless `everyone` does.

    Args:
        folder: None: there is no file.
        verbose: whether stdout has all lines, too.
        everyone: for processes that do not do the same; without a file.
    """
    # In Detectron2's own words: its default_setup asks for the first two once more, and must find them set up.
    rank = 0 if everyone else comm.get_rank()
    setup_logger(folder, distributed_rank=rank, name="fvcore")
    setup_logger(folder, distributed_rank=rank)
    setup_logger(folder, distributed_rank=rank, name="sact_det")
    for logger in map(logging.getLogger, _LOGGERS):
        handlers = [handler for handler in logger.handlers if getattr(handler, "stream", None) is sys.stdout]
        for handler in handlers[1:]:  # of another folder
            logger.removeHandler(handler)
        for handler in handlers[:1]:
            handler.removeFilter(is_main_line)
            if not verbose:
                handler.addFilter(is_main_line)
