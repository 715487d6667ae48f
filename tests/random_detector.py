"""Weights of a detector whose halting scores differ from position to position."""

from pathlib import Path

import torch
from detectron2.modeling import build_model
from torch import nn

from sact_det.tasks import load_config


def write_random_detector(path: Path, config_file: str, *overrides: str) -> str:
    """Writes random weights for the detector of a config; returns their path."""
    torch.manual_seed(0)
    model = build_model(load_config(config_file, overrides))
    for conv in (part for part in model.backbone.modules() if isinstance(part, nn.Conv2d) and part.out_channels == 1):
        nn.init.normal_(conv.weight, std=3 * conv.weight[0].numel() ** -0.5)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    torch.save({"model": model.state_dict()}, path)
    return str(path)
