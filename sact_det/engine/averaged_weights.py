"""Moving averages of a training's weights: they are evaluated and saved, and what learns goes on unaveraged."""

import contextlib
from typing import Any, Callable, Iterator, Mapping

import torch
from detectron2.engine.hooks import CallbackHook
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.weights.values import check_values

UNAVERAGED = "unaveraged"  # their key in a checkpoint, whose "model" are the averages


class AveragedWeights:
    """w_avg <- d w_avg + (1 - d) w behind every step n (from 0), with d = min(decay, (1 + n) / (10 + n)).

    That is TensorFlow's ExponentialMovingAverage with the number of updates: the first steps of a training do not stay
    in the average for long. Averaged are all parameters that learn, and the moving statistics of norms with them.

    Its `hook` stands before those that evaluate and save. A checkpoint has the averages under "model", where everything
    that reads weights finds them, and what learns under "unaveraged"; with both a training goes on as if it had never
    stopped.

    Args:
        model: whose weights are averaged; without DistributedDataParallel's wrapper.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        self._decay = decay
        self._model = model
        learn = {name for name, value in model.named_parameters() if value.requires_grad}
        learn |= {name for name, _ in model.named_buffers()}
        state_dict = model.state_dict()
        self._names = [name for name, value in state_dict.items() if name in learn and value.is_floating_point()]
        self._averages: dict[str, Tensor] = {}

    @property
    def _learning(self) -> dict[str, Tensor]:
        """The tensors themselves, as they are now: Detectron2 puts new ones into the places of some buffers."""
        state_dict = self._model.state_dict()
        return {name: state_dict[name] for name in self._names}

    def hook(self) -> CallbackHook:
        """What keeps the averages up in a training."""
        # No hook itself: a trainer would save its state once more.
        return CallbackHook(before_train=lambda _: self._begin(), after_step=lambda trainer: self._update(trainer.iter))

    def _begin(self) -> None:
        if not self._averages:  # of a checkpoint otherwise
            self._averages = {name: value.detach().clone() for name, value in self._learning.items()}

    @torch.no_grad()
    def _update(self, step: int) -> None:
        keep = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self._averages.values()), list(self._learning.values()), 1 - keep)

    def averaged(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's state dict with the averages in their places."""
        return {**state_dict, **self._averages}

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model has its averages for a while."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def during(self, run: Callable[[], Any]) -> Callable[[], Any]:
        """A function that runs while the model has its averages."""

        def with_averages() -> Any:
            with self.applied():
                return run()

        return with_averages

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, learning in self._learning.items():
            average = self._averages[name]
            kept = learning.clone()
            learning.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """What learns, without the averages: those are the checkpoint's model."""
        return self._learning

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """What learns; the model has the averages of the same checkpoint. Raises InputError if it does not fit."""
        learning = self._learning
        wanted = {name: value.shape for name, value in learning.items()}
        if {name: value.shape for name, value in state_dict.items()} != wanted:
            raise InputError(
                f"the run in OUTPUT_DIR has other {UNAVERAGED} weights than the config's model: other parameters learn"
            )
        self._averages = {name: value.clone() for name, value in learning.items()}
        for name, value in state_dict.items():
            check_values(f"the checkpoint in OUTPUT_DIR: {UNAVERAGED} {name}", value)
            learning[name].copy_(value)
