"""SOLVER.EMA_DECAY: averages are evaluated and saved; what learns, and how a killed run goes on, stays as it was."""

import signal
from pathlib import Path

import pytest
import short_trainings
import torch
from labelled_folders import write_class_folders
from short_trainings import final_weights
from tiny_classifier import config
from torch import multiprocessing

from sact_det.base.errors import InputError
from sact_det.classification.checkpoint import ClassifierCheckpointer
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.engine.averaged_weights import UNAVERAGED

DECAY, STEPS = 0.3, 5  # min(0.3, (1 + n) / (10 + n)) is the latter for three steps


def train(data, output, *options, **how):
    cfg = config(data, "SOLVER.MAX_ITER", STEPS, "SOLVER.CHECKPOINT_PERIOD", 1, "OUTPUT_DIR", output, *options)
    short_trainings.train(ClassificationTrainer, cfg, **how)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_class_folders(tmp_path_factory.mktemp("toy") / "data", per_class=2)


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory) -> Path:
    """A training without averages, and a checkpoint of every step."""
    train(data, output := tmp_path_factory.mktemp("plain"))
    return output


@pytest.fixture(scope="module")
def averaged(data, tmp_path_factory) -> Path:
    train(data, output := tmp_path_factory.mktemp("averaged"), "SOLVER.EMA_DECAY", DECAY)
    return output


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_checkpoints_hold_the_averages_of_what_the_same_training_without_them_learns(data, plain, averaged):
    torch.manual_seed(0)
    average = {
        name: value.double() for name, value in ClassificationTrainer.build_model(config(data)).state_dict().items()
    }
    for step in range(STEPS):
        name = f"model_{step:07d}.pth" if step < STEPS - 1 else "model_final.pth"
        learned, found = read(plain / name)["model"], read(averaged / name)
        keep = min(DECAY, (1 + step) / (10 + step))
        for key, value in learned.items():
            if value.is_floating_point():
                average[key] = keep * average[key] + (1 - keep) * value.double()
                torch.testing.assert_close(found["model"][key].double(), average[key], rtol=1e-5, atol=1e-7)
                assert torch.equal(found[UNAVERAGED].get(key, found["model"][key]), value), key
            else:
                assert torch.equal(found["model"][key], value), key


def test_a_run_killed_and_resumed_equals_an_uninterrupted_one(data, averaged, tmp_path):
    options = ("SOLVER.EMA_DECAY", DECAY)
    killed = multiprocessing.get_context("fork").Process(
        target=train, args=(data, tmp_path / "run", *options), kwargs={"kill_at": 2}
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    train(data, tmp_path / "run", *options, resume=True)
    whole, resumed = read(averaged / "model_final.pth"), read(tmp_path / "run/model_final.pth")
    for part in ("model", UNAVERAGED):
        assert whole[part].keys() == resumed[part].keys()
        for name, value in whole[part].items():
            assert torch.equal(value, resumed[part][name]), name


def test_the_averages_are_what_is_evaluated(data, averaged, tmp_path, monkeypatch):
    seen, test = [], ClassificationTrainer.test.__func__

    def noting(cls, cfg, model, evaluators=None):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return test(cls, cfg, model, evaluators)

    monkeypatch.setattr(ClassificationTrainer, "test", classmethod(noting))
    train(data, tmp_path / "run", "SOLVER.EMA_DECAY", DECAY, "TEST.EVAL_PERIOD", 2)
    assert len(seen) == 3  # two steps, four, and all
    for state, name in zip(seen, ("model_0000001", "model_0000003", "model_final")):
        expected = read(tmp_path / f"run/{name}.pth")["model"]
        assert all(torch.equal(state[key], value) for key, value in expected.items())
    # Evaluations in between change nothing of what is learned.
    whole, run = final_weights(averaged), final_weights(tmp_path / "run")
    assert all(torch.equal(value, run[name]) for name, value in whole.items())


def test_a_run_goes_on_as_it_was_begun(data, plain, averaged):
    for output, decay, begun in ((plain, DECAY, "without"), (averaged, 0, "with")):
        cfg = config(data, "OUTPUT_DIR", output, "SOLVER.EMA_DECAY", decay)
        with pytest.raises(InputError, match=rf"begun {begun} SOLVER\.EMA_DECAY"):
            ClassificationTrainer(cfg).resume_or_load(resume=True)


def test_everything_that_reads_weights_finds_the_averages(data, averaged):
    model = ClassificationTrainer.build_model(config(data))
    ClassifierCheckpointer(model, evaluate=True).load(str(averaged / "model_final.pth"))
    saved = read(averaged / "model_final.pth")
    assert all(torch.equal(value, saved["model"][name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, saved["model"][name]) for name, value in saved[UNAVERAGED].items())
