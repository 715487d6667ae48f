"""The optimiser of a training: SGD as Detectron2's, with learning rates of their own for branches and extractor."""

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping

from sact_det.network.freeze import halting_branches


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD with Detectron2's decays and clipping.

    Halting branches learn at SOLVER.HALTING_LR_FACTOR times the rate of the rest, what else is in a detector's backbone
    at SOLVER.BACKBONE_LR_FACTOR times.
    """
    solver, branches = cfg.SOLVER, halting_branches(model)
    pyramid = hasattr(getattr(model, "backbone", None), "bottom_up")
    extractor = "backbone.bottom_up." if pyramid else "backbone."

    def lr_factor(parameter: str) -> float:
        if parameter.startswith(branches):
            return solver.HALTING_LR_FACTOR
        return solver.BACKBONE_LR_FACTOR if parameter.startswith(extractor) else 1.0

    parameters = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=lr_factor,
    )
    optimizer = torch.optim.SGD(
        parameters,
        solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
        foreach=True,
    )
    return maybe_add_gradient_clipping(cfg, optimizer)
