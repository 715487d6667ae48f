"""What no check of a config can know: divergence, too little memory, parts that cannot be built."""

import logging

import pytest
import torch
from command_lines import ROOT
from labelled_folders import write_class_folders
from short_trainings import train

from sact_det.base.errors import InputError
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.failures import built, sizes_fit
from sact_det.engine.trainer import check_expected_results
from sact_det.tasks import load_config

CLASSIFIER, DETECTOR = (str(ROOT / f"configs/tests/{name}.yaml") for name in ("tiny_classifier", "tiny"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_class_folders(tmp_path_factory.mktemp("data") / "classes", per_class=2)


def classifier(data, output, *options):
    words = ("DATASETS.CLASSIFICATION", str([("toy", data)]), "DATASETS.TRAIN", "('toy',)", "OUTPUT_DIR", str(output))
    return load_config(CLASSIFIER, [*words, *map(str, options)])


def test_a_training_that_diverges_names_step_checkpoint_and_what_to_lower(data, tmp_path):
    cfg = classifier(
        data, tmp_path / "out", "SOLVER.BASE_LR", 1e30, "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_ITER", 9
    )
    with pytest.raises(InputError) as error:
        train(ClassificationTrainer, cfg)
    message = str(error.value)
    assert (
        message.startswith("training diverged in step ")
        and "lower SOLVER.BASE_LR 1e+30, raise SOLVER.WARMUP_" in message
    )
    kept = sorted((tmp_path / "out").glob("*.pth"))
    for path in kept:
        assert all(value.isfinite().all() for value in torch.load(path, weights_only=True)["model"].values())
    last = f"the last good checkpoint is {kept[-1]};" if kept else "there is no good checkpoint;"
    assert last in message


def test_weights_that_are_not_finite_never_become_a_checkpoint(data, tmp_path):
    cfg = classifier(data, tmp_path)
    trainer = ClassificationTrainer(cfg)
    trainer.checkpointer.save("good")
    with torch.no_grad():
        trainer.model.logits.bias[1] = float("nan")
    with pytest.raises(FloatingPointError, match=r"logits\.bias holds NaN or infinite values"):
        trainer.checkpointer.save("bad")
    assert [path.name for path in tmp_path.glob("*.pth")] == ["good.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "good.pth"


def test_a_step_that_does_not_fit_into_memory_names_the_sizes(data, tmp_path, monkeypatch):
    trainer = ClassificationTrainer(classifier(data, tmp_path))
    monkeypatch.setattr(trainer.model, "preprocess", lambda batch: torch.empty(2**50))
    with pytest.raises(InputError) as error:
        trainer.train()
    said = "out of memory: a step of the training takes more than there is; lower SOLVER.IMS_PER_BATCH 4, INPUT.CLASS"
    assert str(error.value).startswith(said) and "INPUT.CLASSIFICATION.SIZE_TRAIN 48 (" in str(error.value)


def test_sizes_are_named_for_memory_alone():
    cfg = load_config(CLASSIFIER)
    with pytest.raises(InputError) as error, sizes_fit(cfg, "it", ["SEED"]):
        raise MemoryError
    assert str(error.value) == "out of memory: it takes more than there is; lower SEED 0 (MemoryError)"
    with pytest.raises(ZeroDivisionError), sizes_fit(cfg, "it", ["SEED"]):
        1 / 0  # noqa: B018


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AssertionError("few anchors"), "the model cannot be built from this config: few anchors"),
        (TypeError("no such argument"), "the model cannot be built from this config: TypeError: no such argument"),
        (InputError("KEY must be 1"), "KEY must be 1"),
    ],
)
def test_what_only_the_building_finds_is_named(error, said):
    with pytest.raises(InputError) as raised, built("the model"):
        raise error
    assert str(raised.value) == said


@pytest.mark.parametrize("config", [CLASSIFIER, DETECTOR])
def test_a_halting_norm_is_not_frozen_before_it_has_statistics(config, tmp_path):
    trainer = ClassificationTrainer if config == CLASSIFIER else DetectionTrainer
    options = ["OUTPUT_DIR", str(tmp_path), "MODEL.SACT.HALTING_NORM"]
    frozen, learning = (trainer.build_model(load_config(config, [*options, norm])) for norm in ("FrozenBN", "BN"))
    message = r"HALTING_NORM FrozenBN: \S+\.halting\.\S+ starts fresh \(.*\), and a norm without statistics must not"
    with pytest.raises(InputError, match=rf"^MODEL\.SACT\.{message}"):
        trainer.checkpointer_class(frozen).load("")
    plain = {name: value for name, value in learning.state_dict().items() if ".halting." not in name}
    torch.save({"model": plain}, tmp_path / "plain.pth")
    with pytest.raises(InputError, match=rf"^MODEL\.SACT\.{message}"):
        trainer.checkpointer_class(frozen).load(str(tmp_path / "plain.pth"))
    torch.save({"model": learning.state_dict()}, tmp_path / "whole.pth")
    trainer.checkpointer_class(frozen).load(str(tmp_path / "whole.pth"))
    trainer.checkpointer_class(learning).load("")


def test_steps_that_a_training_does_not_reach_are_warned_of(data, tmp_path, caplog):
    cfg = classifier(data, tmp_path, "SOLVER.MAX_ITER", 4, "SOLVER.STEPS", "(2, 4, 9)", "SOLVER.GAMMA", 0.5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], cfg.SOLVER.BASE_LR)
    with caplog.at_level(logging.WARNING, "sact_det"):
        scheduler = ClassificationTrainer.build_lr_scheduler(cfg, optimizer)
    assert "SOLVER.STEPS (4, 9): MAX_ITER 4 comes first" in caplog.text
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.05, 0.05, 0.025, 0.025])


def test_what_is_scaled_to_nothing_is_refused(data, tmp_path, monkeypatch):
    cfg = classifier(data, tmp_path, "SOLVER.REFERENCE_WORLD_SIZE", 1, "SOLVER.MAX_ITER", 1)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 4)
    with pytest.raises(InputError, match=r"^SOLVER\.MAX_ITER must be an integer, 1 or more; got 0$"):
        ClassificationTrainer(cfg)


def test_results_other_than_expected_end_a_run():
    rows = "[['classification', 'accuracy', 50.0, 0.5]]"
    cfg = load_config(CLASSIFIER, ["TEST.EXPECTED_RESULTS", rows])
    check_expected_results(cfg, {"classification": {"accuracy": 50.4}})
    with pytest.raises(
        InputError, match=r"^TEST.EXPECTED_RESULTS: classification accuracy must be 50.0 to within 0.5;"
    ):
        check_expected_results(cfg, {"classification": {"accuracy": 40.0}})
    for missing in ({}, {"classification": {}}):
        with pytest.raises(InputError, match="there is none"):
            check_expected_results(cfg, missing)
