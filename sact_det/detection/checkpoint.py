"""Loading and saving: strict about what fits, atomic on disk, never unpickling."""

import logging
import re
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor

from sact_det.errors import InputError
from sact_det.files import replacing, write_torch
from sact_det.weights.weight_file import load_torch, unwrap

logger = logging.getLogger(__name__)

# Where the parts of a classifier's state dict live in the detector; a part may serve two places.
_CLASSIFIER_TO_DETECTOR = (
    (r"(stem|block[123])\.", ("backbone.{0}",)),
    (r"block4\.units\.0\.preact\.", ("roi_heads.res5.{0}", "backbone.res4_norm.{1}")),
    (r"(block4|postnorm)\.", ("roi_heads.res5.{0}",)),
    (r"logits\.", ()),
)
# What a classifier cannot provide: it starts fresh.
_DETECTOR_ONLY = ("proposal_generator.", "roi_heads.box_predictor.")
_HALTING = ".halting."


def is_classifier(state_dict: dict[str, Tensor]) -> bool:
    """Whether a state dict is that of a classifier (sact_det/classification) rather than of a detector."""
    return any(key.startswith("stem.") for key in state_dict)


def to_detector(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's weights under the detector's names: blocks 1-3, block 4 and postnorm; the logits are dropped.

    The norm before the RPN takes the values of block 4's first pre-activation, which has the same input.

    Raises:
        InputError: a name that belongs to no part of the classifier.
    """
    detector: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        for pattern, targets in _CLASSIFIER_TO_DETECTOR:
            match = re.match(pattern, name)
            if match:
                detector.update({target.format(name, name[match.end() :]): value for target in targets})
                break
        else:
            raise InputError(f"weights: {name!r} belongs to no part of a classifier (stem, block1-4, postnorm, logits)")
    return detector


class SACTCheckpointer(DetectionCheckpointer):
    """DetectionCheckpointer for detectors of this project.

    * Reads our classifier files and detector checkpoints, with torch.load(weights_only=True) alone.
    * Everything in the file must fit the model and everything in the model must be in the file, except: parts that a
      classifier cannot have (RPN, box predictor), parts that the file says its source lacked, and halting branches
      (two-stage training from a plain network). Those start fresh and are listed. A box predictor for other classes
      starts fresh too, in training.
    * Saves to a temporary name and renames, so that a full disk costs no existing checkpoint.

    Args:
        evaluate: the weights must be complete; nothing may start fresh.
        (the others as in DetectionCheckpointer)
    """

    def __init__(self, model: torch.nn.Module, save_dir: str = "", *, evaluate: bool = False, **kwargs: Any):
        super().__init__(model, save_dir, **kwargs)
        self._evaluate = evaluate
        self._path = ""

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads `path` ("" loads nothing). Raises InputError if the file is missing, broken or does not fit."""
        if path:
            self._path = path
            local = self.path_manager.get_local_path(path) if "://" in path else path
            if not Path(local).is_file():
                raise InputError(f"{path}: no such weight file")
        elif self._evaluate:
            raise InputError("MODEL.WEIGHTS is empty: evaluation needs trained weights")
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, Any]:
        return load_torch(filename)

    def _load_model(self, checkpoint: dict[str, Any]) -> None:
        state_dict, metadata = unwrap(checkpoint)
        missing_at_source = tuple(f"{part}." for part in metadata.get("missing", ()))
        if is_classifier(state_dict):
            self._check_architecture(metadata)
            missing_at_source = tuple(to_detector(dict.fromkeys(missing_at_source, torch.empty(0))))
            state_dict = to_detector(state_dict)
        model_state = self.model.state_dict()

        other_classes = [
            name
            for name in state_dict
            if name.startswith("roi_heads.box_predictor.")
            and name in model_state
            and state_dict[name].shape != model_state[name].shape
        ]
        for name in [] if self._evaluate else other_classes:
            del state_dict[name]
        misfits = [
            f"{name} is {list(value.shape)}, the model's {list(model_state[name].shape)}"
            for name, value in state_dict.items()
            if name in model_state and value.shape != model_state[name].shape
        ]
        counters = "num_batches_tracked"  # learning norms have it, frozen ones do not
        unexpected = [n for n in state_dict if n not in model_state and not n.endswith(counters)]
        fresh = [n for n in model_state if n not in state_dict and not n.endswith(counters)]
        allowed = (*_DETECTOR_ONLY, *missing_at_source)
        missing = [n for n in fresh if self._evaluate or not (n.startswith(allowed) or _HALTING in n)]
        for what, names in (
            ("shapes differ", misfits),
            ("not in the model", unexpected),
            ("not in the file", missing),
        ):
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise InputError(
                    f"{self._path}: weights of another architecture than the config's (MODEL.SACT, number of "
                    f"classes): {what}: {names[0]}{more}"
                )
        if fresh:
            parts = sorted({re.sub(r"\.[^.]+$", "", name) for name in fresh})
            logger.info("Starting fresh, because %s has no values for them: %s", self._path, ", ".join(parts))
        self.model.load_state_dict(state_dict, strict=False)

    def _check_architecture(self, metadata: dict[str, Any]) -> None:
        """The file's own description against the model's, where shapes could not tell the difference."""
        spec = self.model.backbone.spec
        for key in ("units", "base_channels", "dilation"):
            wanted, found = getattr(spec, key), metadata.get(key)
            found = tuple(found) if isinstance(found, list) else found  # json has no tuples
            if found is not None and found != wanted:
                raise InputError(
                    f"{self._path}: weights of another architecture: they need MODEL.SACT.{key.upper()} {found}, "
                    f"the config has {wanted}"
                )

    def save(self, name: str, **kwargs: Any) -> None:
        """Saves model and checkpointables as `name`.pth in the save folder. Raises OSError if it cannot be written."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **kwargs}
        data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()})
        path = Path(self.save_dir) / f"{name}.pth"
        logger.info("Saving checkpoint to %s", path)
        write_torch(path, data)
        self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Notes which checkpoint is the last."""
        with replacing(Path(self.save_dir) / "last_checkpoint") as temporary:
            temporary.write_text(last_filename_basename)
