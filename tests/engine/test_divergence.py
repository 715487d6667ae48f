"""A training whose losses or weights are no finite numbers ends in one line, in every process, and saves none."""

import json
import math

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from labelled_folders import write_class_folders
from tiny_classifier import config

from sact_det.base.errors import InputError
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.engine.divergence import check_losses, check_weights
from sact_det.engine.launch import launch


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_class_folders(tmp_path_factory.mktemp("toy") / "data", per_class=2)


def configured(data, output, *options):
    return config(data, "DATASETS.TEST", "()", "OUTPUT_DIR", output, "SOLVER.CHECKPOINT_PERIOD", 2, *options)


def train(data, output, *options, hook=None):
    cfg = configured(data, output, *options)
    torch.manual_seed(0)
    output.mkdir(exist_ok=True)
    trainer = ClassificationTrainer(cfg)
    if hook is not None:
        trainer._hooks.insert(0, hook)  # before the checkpointer
        hook.trainer = trainer
    trainer.train()


def test_what_is_not_finite_is_named():
    check_losses({"a": torch.tensor(1.0), "b": torch.tensor(-2.0, dtype=torch.bfloat16)})
    check_weights({"a": torch.ones(2), "steps": torch.tensor(3)})
    with pytest.raises(FloatingPointError, match=r"^a is -inf, c is nan$"):
        check_losses({"c": torch.tensor(math.nan), "b": torch.tensor(1.0), "a": torch.tensor(-math.inf)})
    with pytest.raises(FloatingPointError, match=r"^b and 1 more holds NaN or infinite values$"):
        check_weights({"a": torch.ones(2), "b": torch.tensor([1.0, math.nan]), "c": torch.tensor(math.inf).half()})


class Spoil(HookBase):
    """Puts a NaN into a weight or a buffer behind a step, where no loss shows it."""

    def __init__(self, step, name):
        self._step, self._name = step, name

    def after_step(self):
        if self.trainer.iter == self._step:
            self.trainer.checkpointer.model.state_dict()[self._name].view(-1)[-1] = math.nan


@pytest.mark.parametrize("max_iter", [9, 4], ids=["in the middle", "behind the last step"])
@pytest.mark.parametrize("name", ["logits.bias", "block1.units.0.norm1.running_var"])
def test_weights_that_are_not_finite_replace_no_checkpoint(data, tmp_path, max_iter, name):
    output = tmp_path / "run"
    with pytest.raises(InputError) as caught:
        train(data, output, "SOLVER.MAX_ITER", max_iter, hook=Spoil(3, name))
    last = output / "model_0000001.pth"
    message = str(caught.value)
    assert message.startswith(f"training diverged in step 3: the last good checkpoint is {last}; lower SOLVER.BASE_LR")
    assert message.endswith(f"({name} holds NaN or infinite values)")
    assert (output / "last_checkpoint").read_text() == last.name
    assert [path.name for path in output.glob("*.pth")] == [last.name]


def test_a_training_that_breaks_off_in_its_last_step_is_not_evaluated(data, tmp_path):
    options = ("DATASETS.TEST", "('toy',)", "SOLVER.BASE_LR", 1e30, "SOLVER.WARMUP_ITERS", 0, "SOLVER.MAX_ITER", 2)
    with pytest.raises(InputError, match="in step 1"):
        train(data, tmp_path / "run", *options)
    assert not (tmp_path / "run/inference").exists()


@pytest.mark.parametrize("steps", [1, 2])
def test_a_training_of_fewer_steps_than_are_timed_ends_well_and_is_evaluated_behind_them(data, tmp_path, steps):
    train(data, tmp_path / "run", "DATASETS.TEST", "('toy',)", "SOLVER.MAX_ITER", steps)
    assert (tmp_path / "run/model_final.pth").exists()
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    assert [row["iteration"] for row in rows if "classification/accuracy" in row] == [steps]


def spoil_one_process(folder):
    """In one of two processes, a loss is NaN in step 2; both write down how they end."""
    trainer = ClassificationTrainer(configured(folder / "data", folder / "run", "SOLVER.MAX_ITER", 9))
    forward = trainer._trainer.model.forward

    def spoilt(batch):
        spoil = trainer.iter == 2 and comm.get_rank() == 1
        return {name: loss * math.nan if spoil else loss for name, loss in forward(batch).items()}

    trainer._trainer.model.forward = spoilt
    try:
        trainer.train()
    except InputError as error:
        (folder / f"{comm.get_rank()}.json").write_text(json.dumps(str(error)))
    comm.synchronize()


def test_all_processes_end_when_a_loss_of_one_is_not_finite(tmp_path):
    write_class_folders(tmp_path / "data", per_class=2)
    (tmp_path / "run").mkdir()
    launch(spoil_one_process, 2, dist_url="auto", args=(tmp_path,))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first.startswith("training diverged in step 2: ") and first.endswith("(loss_cls is nan, loss_ponder is nan)")
