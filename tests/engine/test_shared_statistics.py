"""Norms "BN" in two processes: both have one set of moving statistics, which is saved, evaluated and gone on with."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm
from labelled_folders import write_class_folders
from short_trainings import final_weights
from tiny_classifier import config
from torch import nn
from torch.multiprocessing import ProcessExitedException

from sact_det.classification.checkpoint import ClassifierCheckpointer
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.engine.launch import launch
from sact_det.engine.shared_statistics import average_statistics
from sact_det.network.norm import BatchNorm2d, SyncBatchNorm2d

OPTIONS = ("SOLVER.MAX_ITER", 5, "SOLVER.CHECKPOINT_PERIOD", 3, "MODEL.SACT.NORM_DECAY", 0.7)


class KillOne(HookBase):
    """Kills the second process behind the fourth step, without a warning."""

    def after_step(self) -> None:
        if self.trainer.iter == 3 and comm.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def train(data: str, output: Path, *hooks: HookBase, resume: bool = False) -> nn.Module:
    """Trains, evaluates behind the last step, and returns this process's model."""
    torch.set_num_threads(1)
    torch.manual_seed(comm.get_rank())  # nothing may depend on it: weights are the first process's
    output.mkdir(exist_ok=True)
    trainer = ClassificationTrainer(config(data, *OPTIONS, "OUTPUT_DIR", output))
    trainer.resume_or_load(resume=resume)
    trainer.register_hooks([*hooks])
    trainer.train()
    return trainer.model.module


def train_and_be_killed(data: str, output: Path) -> None:
    train(data, output, KillOne())


def go_on_and_compare(data: str, folder: Path) -> None:
    for name, resume in (("killed", True), ("whole", False)):
        model = train(data, folder / name, resume=resume)
        torch.save(model.state_dict(), folder / name / f"of_{comm.get_rank()}.pt")
    cfg = config(data, "MODEL.WEIGHTS", folder / "whole/model_final.pth", "OUTPUT_DIR", folder / "evaluated")
    model = ClassificationTrainer.build_model(cfg)
    ClassifierCheckpointer(model, evaluate=True).load(cfg.MODEL.WEIGHTS)
    ClassificationTrainer.test(cfg, model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes: "whole", "killed" (and gone on with), and "evaluated", what "whole" ended with."""
    folder = tmp_path_factory.mktemp("processes")
    data = write_class_folders(folder / "data")
    with pytest.raises(ProcessExitedException, match="process 1 terminated with signal SIGKILL"):
        launch(train_and_be_killed, 2, dist_url="auto", args=(data, folder / "killed"))
    assert (folder / "killed/last_checkpoint").read_text() == "model_0000002.pth"
    launch(go_on_and_compare, 2, dist_url="auto", args=(data, folder))
    return folder


def test_two_processes_killed_and_resumed_equal_two_uninterrupted(folder: Path):
    whole, resumed = final_weights(folder / "whole"), final_weights(folder / "killed")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_both_processes_have_the_network_that_is_saved(folder: Path):
    saved = final_weights(folder / "whole")
    for rank in range(2):
        own = torch.load(folder / f"whole/of_{rank}.pt")
        assert all(torch.equal(value, own[name]) for name, value in saved.items())


def test_an_evaluation_during_training_is_that_of_the_checkpoint(folder: Path):
    during, after = (
        json.loads((folder / f"{name}/inference/toy/classification.json").read_text())
        for name in ("whole", "evaluated")
    )
    assert during["images"] == after["images"] and during["summary"] == after["summary"]


def average_two(rank: int, store: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    norms = nn.ModuleList([BatchNorm2d(2), nn.BatchNorm2d(3), SyncBatchNorm2d(2), nn.BatchNorm2d(1).eval()])
    for number, norm in enumerate(norms):
        norm.running_mean.fill_(number + rank)
        norm.running_var.fill_(number + 3 * rank)
    calls = []
    all_reduce = dist.all_reduce
    dist.all_reduce = lambda *arguments: calls.append(all_reduce(*arguments))
    average_statistics(norms)
    found = [(norm.running_mean.unique().item(), norm.running_var.unique().item()) for norm in norms]
    untouched = [(2.0 + rank, 2.0 + 3 * rank), (3.0 + rank, 3.0 + 3 * rank)]  # SyncBN's are equal; one is in evaluation
    assert found == [(0.5, 1.5), (1.5, 2.5), *untouched] and len(calls) == 1
    dist.destroy_process_group()


def test_all_statistics_are_averaged_in_one_collective(tmp_path: Path):
    torch.multiprocessing.spawn(average_two, (tmp_path / "store",), nprocs=2)
