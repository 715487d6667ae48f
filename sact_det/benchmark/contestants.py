"""Who takes part where AP stands beside seconds: adaptive detectors, and static ones at several sizes of work."""

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from sact_det.base.errors import InputError, naming
from sact_det.detection.config_kinds import check_detector, is_retinanet
from sact_det.network.halting_rule import halting_rule
from sact_det.tasks import load_config

# Sections of a config that say what an image is and how detections are judged: overrides of them are for everybody.
_SHARED = ("INPUT.", "DATASETS.", "DATALOADER.", "TEST.")


@dataclass(frozen=True)
class Contestant:
    """A detector as it takes part.

    Attributes:
        name: unlike all others.
        line: what it shares with the static ones of the same weights and image size, or of the same weights where the
            sizes of images are all that tells these apart, and an adaptive one with itself at other budgets.
        detector: what it shares with those of the same config and weights, and of the same execution.
        static: whether it is a plain detector.
        execution: as of sact_det.execution.set_execution; of a static one, of the programs that are this package's own.
        cfg: with the weights, the proposals and the image size that it has.
        scale: of its images' sides, as a share of those of its config.
        mark: what tells it from others of its line, in a figure.
    """

    name: str
    line: str
    detector: str
    static: bool
    execution: str
    cfg: CfgNode
    scale: float = 1.0
    mark: str = ""

    @property
    def budget(self) -> Optional[float]:
        """The share of the plain network's FLOPs that an adaptive one spends; None: as trained."""
        return self.cfg.MODEL.SACT.BUDGET or None

    @property
    def proposals(self) -> int:
        """How many regions an image has at most; 0 without proposals."""
        return 0 if is_retinanet(self.cfg) else self.cfg.MODEL.RPN.POST_NMS_TOPK_TEST


def contestants(args: argparse.Namespace) -> list[Contestant]:
    """Those that a command line asks for (tools/benchmark.py): static ones first, of these the one to compare with.

    That one is the first --plain with its config's own number of proposals and size of images.

    Raises:
        InputError: a config cannot be used, or is not what its option says; there is no such data set.
    """
    main = _config(args, "--config-file", args.config_file, args.opts)
    if not main.MODEL.WEIGHTS:
        raise InputError("MODEL.WEIGHTS is empty: AP needs trained weights")
    files = _files(main, args.dataset)
    if args.dataset not in DatasetCatalog:
        known = ", ".join(entry[0] for entry in main.DATASETS.COCO_FORMAT) or "nothing"
        raise InputError(
            f"--dataset {args.dataset}: no such data set; "
            f"there are those of DATASETS.COCO_FORMAT ({known}) and Detectron2's"
        )
    found: list[Contestant] = []
    labels = []
    for given in args.plain:
        label, cfg = _given(args, "--plain", given, files)
        found += _static(label, cfg, args.proposals, args.scales)
        labels.append(label)
    at_budgets = {f"{budget:g}": ["MODEL.SACT.BUDGET", repr(budget)] for budget in args.budgets}
    labels.append(args.label or _label(args.config_file))
    for mark, spends in (at_budgets or {"": []}).items():
        cfg = _config(args, "--config-file", args.config_file, [*args.opts, *spends])
        found += _adaptive(labels[-1], cfg, args.executions, mark)
    for given in args.adaptive:
        label, cfg = _given(args, "--adaptive", given, files)
        found += _adaptive(label, cfg, args.executions)
        labels.append(label)
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise InputError(f"two detectors are called {twice!r}: give one a LABEL behind its WEIGHTS, or --label")
    return found


def _config(args: argparse.Namespace, option: str, path: str, overrides: Sequence[str]) -> CfgNode:
    data = ["DATASETS.TEST", repr((args.dataset,)), "MODEL.DEVICE", args.device]
    with naming(option, InputError):
        cfg = load_config(path, [*overrides, *data])
    check_detector(cfg, f"{option} {path}: ")
    return cfg


def _given(args: argparse.Namespace, option: str, words: Sequence[str], files: Any) -> tuple[str, CfgNode]:
    """Label and config of CONFIG WEIGHTS [LABEL]."""
    path, weights, *label = words
    shared = [word for pair in _pairs(args.opts) if pair[0].startswith(_SHARED) for word in pair]
    cfg = _config(args, option, path, [*shared, "MODEL.WEIGHTS", weights])
    if _files(cfg, args.dataset) not in ([], files):
        raise InputError(
            f"{option} {path}: DATASETS.COCO_FORMAT has other files for {args.dataset!r} than --config-file's"
        )
    return (label[0] if label else _label(path)), cfg


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(words[::2], words[1::2])


def _label(path: str) -> str:
    return Path(path).stem


def _files(cfg: CfgNode, name: str) -> list[list[str]]:
    return [list(entry[1:]) for entry in cfg.DATASETS.COCO_FORMAT if entry[0] == name]


def _static(label: str, cfg: CfgNode, proposals: Sequence[int], scales: Sequence[float]) -> Iterator[Contestant]:
    for key in ("HALTING", "BOX_HEAD_HALTING"):
        name = cfg.MODEL.SACT[key]
        if name and halting_rule(name).adaptive:
            raise InputError(f"--plain {label}: MODEL.SACT.{key} must be none; got {name} (see --adaptive)")
    for key, plain in (("REJECTION", False), ("PROPOSAL_MASS", 1.0)):
        if cfg.MODEL.SACT[key] != plain:
            raise InputError(
                f"--plain {label}: MODEL.SACT.{key} must be {plain}; got {cfg.MODEL.SACT[key]} (see --adaptive)"
            )
    own = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    numbers = [own, *(number for number in sorted(set(proposals), reverse=True) if number != own)]
    if is_retinanet(cfg):
        numbers = numbers[:1]
    sizes = [1.0, *(scale for scale in sorted(set(scales), reverse=True) if scale != 1)]
    if len(sizes) > 1 and not cfg.INPUT.MIN_SIZE_TEST:
        raise InputError(f"--plain {label}: INPUT.MIN_SIZE_TEST is 0, so that images have no size to scale (--scales)")
    for scale, number in product(sizes, numbers):
        own_size = label if scale == 1 else f"{label} x{scale:g}"
        line, mark = (label, f"x{scale:g}") if len(numbers) == 1 else (own_size, str(number))
        changed = cfg.clone()
        changed.defrost()
        changed.MODEL.RPN.POST_NMS_TOPK_TEST = number
        for key in ("MIN_SIZE_TEST", "MAX_SIZE_TEST") if scale != 1 else ():
            changed.INPUT[key] = max(round(scale * cfg.INPUT[key]), 1)
        changed.freeze()
        name = own_size if is_retinanet(cfg) else f"{own_size}, {number} proposals"
        yield Contestant(name, line, label, True, "auto", changed, scale, mark)


def _adaptive(label: str, cfg: CfgNode, executions: Sequence[str], mark: str = "") -> Iterator[Contestant]:
    """In each execution; `mark` is the budget of one among several."""
    for execution in executions:
        line = label if len(executions) == 1 else f"{label}, {execution}"
        name = f"{line} at {mark}" if mark else line
        yield Contestant(name, line, line, False, execution, cfg, mark=mark)
