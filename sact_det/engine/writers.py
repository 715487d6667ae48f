"""What writes down how a training goes: steps that are run again stand there once."""

from pathlib import Path
from typing import Callable, Optional, Union

from detectron2.utils.events import EventWriter, JSONWriter
from typing_extensions import override

from sact_det.base.metrics_file import prepare_metrics


class DeferredWriter(EventWriter):
    """A writer that `build` makes when there is something to write: before, nobody knows where the training goes on."""

    def __init__(self, build: Callable[[], EventWriter]):
        self._build = build
        self._writer: Optional[EventWriter] = None

    @override
    def write(self) -> None:
        if self._writer is None:
            self._writer = self._build()
        self._writer.write()

    @override
    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def json_writer(folder: Union[str, Path], first_step: int) -> JSONWriter:
    """Appends to metrics.json in `folder`, which then holds no step from `first_step` on."""
    path = Path(folder) / "metrics.json"
    prepare_metrics(path, first_step)
    return JSONWriter(str(path))
