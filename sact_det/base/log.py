"""Lines of the log that are worth reading once."""

import logging
from functools import lru_cache

logger = logging.getLogger("sact_det")


@lru_cache(maxsize=None)
def info_once(line: str) -> None:
    """Logs a line at level INFO the first time it is given."""
    logger.info("%s", line)
