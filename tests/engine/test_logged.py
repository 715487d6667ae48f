"""The numbers of a step are read when its backward pass has been run, in one copy, and belong to that step."""

import pytest
import torch

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
from detectron2.utils.events import EventStorage

from sact_det.benchmark.gpu.waits import HostReads
from sact_det.engine.logged import log_after_backward


def test_values_come_with_the_backward_pass_under_the_step_that_made_them():
    weight = torch.ones(3, requires_grad=True)
    with EventStorage(7) as storage:
        loss = (weight**2).sum()
        log_after_backward({"a": loss, "b": torch.tensor(2)}, loss)
        assert storage.latest() == {}
        storage.step()
        (loss + 1).backward()
        assert storage.latest() == {"a": (3.0, 7), "b": (2.0, 7)}


@pytest.mark.parametrize("loss", [None, torch.tensor(1.0)])
def test_without_a_gradient_they_come_at_once(loss):
    with EventStorage(2) as storage:
        log_after_backward({"a": torch.tensor(0.1, dtype=torch.float64)}, loss)
        assert storage.latest() == {"a": (0.1, 2)}


def test_nothing_is_read_before_the_backward_pass_and_then_a_single_vector():
    weight = torch.ones(3, requires_grad=True)
    with EventStorage(0):
        with HostReads() as forward:
            loss = (weight**2).sum()
            log_after_backward(dict.fromkeys("abcdefg", loss), loss)
        assert not forward.counts
        loss.backward()


def test_a_backward_pass_within_a_backward_pass_logs_too():
    weight = torch.ones(3, requires_grad=True)
    with EventStorage(0) as storage:
        loss = torch.utils.checkpoint.checkpoint(lambda w: (w**2).sum(), weight, use_reentrant=True)
        log_after_backward({"a": loss}, loss)
        loss.backward()
        assert storage.latest()["a"] == (3.0, 0)
