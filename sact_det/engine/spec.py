"""The network that a config describes."""

from dataclasses import fields
from typing import Any

from yacs.config import CfgNode as CN

from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.network.spec import NetworkSpec


def spec_from_config(cfg: CN, family: type[NetworkSpec] = ResNetV2Spec) -> NetworkSpec:
    """The network whose fields MODEL.SACT has, in capitals. Raises ValueError, naming one that is out of range."""
    sact = cfg.MODEL.SACT
    if len(sact.UNITS) != family.max_blocks:
        raise ValueError(
            f"`units` must list {family.max_blocks} positive integers, one per block; got {tuple(sact.UNITS)}"
        )
    values: dict[str, Any] = {field.name: sact.get(field.name.upper(), field.default) for field in fields(family)}
    values.update({name: tuple(value) for name, value in values.items() if isinstance(value, list)})
    return family(**values)
