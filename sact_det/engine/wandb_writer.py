"""The course of a training on Weights & Biases, beside TensorBoard."""

import uuid
from collections import defaultdict
from pathlib import Path

import yaml
from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage
from typing_extensions import override

from sact_det.base.files import write_text
from sact_det.base.text_files import read_text

NOTE = "wandb_run"  # in OUTPUT_DIR: the id of the run there


class WandbWriter(EventWriter):
    """Sends what TensorBoard gets, pictures aside, to a run of WANDB.PROJECT, which --resume goes on with.

    The run is called as OUTPUT_DIR and has the config. Steps that are run again keep their first values, for wandb
    takes none twice. Where its environment variables say so (WANDB_MODE=offline), files wait for `wandb sync`.

    Args:
        cfg: of the training.
        first_step: from which it goes on; 0: it is a new run.
    """

    def __init__(self, cfg: CfgNode, first_step: int):
        import wandb  # an extra

        folder = Path(cfg.OUTPUT_DIR)
        note = folder / NOTE
        if first_step == 0 or not note.is_file():
            write_text(note, uuid.uuid4().hex)
        config = yaml.safe_load(cfg.dump())
        name = folder.resolve().name
        self._run = wandb.init(
            project=cfg.WANDB.PROJECT, dir=folder, id=read_text(note), name=name, resume="allow", config=config
        )
        self._last = first_step - 1

    @override
    def write(self) -> None:
        by_step: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, step) in get_event_storage().latest_with_smoothing_hint(20).items():
            if step > self._last:
                by_step[step][name] = value
        for step in sorted(by_step):
            self._run.log(by_step[step], step=step)
            self._last = step

    @override
    def close(self) -> None:
        self._run.finish()
