"""What is trained or evaluated, in a dozen lines before it begins."""

import logging
from typing import Any, Optional

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn
from typing_extensions import override

from sact_det.engine.spec import network_title

logger = logging.getLogger(__name__)
_WIDTH = 12  # of what a line is about


def introduce(lines: dict[str, str]) -> None:
    """Logs lines as one piece: what each of them is about, and what it says."""
    logger.info("\n%s", "\n".join(f"  {about.ljust(_WIDTH)}{said}" for about, said in lines.items() if said))


def network_lines(cfg: CfgNode, model: nn.Module) -> dict[str, str]:
    """The network, its size, and how it computes."""
    parameters = list(model.parameters())
    count, learn = (sum(p.numel() for p in of) for of in (parameters, [p for p in parameters if p.requires_grad]))
    units = cfg.MODEL.SACT.UNITS
    learning = f", {learn / 1e6:.2f} M of them learn" if model.training and learn < count else ""
    processes = comm.get_world_size()
    return {
        "network": f"{cfg.MODEL.META_ARCHITECTURE}, {network_title(cfg)}",
        "size": f"{count / 1e6:.2f} M parameters{learning}; {sum(units)} residual units in {len(units)} blocks",
        "computes": f"on {cfg.MODEL.DEVICE}, execution {cfg.MODEL.SACT.EXECUTION}, in {_some(processes, 'process')}"
        + ("" if cfg.MODEL.DEVICE != "cpu" else f" of {_some(torch.get_num_threads(), 'thread')}"),
    }


def introduce_evaluation(cfg: CfgNode, model: nn.Module, weights: str) -> None:
    """Logs what is evaluated, with which weights, on what, and where the results go."""
    budget = f", at {100 * cfg.MODEL.SACT.BUDGET:g}% of the plain network's FLOPs" if cfg.MODEL.SACT.BUDGET else ""
    introduce(
        {
            **network_lines(cfg, model),
            "weights": f"{weights}{budget}",
            "evaluates": ", ".join(cfg.DATASETS.TEST),
            "writes": f"{cfg.OUTPUT_DIR}/inference: results.json, a folder for each data set, log.txt (all lines)",
        }
    )


class Introduction(HookBase):
    """Says, before the first step, what is trained, on what, from which weights, how long, where to, how to go on."""

    @override
    def before_train(self) -> None:
        trainer: Any = self.trainer
        cfg, steps = trainer.cfg, trainer.max_iter - trainer.start_iter
        if steps <= 0:
            return
        solver, images = cfg.SOLVER, len(trainer.data_loader.dataset)
        epochs = steps * solver.IMS_PER_BATCH / images
        introduce(
            {
                **network_lines(cfg, trainer.model),
                "trains on": f"{', '.join(cfg.DATASETS.TRAIN)}: {_some(images, 'image')}{_classes(trainer)}",
                "begins": _beginning(trainer),
                "takes": f"{_some(steps, 'step')} of {_some(solver.IMS_PER_BATCH, 'image')}, {epochs:.3g} epochs; "
                f"learning rate {solver.BASE_LR:g}",
                "evaluates": _evaluations(cfg),
                "writes": f"{cfg.OUTPUT_DIR}: a checkpoint every {_some(solver.CHECKPOINT_PERIOD, 'step')}, "
                "metrics.json, config.yaml, log.txt (all lines; --verbose shows them)",
                "goes on": "behind Ctrl-C, which leaves a checkpoint, or a crash: the same command with --resume",
            }
        )


def _some(count: int, noun: str) -> str:
    plural = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{plural}"


def _classes(trainer: Any) -> str:
    names: Optional[list[str]] = trainer.class_names(trainer.cfg)
    return f" of {_some(len(names), 'class')}" if names else ""


def _beginning(trainer: Any) -> str:
    behind = f"behind step {trainer.start_iter:,}, " if trainer.start_iter else ""
    return f"{behind}with {trainer.checkpointer.loaded or 'random weights'}"


def _evaluations(cfg: CfgNode) -> str:
    if not cfg.DATASETS.TEST:
        return ""
    often = f"every {_some(cfg.TEST.EVAL_PERIOD, 'step')} and " if cfg.TEST.EVAL_PERIOD else ""
    return f"{', '.join(cfg.DATASETS.TEST)}, {often}at the end"
