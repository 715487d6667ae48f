"""One step of a training: its images in parts, its products in 16 bits where that is asked for."""

import contextlib
import time
from contextlib import AbstractContextManager
from typing import Any, Mapping, Optional

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from typing_extensions import override

from sact_det.data.stream import derived_seed
from sact_det.engine.divergence import check_losses


class Step(SimpleTrainer):
    """Detectron2's SimpleTrainer and AMPTrainer in one, whose gradients may be accumulated.

    A step in k parts has the images, seeds and gradients that k times as many processes have: part p of process r of w
    is what process r + w p of w k sees, and gradients are means over the parts, as they are over processes. Losses that
    are means over images have the gradients of the whole batch; those that are means over what is sampled or found (of
    boxes, masks) likewise, where all parts have as much of it. Norms that learn statistics see part by part.

    All processes leave the training together when a loss is not finite. In 16 bits, gradients that overflow are no
    divergence: their steps are left out, their scale shrinks.

    Args:
        model, data_loader, optimizer: as of SimpleTrainer.
        parts: k; one part is in memory at a time. It divides the images of a process.
        seed: of what the model draws (anchors, proposals): a function of seed, process, part and iteration; below 0 it
            is drawn as it comes.
        amp: whether products are float16 on a GPU.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: DataLoader,
        optimizer: torch.optim.Optimizer,
        *,
        parts: int = 1,
        seed: int = -1,
        amp: bool = False,
    ):
        super().__init__(model, data_loader, optimizer)
        self._parts, self._seed = parts, seed
        self.grad_scaler: Optional[torch.amp.GradScaler] = torch.amp.GradScaler("cuda") if amp else None

    @override
    def run_step(self) -> None:
        start = time.perf_counter()
        images = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        means: dict[str, Tensor] = {}
        for part in range(self._parts):
            self._seed_part(part)
            with self._gradients_stay(part):
                losses = self._backward(images[part :: self._parts])
            for name, loss in losses.items():
                means[name] = means.get(name, 0) + loss.detach() / self._parts
        self.after_backward()
        self._write_metrics(means, data_time)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    def _seed_part(self, part: int) -> None:
        if self._seed >= 0:
            torch.manual_seed(derived_seed(self._seed, comm.get_rank() + part * comm.get_world_size(), self.iter))

    def _gradients_stay(self, part: int) -> AbstractContextManager[Any]:
        """Processes add up their gradients behind the last part."""
        is_last = part == self._parts - 1
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) and not is_last else _NOTHING

    def _backward(self, images: list[dict[str, Any]]) -> Mapping[str, Tensor]:
        """Adds a part's gradients; returns its losses."""
        with torch.autocast("cuda", torch.float16) if self.grad_scaler is not None else _NOTHING:
            losses = self.model(images)
            total = sum(losses.values()) / self._parts
        (total if self.grad_scaler is None else self.grad_scaler.scale(total)).backward()
        return losses

    @override
    def _write_metrics(self, loss_dict: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> None:
        check_losses(loss_dict)
        super()._write_metrics(loss_dict, *args, **kwargs)

    @override
    def state_dict(self) -> dict[str, Any]:
        scaler = {} if self.grad_scaler is None else {"grad_scaler": self.grad_scaler.state_dict()}
        return {**super().state_dict(), **scaler}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self.grad_scaler is not None:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


_NOTHING = contextlib.nullcontext()
