"""The network that a config describes."""

from dataclasses import fields

from yacs.config import CfgNode as CN

from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.network.spec import NetworkSpec


def spec_from_config(cfg: CN, family: type[NetworkSpec] = ResNetV2Spec) -> NetworkSpec:
    """The network that a config describes. Raises ValueError, naming the argument, if a value is out of range."""
    sact = cfg.MODEL.SACT
    if len(sact.UNITS) != family.max_blocks:
        raise ValueError(
            f"`units` must list {family.max_blocks} positive integers, one per block; got {tuple(sact.UNITS)}"
        )
    values = {
        "units": tuple(sact.UNITS),
        "base_channels": sact.BASE_CHANNELS,
        "halting": sact.HALTING,
        "norm": sact.NORM,
        "halting_norm": sact.HALTING_NORM,
        "norm_decay": sact.NORM_DECAY,
        "eps": sact.EPS,
        "tile": sact.TILE,
        "dilation": tuple(sact.DILATION),
        "stem_pool": sact.STEM_POOL,
    }
    known = {field.name for field in fields(family)}
    return family(**{name: value for name, value in values.items() if name in known})
