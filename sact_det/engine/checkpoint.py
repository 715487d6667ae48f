"""Loading and saving: strict about what fits, atomic on disk, never unpickling."""

import contextlib
import io
import logging
import re
import sys
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from torch import Tensor
from typing_extensions import override

from sact_det.base.errors import InputError, one_line
from sact_det.base.files import check_input, write_text, write_torch
from sact_det.base.text_files import read_text
from sact_det.budget import FILE_NAME, Budgeted
from sact_det.engine import weight_names  # noqa: F401  (sact://)
from sact_det.engine.averaged_weights import UNAVERAGED, AveragedWeights
from sact_det.engine.divergence import check_weights
from sact_det.network.freeze import halting_branches
from sact_det.network.norm import FrozenBatchNorm2d
from sact_det.weights.conversion import how_to_convert
from sact_det.weights.values import COUNTER, describe, is_of_kind, kind
from sact_det.weights.weight_file import load_torch, unwrap

logger = logging.getLogger(__name__)

StateDict = dict[str, Tensor]

_NAMED = 3  # norms, in a warning
_LAST = "last_checkpoint"  # names it
CONFIG_KEYS = {
    "family": "MODEL.CLASSIFIER.FAMILY",
    "units": "MODEL.SACT.UNITS",
    "base_channels": "MODEL.SACT.BASE_CHANNELS",
    "dilation": "MODEL.SACT.DILATION",
    "stem_pool": "MODEL.SACT.STEM_POOL",
    "box_head_max_pool": "MODEL.SACT.BOX_HEAD_MAX_POOL",
    "box_head_map_products": "MODEL.SACT.BOX_HEAD_MAP_PRODUCTS",
}
PRICES = {"prices": "MODEL.SACT.BUDGET_TRAINING_DRAWS tau, with the lowest price, TAU and the highest"}


def local_weights(path: str) -> str:
    """A weight file as it lies on this machine; one at a URL is fetched, and kept, by Detectron2's PathManager.

    Raises:
        InputError: it is missing, cannot be read or cannot be fetched.
    """
    local = path
    if "://" in path:
        # The progress bar, and what is said beside the error, are for terminals.
        shown = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
        try:
            with shown:
                local = PathManager.get_local_path(path)
        except InputError:
            raise
        except Exception as error:  # whatever the handler of the scheme raises
            raise InputError(f"{path}: cannot be fetched ({one_line(error)})") from error
    check_input(local, "weight file")
    return local


@contextlib.contextmanager
def telling_how_to_convert(path: str) -> Iterator[None]:
    """Adds to an InputError the command that makes a weight file of `path`, if that is a file of another program."""
    try:
        yield
    except InputError as error:
        command = how_to_convert(Path(path)) if path and "://" not in path else None
        if command is None:
            raise
        raise InputError(f"{error}. It is a file of another program: {command} makes weights of it") from error


class SACTCheckpointer(DetectionCheckpointer):
    """DetectionCheckpointer for the models of this project.

    * Reads our weight files and checkpoints, with torch.load(weights_only=True) alone.
    * Everything in the file must fit the model and everything in the model must be in the file, except: parts that the
      source cannot have, parts that the file says its source lacked, and halting branches (two-stage training from a
      plain network). Those start fresh and are listed. Layers for another number of classes start fresh too, in
      training.
    * Saves to a temporary name and renames, so that a full disk costs no existing checkpoint. A checkpoint describes
      its network as a weight file does.

    Args:
        evaluate: the weights must be complete; nothing may start fresh.
        classes: names in the order of the model's outputs, which checkpoints keep; None: they are unknown.
        (the others as in DetectionCheckpointer)

    Attributes:
        loaded: what was loaded last, as it was named; "" before.
        source_lacks: prefixes of what no source but the model's own checkpoints has.
        per_class: prefixes of the layers whose shapes depend on the number of classes.
    """

    source_lacks: tuple[str, ...] = ()
    per_class: tuple[str, ...] = ()

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        evaluate: bool = False,
        classes: Optional[Sequence[str]] = None,
        **kwargs: Any,
    ):
        super().__init__(model, save_dir, **kwargs)
        self._evaluate = evaluate
        self._classes = {} if classes is None else {"classes": list(classes)}
        self.loaded = ""
        self._states: list[str] = []
        self._shifts: Mapping[str, float] = {}
        self.averages: Optional[AveragedWeights] = None

    def average(self, averages: AveragedWeights) -> None:
        """From now on checkpoints have these averages for their weights, and what learns beside them."""
        self.averages = averages
        self.add_checkpointable(UNAVERAGED, averages)

    def description(self) -> dict[str, Any]:
        """The metadata of a weight file (sact_det/weights/weight_file.py): what the state dict alone cannot say."""
        raise NotImplementedError

    def adapt(self, state_dict: StateDict, missing: tuple[str, ...]) -> tuple[StateDict, tuple[str, ...]]:
        """State dict of a file, and the prefixes that its source lacked, under the model's names."""
        return state_dict, missing

    def load(self, path: str, checkpointables: Optional[list[str]] = None) -> dict[str, Any]:
        """Loads `path` ("" loads nothing). Raises InputError if the file is missing, broken or does not fit.

        A model that was built for a budget has it from now on, by the table beside the file; there must be one then.

        Args:
            path: of the file, or a URL.
            checkpointables: names of the states that must be in the file beside the weights, to be loaded too; None:
                all that this checkpointer saves.
        """
        if not path and self._evaluate:
            raise InputError("MODEL.WEIGHTS is empty: evaluation needs trained weights")
        if not path:
            self._check_frozen_norms("MODEL.WEIGHTS is empty", set(self.model.state_dict()))
        self._states = list(self.checkpointables) if checkpointables is None else checkpointables
        with telling_how_to_convert(path):
            if path:
                self.loaded, path = path, local_weights(path)
            # Past DetectionCheckpointer.load: it cuts local names at a "?", and waits for processes without the file.
            rest = super(DetectionCheckpointer, self).load(path, self._states)
        if path and isinstance(self.model, Budgeted):
            self.model.budget_file = Path(path).parent / FILE_NAME
            self.model.trained_shifts = self._shifts
            self.model.set_budget(self.model.asked_budget)
        return rest

    def get_checkpoint_file(self) -> str:
        """The last checkpoint. Raises InputError if the file that names it cannot be read."""
        note = Path(self.save_dir) / _LAST
        name = read_text(note).strip()
        if not name:
            raise InputError(f"{note}: is empty; expected the name of the last checkpoint beside it")
        return str(note.parent / name)

    def _load_file(self, filename: str) -> dict[str, Any]:
        content = load_torch(filename)
        absent = [state for state in self._states if state not in content]
        if self._states and (UNAVERAGED in content) != (UNAVERAGED in self._states):
            begun = "with" if UNAVERAGED in content else "without"
            raise InputError(f"{self.loaded}: its training was begun {begun} SOLVER.EMA_DECAY, and goes on so only")
        if absent:
            raise InputError(f"{self.loaded}: holds weights, not a training to go on with (there is no {absent[0]!r})")
        return content

    def _load_model(self, checkpoint: dict[str, Any]) -> None:
        state_dict, metadata = unwrap(checkpoint)
        self._check_architecture(metadata)
        self._shifts = metadata.get("shifts", {})
        state_dict, missing_at_source = self.adapt(
            state_dict, tuple(f"{part}." for part in metadata.get("missing", ()))
        )
        model_state = self.model.state_dict()

        other_classes = [
            name
            for name in state_dict
            if name.startswith(self.per_class)
            and name in model_state
            and state_dict[name].shape[:1] != model_state[name].shape[:1]
            and state_dict[name].shape[1:] == model_state[name].shape[1:]
        ]
        for name in [] if self._evaluate else other_classes:
            del state_dict[name]
        known = {name: value for name, value in state_dict.items() if name in model_state}
        misfits = [
            f"{name} is {list(value.shape)}, the model's {list(model_state[name].shape)}"
            for name, value in known.items()
            if value.shape != model_state[name].shape
        ]
        for name, value in known.items():
            if not is_of_kind(name, value):
                raise InputError(f"{self.loaded}: {name} is {describe(value)}; expected {kind(name)}")
        # Learning norms count their steps, frozen ones do not.
        unexpected = [n for n in state_dict if n not in model_state and not n.endswith(COUNTER)]
        fresh = [n for n in model_state if n not in state_dict and not n.endswith(COUNTER)]
        allowed = (*self.source_lacks, *missing_at_source, *other_classes, *halting_branches(self.model))
        missing = [n for n in fresh if self._evaluate or not n.startswith(allowed)]
        for what, names in (("shapes differ", misfits), ("not in the model", unexpected), ("not in the file", missing)):
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise InputError(
                    f"{self.loaded}: weights of another architecture than the config's (MODEL.SACT, number of "
                    f"classes): {what}: {names[0]}{more}"
                )
        self._check_frozen_norms(f"{self.loaded} has no values for it", set(fresh))
        if fresh:
            parts = sorted({re.sub(r"\.[^.]+$", "", name) for name in fresh})
            logger.info("Starting fresh, because %s has no values for them: %s", self.loaded, ", ".join(parts))
        self.model.load_state_dict(state_dict, strict=False)

    def _check_frozen_norms(self, why: str, fresh: set[str]) -> None:
        """A norm of a halting branch that has no statistics must be able to learn them; of others it is warned."""
        branches = halting_branches(self.model)
        frozen = [
            name
            for name, part in self.model.named_modules()
            if isinstance(part, FrozenBatchNorm2d) and f"{name}.running_mean" in fresh
        ]
        for name in frozen:
            if name.startswith(branches):
                key = "HALTING_NORM" if name.startswith(("backbone.", "block")) else "BOX_HEAD_HALTING_NORM"
                raise InputError(
                    f"MODEL.SACT.{key} FrozenBN: {name} starts fresh ({why}), and a norm without statistics must not "
                    "be frozen; expected MovingBN or BN"
                )
        if frozen:
            logger.warning(
                "%d norms start fresh (%s) and are frozen, so that they never normalise anything: %s%s. Start from "
                'weights that have them, or let them learn (MODEL.SACT.NORM, BOX_HEAD_NORM: "BN")',
                len(frozen),
                why,
                ", ".join(frozen[:_NAMED]),
                ", ..." if len(frozen) > _NAMED else "",
            )

    def _check_architecture(self, metadata: dict[str, Any]) -> None:
        """The file's own description against the model's, where shapes could not tell the difference."""
        own = self.description()
        for key, config_key in {**CONFIG_KEYS, **PRICES}.items():
            wanted, found = own.get(key), metadata.get(key)
            found = tuple(found) if isinstance(found, list) else found  # json has no tuples
            if None not in (found, wanted) and found != wanted:
                raise InputError(
                    f"{self.loaded}: weights of another architecture: they need {config_key} {found}, "
                    f"the config has {wanted}"
                )

    def save(self, name: str, is_last: bool = True, **kwargs: Any) -> None:
        """Saves model and checkpointables as `name`.pth in the save folder.

        Args:
            name: of the file.
            is_last: whether --resume goes on from it.
            kwargs: what else it holds.

        Raises:
            OSError: it cannot be written.
            FloatingPointError: a weight is NaN or infinite; the last checkpoint stays a good one.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        weights = self.model.state_dict()
        check_weights(weights)
        weights = weights if self.averages is None else self.averages.averaged(weights)
        shifts = self.model.own_shifts() if isinstance(self.model, Budgeted) else {}
        described = {**self.description(), **self._classes, **({"shifts": shifts} if shifts else {}), "missing": []}
        data = {"model": weights, "sact": described, **kwargs}
        data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()})
        path = Path(self.save_dir) / f"{name}.pth"
        logger.info("Saving checkpoint to %s", path)
        write_torch(path, data)
        if is_last:
            self.tag_last_checkpoint(path.name)

    @override
    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        write_text(Path(self.save_dir) / _LAST, last_filename_basename)
