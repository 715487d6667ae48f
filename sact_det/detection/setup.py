"""From a config file and command-line overrides to a checked config."""

from pathlib import Path
from typing import Sequence

import torch
from detectron2.config import CfgNode, get_cfg

from sact_det.config import add_sact_config
from sact_det.data.coco import register_coco_datasets
from sact_det.errors import InputError, one_line


def load_config(config_file: str, overrides: Sequence[str] = ()) -> CfgNode:
    """A frozen config: Detectron2's defaults, ours, the file's, then KEY VALUE overrides; data sets are registered.

    MODEL.DEVICE falls back to the CPU where there is no GPU.

    Raises:
        InputError: the file is missing or not yaml, a key does not exist, or a value does not fit.
    """
    cfg = get_cfg()
    add_sact_config(cfg)
    if config_file:
        if not Path(config_file).is_file():
            raise InputError(f"{config_file}: no such config file")
        try:
            cfg.merge_from_file(config_file)
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
    register_coco_datasets(cfg)
    cfg.freeze()
    return cfg
