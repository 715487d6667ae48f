#!/usr/bin/env python
r"""Trains and evaluates SACT models, detectors and classifiers; the command
line of Detectron2's train_net.py.

Train, and go on where it was interrupted:

    python tools/train_net.py --config-file C --num-gpus 8
    python tools/train_net.py --config-file C --num-gpus 8 --resume

On a CPU, in two processes:

    python tools/train_net.py --config-file C --num-processes 2 \
        MODEL.DEVICE cpu

On two machines, the second with --machine-rank 1; or by torchrun, or
tools/slurm/train.sbatch:

    python tools/train_net.py --config-file C --num-gpus 8 --num-machines 2 \
        --machine-rank 0 --dist-url tcp://FIRST_MACHINE:29500
    torchrun --nproc-per-node 8 tools/train_net.py --config-file C

Evaluate, and at a share of the FLOPs, once tools/calibrate_budget.py has
measured them:

    python tools/train_net.py --config-file C --eval-only \
        MODEL.WEIGHTS output/model_final.pth
    python tools/train_net.py --config-file C --eval-only --budget 0.6 \
        MODEL.WEIGHTS output/model_final.pth

Own data in COCO format, for a detector; folders, one for each class, for a
classifier:

    python tools/train_net.py --config-file configs/own_data/sact_R_50_C4.yaml \
        DATASETS.COCO_FORMAT "[('a', 'train.json', 'images'),
                               ('b', 'val.json', 'images')]" \
        DATASETS.TRAIN "('a',)" DATASETS.TEST "('b',)"
    python tools/train_net.py \
        --config-file configs/ImageNet/sact_R_50_tau_0.005.yaml \
        DATASETS.CLASSIFICATION "[('a', 'data/train'), ('b', 'data/val')]" \
        DATASETS.TRAIN "('a',)" DATASETS.TEST "('b',)" \
        MODEL.CLASSIFIER.NUM_CLASSES 10

DATASETS.VOC_FORMAT and YOLO_FORMAT take folders, [('a', 'folder', 'train')];
sact_det/data/image_sources.py has other layouts of classifiers' data.
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from sact_det.base.command_line import add_budget, add_deadline, deadline_of, with_budget
from sact_det.base.errors import InputError, errors_to_exit_code
from sact_det.base.processes import command_line
from sact_det.base.torchrun import Place, place_by_torchrun, restarts
from sact_det.data import coco_file
from sact_det.data.stream import check_batch_size
from sact_det.engine.config_checks import check_training
from sact_det.engine.console import setup_log
from sact_det.engine.failures import with_others
from sact_det.engine.introduction import introduce_evaluation
from sact_det.engine.launch import check_launch, launch, run_by_torchrun, who_ended
from sact_det.engine.trainer import check_expected_results
from sact_det.tasks import load_config, task_of


def read_config(args: argparse.Namespace) -> CfgNode:
    if args.budget is not None and not args.eval_only:
        raise InputError("--budget is for --eval-only")
    if deadline_of(args) is not None and not args.eval_only:
        raise InputError("--deadline-ms is for --eval-only")
    cfg = load_config(args.config_file, with_budget(args))
    occupied = (Path(cfg.OUTPUT_DIR) / "last_checkpoint").exists()
    if occupied and not args.resume and not args.eval_only:
        raise InputError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR} holds checkpoints of another run: pass --resume to go on with it, "
            "or choose another OUTPUT_DIR"
        )
    if args.eval_only and not cfg.DATASETS.TEST:
        raise InputError("DATASETS.TEST is empty: --eval-only has nothing to evaluate")
    if not args.eval_only:
        check_training(cfg)
    return cfg


def setup(args: argparse.Namespace) -> CfgNode:
    cfg = read_config(args)
    # An evaluation logs and notes its config beside its results, not over those of the training.
    records = cfg.clone()
    records.defrost()
    records.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / "inference") if args.eval_only else cfg.OUTPUT_DIR
    setup_log(records.OUTPUT_DIR, args.verbose)
    default_setup(records, args)
    return cfg


@errors_to_exit_code()
@with_others()
def main(args: argparse.Namespace) -> None:
    """Trains or evaluates, in every process; whatever is wrong ends each of them without a traceback."""
    cfg = setup(args)
    trainer_class = task_of(cfg).trainer
    if args.eval_only:
        model: Any = trainer_class.build_model(cfg)
        checkpointer = trainer_class.checkpointer_class(model, cfg.OUTPUT_DIR, evaluate=True)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        model.deadline = deadline_of(args)
        introduce_evaluation(cfg, model, checkpointer.loaded)
        results = trainer_class.test(cfg, model)
        if comm.is_main_process():
            check_expected_results(cfg, results)
        return
    trainer = trainer_class(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


def main_in_processes(args: argparse.Namespace, num_processes: int) -> None:
    """Runs main in so many processes on this machine: on GPUs or, for --num-processes, on its CPU."""
    cfg = read_config(args)  # what is wrong with it is said once, not by every process
    coco_file.forget()  # the processes read for themselves
    on_gpus = args.num_processes is None and torch.cuda.is_available()
    if args.num_processes is not None and cfg.MODEL.DEVICE != "cpu":
        raise InputError(
            f"--num-processes is for MODEL.DEVICE cpu, --num-gpus for GPUs; got MODEL.DEVICE {cfg.MODEL.DEVICE}"
        )
    if not args.eval_only:
        parts = cfg.SOLVER.ACCUMULATION_STEPS
        check_batch_size(cfg.SOLVER.IMS_PER_BATCH, num_processes * args.num_machines, parts)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does: processes share the cores
    try:
        launch(
            main,
            num_processes,
            on_gpus=on_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except ProcessExitedException as error:
        # A process that exits has said why; one that was killed has not.
        killed = error.signal_name is not None
        sys.exit(f"error: {who_ended(error, num_processes, args.machine_rank)}" if killed else error.exit_code)


def main_by_torchrun(args: argparse.Namespace, place: Place) -> None:
    """Runs main as one of the processes that torchrun has started; restarted, it goes on by itself."""
    if args.num_processes is not None or args.num_gpus > 1 or args.num_machines > 1:
        raise InputError(
            "--num-gpus, --num-processes and --num-machines do not go with torchrun, which starts processes"
        )
    args.resume = args.resume or (restarts(os.environ) > 0 and not args.eval_only)
    run_by_torchrun(main, place, (args,))


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """The arguments of `main`."""
    parser = default_argument_parser(__doc__)
    parser.add_argument("--num-processes", type=int, metavar="N", help="on this machine's CPU, instead of --num-gpus")
    parser.add_argument(
        "--verbose", action="store_true", help="all lines of the log: environment, config, network, data, too"
    )
    add_budget(parser)
    add_deadline(parser)
    return parser.parse_args(argv)


def invoke_main(argv: Optional[Sequence[str]] = None) -> None:
    """The command line: main, in this process or in several."""
    args = parse_args(argv)
    with command_line(args.num_machines, by_torchrun=True):
        place = place_by_torchrun(os.environ)
        if place is not None:
            main_by_torchrun(args, place)
            return
        on_gpus = args.num_processes is None
        if not on_gpus and args.num_gpus > 1:
            raise InputError("--num-gpus and --num-processes: give one of them")
        number = args.num_gpus if on_gpus else args.num_processes
        machines = (args.num_machines, args.machine_rank, args.dist_url)
        check_launch(number, on_gpus, *machines, torch.cuda.device_count())
        if number * args.num_machines > 1:
            main_in_processes(args, number)
        else:
            main(args)


if __name__ == "__main__":
    logging.captureWarnings(True)
    invoke_main()
