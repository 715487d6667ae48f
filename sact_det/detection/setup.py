"""From a config file and command-line overrides to a checked config."""

import math
import re
from pathlib import Path
from typing import Sequence

import torch
from detectron2.config import CfgNode, get_cfg

from sact_det.block import EXECUTIONS, check_choice
from sact_det.config import add_sact_config
from sact_det.data.coco import register_coco_datasets
from sact_det.detection.backbone import spec_from_config
from sact_det.errors import InputError, one_line
from sact_det.norm import NORMS
from sact_det.resnet_v2 import are_positive_integers


def load_config(config_file: str, overrides: Sequence[str] = ()) -> CfgNode:
    """A frozen config: Detectron2's defaults, ours, the file's, then KEY VALUE overrides; data sets are registered.

    MODEL.DEVICE falls back to the CPU where there is no GPU.

    Raises:
        InputError: the file is missing or not yaml, a key does not exist, a value has the wrong type, or one of
            MODEL.SACT is out of range.
    """
    cfg = get_cfg()
    add_sact_config(cfg)
    if config_file:
        if not Path(config_file).is_file():
            raise InputError(f"{config_file}: no such config file")
        try:
            cfg.merge_from_file(config_file, allow_unsafe=False)  # a yaml can ask for any Python call
        except (AttributeError, TypeError) as error:  # merging what is not a mapping
            raise InputError(f"{config_file}: not a config; expected keys and values in yaml") from error
        except Exception as error:  # yacs and yaml raise whatever they like
            raise InputError(f"{config_file}: {one_line(error)}") from error
    if len(overrides) % 2:
        raise InputError(f"overrides come as KEY VALUE pairs; got {' '.join(overrides)}")
    for key, value in zip(overrides[::2], overrides[1::2]):
        try:
            cfg.merge_from_list([key, value])
        except Exception as error:
            raise InputError(f"{key} {value}: {one_line(error)}") from error
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    _check_sact(cfg)
    register_coco_datasets(cfg)
    cfg.freeze()
    return cfg


def _check_sact(cfg: CfgNode) -> None:
    """Has the network's own checks judge MODEL.SACT, before any work is done. Raises InputError."""
    sact = cfg.MODEL.SACT
    try:
        spec_from_config(cfg)
        check_choice("box_head_norm", sact.BOX_HEAD_NORM, ("", *NORMS))
        check_choice("execution", sact.EXECUTION, EXECUTIONS)
        if not 0 <= sact.TAU < math.inf:
            raise ValueError(f"`tau` must be a finite number, 0 or more; got {sact.TAU}")
        if len(sact.REFERENCE_UNITS) != 3 or not are_positive_integers(sact.REFERENCE_UNITS):
            raise ValueError(f"`reference_units` must list 3 positive integers; got {sact.REFERENCE_UNITS}")
    except ValueError as error:
        # Arguments are called as their keys are, in lower case.
        message = re.sub(r"`(\w+)`", lambda name: f"MODEL.SACT.{name[1].upper()}", str(error), count=1)
        raise InputError(message) from error
