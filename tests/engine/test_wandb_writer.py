"""What goes to wandb, with a stand-in for the package, which talks to a service."""

import json
import sys
from types import SimpleNamespace

import pytest
import short_trainings
from labelled_folders import write_class_folders
from tiny_classifier import config

from sact_det.base.errors import InputError
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.engine import config_checks


class Service:
    """Takes the calls of wandb.init, Run.log and Run.finish."""

    def __init__(self):
        self.started, self.logged, self.finished = [], [], 0

    def init(self, **arguments):
        self.started.append(arguments)
        return SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, values, step):
        assert not self.logged or step > self.logged[-1][0]
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


def test_a_run_has_the_config_and_goes_on_after_a_resumption(tmp_path, monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    monkeypatch.setattr(config_checks, "find_spec", lambda name: name)
    data = write_class_folders(tmp_path / "data", per_class=2)
    for steps in (20, 25):
        options = ("SOLVER.MAX_ITER", steps, "OUTPUT_DIR", tmp_path / "run", "DATASETS.TEST", "()")
        cfg = config(data, *options, "WANDB.PROJECT", "halting", "SOLVER.CHECKPOINT_PERIOD", 100)
        short_trainings.train(ClassificationTrainer, cfg, resume=steps == 25)
    first, second = service.started
    assert (first["project"], first["name"], first["resume"]) == ("halting", "run", "allow")
    assert first["id"] == second["id"] and first["config"]["MODEL"]["SACT"]["TAU"] == cfg.MODEL.SACT.TAU
    assert service.finished == 2
    written = {
        line["iteration"]: line for line in map(json.loads, (tmp_path / "run/metrics.json").read_text().splitlines())
    }
    logged = dict(service.logged)
    assert {19, 24} <= logged.keys() & written.keys()
    for step in (19, 24):
        assert logged[step]["total_loss"] == pytest.approx(written[step]["total_loss"])


def test_without_the_package_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(config_checks, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"WANDB\.PROJECT 'halting' needs wandb: pip install wandb"):
        config_checks.check_training(config(None, "WANDB.PROJECT", "halting"))
