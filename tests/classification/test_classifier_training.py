"""Runs of the real trainer: repeatable when killed and resumed, when split over processes; what may start them."""

import json
import logging
import signal
import time

import pytest
import short_trainings
import torch
from detectron2.modeling import build_model
from detectron2.utils import comm
from filled_modules import filled
from labelled_folders import write_class_folders
from short_trainings import IN_KERNELS, NEEDS_KERNELS, count_runs_in_kernels, final_weights, fresh_parts
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_classifier import config
from torch import multiprocessing

from sact_det import build_classifier
from sact_det.base.errors import InputError
from sact_det.classification.checkpoint import ClassifierCheckpointer
from sact_det.classification.trainer import ClassificationTrainer
from sact_det.engine.launch import launch
from sact_det.weights.weight_file import load_weights, save_weights


def train(data, output, options=(), family="imagenet", **how):
    cfg = config(data, "DATASETS.TEST", "()", "OUTPUT_DIR", output, *options, family=family)
    short_trainings.train(ClassificationTrainer, cfg, **how)
    comm.synchronize()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_class_folders(tmp_path_factory.mktemp("toy") / "data")


PER_IMAGE = (*IN_KERNELS, "MODEL.SACT.BUDGET_TRAINING_PER", "image", "MODEL.SACT.BUDGET_TRAINING_DRAWS")
PRICES = (*PER_IMAGE, "tau", "MODEL.SACT.BUDGET_TRAINING", "(0.001, 0.1)")
BUDGETS = (*PER_IMAGE, "budget", "MODEL.SACT.BUDGET_TRAINING", "(0.5, 1.0)")


@pytest.mark.parametrize(
    "execution, threads",
    [
        (("MODEL.SACT.EXECUTION", "dense"), 1),
        pytest.param(IN_KERNELS, 2, marks=NEEDS_KERNELS),
        pytest.param(PRICES, 2, marks=NEEDS_KERNELS),
        pytest.param(BUDGETS, 2, marks=NEEDS_KERNELS),
    ],
    ids=["dense", "kernels", "drawn prices", "drawn budgets"],
)
def test_a_run_killed_and_resumed_equals_an_uninterrupted_one(data, tmp_path, monkeypatch, execution, threads):
    in_kernels = count_runs_in_kernels(monkeypatch)
    options = ("SOLVER.MAX_ITER", 5, "SOLVER.CHECKPOINT_PERIOD", 2, "DATALOADER.NUM_WORKERS", 2)
    options += execution
    train(data, tmp_path / "whole", options, threads=threads)
    killed = multiprocessing.get_context("spawn").Process(
        target=train, args=(data, tmp_path / "killed", options), kwargs={"kill_at": 2, "threads": threads}
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert (tmp_path / "killed/last_checkpoint").read_text() == "model_0000001.pth"
    train(data, tmp_path / "killed", options, resume=True, threads=threads)

    assert bool(in_kernels) == (execution[: len(IN_KERNELS)] == IN_KERNELS)
    whole, resumed = final_weights(tmp_path / "whole"), final_weights(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def steps_written(output):
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return [line["iteration"] for line in lines]


def steps_shown(output):
    """The steps whose loss TensorBoard shows."""
    events = EventAccumulator(str(output))
    events.Reload()
    return [event.step for event in events.Scalars("total_loss")]


def test_the_records_of_a_run_killed_and_resumed_hold_every_step_once(data, tmp_path):
    output = tmp_path / "run"
    options = ("SOLVER.MAX_ITER", 62, "SOLVER.CHECKPOINT_PERIOD", 25)
    killed = multiprocessing.get_context("spawn").Process(
        target=train, args=(data, output, options), kwargs={"kill_at": 44}
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL and steps_written(output) == [19, 39]
    first = (output / "metrics.json").read_text()
    (tmp_path / "anew").mkdir()
    (tmp_path / "anew/metrics.json").write_text(first)  # as of a run killed before its first checkpoint

    time.sleep(1)  # TensorBoard reads a folder's files in the order of the seconds in their names
    train(data, output, options, resume=True)
    assert steps_written(output) == steps_shown(output) == [19, 39, 59, 61]
    assert (output / "metrics.json").read_text().startswith(first.splitlines()[0])

    for resume, kept in ((True, "metrics.1.json"), (False, "metrics.2.json")):
        before = (tmp_path / "anew/metrics.json").read_text()
        (tmp_path / "anew/last_checkpoint").unlink(missing_ok=True)
        train(data, tmp_path / "anew", ("SOLVER.MAX_ITER", 21), resume=resume)
        assert steps_written(tmp_path / "anew") == [19, 20]
        assert (tmp_path / "anew" / kept).read_text() == before


SYNCHRONIZED = (
    *("SOLVER.MAX_ITER", 1, "SOLVER.IMS_PER_BATCH", 6, "SOLVER.BASE_LR", 0.1, "MODEL.SACT.TAU", 0.5),
    *("MODEL.SACT.NORM", "SyncBN", "MODEL.SACT.HALTING_NORM", "SyncBN"),
)
FAMILIES = ("imagenet", "cifar")


def evaluate(data, output, family):
    """Of a network with the same weights in every process and run."""
    cfg = config(data, "OUTPUT_DIR", output, family=family)
    torch.manual_seed(0)
    ClassificationTrainer.test(cfg, build_model(cfg))


def in_every_process(data, folder):
    for family in FAMILIES:
        output = folder / f"{family}_{comm.get_world_size()}"
        train(data, output, SYNCHRONIZED, family)
        evaluate(data, output, family)
    comm.synchronize()


@pytest.fixture(scope="module")
def processes(data, tmp_path_factory):
    """Folder of a step and an evaluation in one process and in two: FAMILY_1 and FAMILY_2."""
    folder = tmp_path_factory.mktemp("processes")
    in_every_process(data, folder)
    launch(in_every_process, 2, dist_url="auto", args=(data, folder))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_of_two_processes_equal_those_of_one_on_the_same_global_batch(processes, family):
    torch.manual_seed(0)
    start = build_model(config(None, *SYNCHRONIZED, family=family)).state_dict()
    one, two = (final_weights(processes / f"{family}_{number}") for number in (1, 2))
    assert any(not torch.equal(value, start[name]) for name, value in one.items())
    for name, value in one.items():
        # The stem's bias only feeds norms: its true gradient is zero, what moves it is rounding.
        moved = (value - start[name]).abs().max().item() if value.is_floating_point() else 0
        torch.testing.assert_close(
            two[name], value, atol=max(2e-3 * moved, 1e-6), rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_report_what_one_does(processes, family):
    one, two = (
        json.loads((processes / f"{family}_{number}/inference/toy/classification.json").read_text())
        for number in (1, 2)
    )
    assert one["summary"]["images"] == 12 and two["summary"] == pytest.approx(one["summary"], rel=1e-5)
    for row, other in zip(one["images"], two["images"], strict=True):
        keys = ("image_id", "file_name", "label", "top", "flops", "units")
        assert {key: row[key] for key in keys} == {key: other[key] for key in keys}
        assert other["ponder_cost"] == pytest.approx(row["ponder_cost"], rel=1e-5)


def test_only_the_weights_of_convolutions_decay():
    cfg = config(None, "SOLVER.WEIGHT_DECAY", "0.25")
    model = build_model(cfg)
    optimizer = ClassificationTrainer.build_optimizer(cfg, model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[name] == (0.25 if parameter.ndim == 4 else 0), name


def weights_of(halting="sact", num_classes=3, family="imagenet"):
    units = (1, 2, 3, 2) if family == "imagenet" else (2, 2, 2)
    model = build_classifier(units, halting=halting, num_classes=num_classes, base_channels=4, family=family)
    return filled(model).state_dict()


METADATA = {"family": "imagenet", "units": [1, 2, 3, 2], "base_channels": 4, "dilation": [1, 1, 1, 1]}


def load(path, *overrides, evaluate=False, family="imagenet"):
    torch.manual_seed(0)
    model = build_model(config(None, *overrides, family=family))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ClassifierCheckpointer(model, evaluate=evaluate).load(str(path))
    return before, model.state_dict()


@pytest.fixture
def path(tmp_path, caplog):
    caplog.set_level(logging.INFO, "sact_det")
    return tmp_path / "weights.pth"


@pytest.mark.parametrize("family", FAMILIES)
def test_complete_weights_are_loaded_for_training_and_evaluation(path, caplog, family):
    source = weights_of(family=family)
    save_weights(path, source, {"units": list(build_model(config(family=family)).spec.units)})
    for evaluate in (False, True):
        _, loaded = load(path, evaluate=evaluate, family=family)
        assert all(torch.equal(loaded[name], value) for name, value in source.items())
    assert not any("Starting fresh" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("halting", ["act", "sact"])
def test_plain_weights_start_an_adaptive_network_whose_halting_branches_are_fresh_and_listed(
    path, caplog, halting, family
):
    source = weights_of("none", family=family)
    torch.save(source, path)
    before, loaded = load(path, "MODEL.SACT.HALTING", halting, family=family)
    branches = {name for name in loaded if ".halting." in name}
    assert branches and set(loaded) - branches == set(source)
    for name, value in loaded.items():
        assert torch.equal(value, (before if name in branches else source)[name]), name
    assert set(fresh_parts(caplog)) == {name.rpartition(".")[0] for name in branches}
    with pytest.raises(InputError, match="not in the file"):
        load(path, "MODEL.SACT.HALTING", halting, evaluate=True, family=family)


def test_logits_for_other_classes_start_fresh_in_training_alone(path, caplog):
    source = weights_of(num_classes=5)
    torch.save(source, path)
    before, loaded = load(path)
    for name, value in loaded.items():
        assert torch.equal(value, (before if name.startswith("logits.") else source)[name]), name
    assert fresh_parts(caplog) == ["logits"]
    with pytest.raises(InputError, match=r"number of classes\): shapes differ: logits\.weight"):
        load(path, evaluate=True)


def test_what_the_source_lacked_starts_fresh_in_training_alone(path, caplog):
    source = {n: v for n, v in weights_of().items() if not n.startswith(("block4.", "postnorm.", "logits."))}
    missing = sorted({n.rpartition(".")[0] for n in weights_of()} - {n.rpartition(".")[0] for n in source})
    save_weights(path, source, {**METADATA, "missing": missing})
    before, loaded = load(path)
    for name, value in loaded.items():
        assert torch.equal(value, source.get(name, before[name])), name
    assert fresh_parts(caplog) == missing
    with pytest.raises(InputError, match="not in the file: block4"):
        load(path, evaluate=True)
    save_weights(path, source, METADATA)
    with pytest.raises(InputError, match="not in the file: block4"):
        load(path)


@pytest.mark.parametrize(
    ("overrides", "family", "message"),
    [
        (
            ("MODEL.SACT.UNITS", "(1, 2, 4, 2)"),
            "imagenet",
            r"MODEL\.SACT\.UNITS \(1, 2, 3, 2\), the config has \(1, 2, 4",
        ),
        (("MODEL.SACT.BASE_CHANNELS", "8"), "imagenet", r"MODEL\.SACT\.BASE_CHANNELS 4, the config has 8"),
        (("MODEL.SACT.DILATION", "(1, 2, 2, 1)"), "imagenet", r"MODEL\.SACT\.DILATION \(1, 1, 1, 1\), the config has"),
        ((), "cifar", r"MODEL\.CLASSIFIER\.FAMILY imagenet, the config has cifar"),
    ],
)
def test_weights_of_another_architecture_name_the_key_to_change(path, overrides, family, message):
    save_weights(path, weights_of(), METADATA)
    with pytest.raises(InputError, match=message) as error:
        load(path, *overrides, family=family)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_describes_its_network_and_loads_into_a_classifier(data, tmp_path, family):
    train(data, tmp_path, ("SOLVER.MAX_ITER", 1), family)
    state_dict, metadata = load_weights(tmp_path / "model_final.pth")
    cifar = family == "cifar"
    units = (2, 2, 2) if cifar else (1, 2, 3, 2)
    described = {"family": family, "units": units, "base_channels": 4, "halting": "sact", "num_classes": 3}
    assert {**metadata, **described} == metadata
    assert metadata["missing"] == [] and metadata.get("dilation") == (None if cifar else (1, 1, 1, 1))
    build_classifier(units, num_classes=3, base_channels=4, family=family).load_state_dict(state_dict)


def test_a_training_learns_colours(data, tmp_path):
    options = ("SOLVER.MAX_ITER", 60, "SOLVER.IMS_PER_BATCH", 6, "SOLVER.BASE_LR", 0.02, "MODEL.SACT.NORM_DECAY", 0.7)
    train(data, tmp_path, (*options, "INPUT.CLASSIFICATION.AUGMENTATION", "none"))
    weights = ("MODEL.WEIGHTS", tmp_path / "model_final.pth", "OUTPUT_DIR", tmp_path)
    cfg = config(data, *weights)
    model = ClassificationTrainer.build_model(cfg)
    ClassifierCheckpointer(model, evaluate=True).load(cfg.MODEL.WEIGHTS)
    results = ClassificationTrainer.test(cfg, model)
    assert results["classification"]["accuracy"] > 0.9


def test_halting_branches_learn_at_their_own_rate(data, tmp_path):
    cfg = config(data, "SOLVER.BASE_LR", 0.5, "SOLVER.HALTING_LR_FACTOR", 8.0, "OUTPUT_DIR", tmp_path)
    model = build_model(cfg)
    optimizer = ClassificationTrainer.build_optimizer(cfg, model)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: rates.pop(id(p)) for name, p in model.named_parameters() if p.requires_grad}
    assert not rates
    assert {rate for name, rate in found.items() if ".halting." in name} == {4.0}
    assert {rate for name, rate in found.items() if ".halting." not in name} == {0.5}
