"""The networks that a config describes."""

from dataclasses import fields, replace
from typing import Any, Optional

from yacs.config import CfgNode as CN

from sact_det.budget import Drawing
from sact_det.network.halting_rule import halting_rule
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
    drawing = drawing_from_config(cfg)
    if drawing is not None and drawing.price:
        low, high = sact.BUDGET_TRAINING
        values["prices"] = low, sact.TAU, high
    return family(**values)


def drawing_from_config(cfg: CN) -> Optional[Drawing]:
    """What MODEL.SACT.BUDGET_TRAINING asks for; None: nothing."""
    sact = cfg.MODEL.SACT
    if not sact.BUDGET_TRAINING:
        return None
    per_image = sact.BUDGET_TRAINING_PER == "image"
    low, high = sact.BUDGET_TRAINING
    if sact.BUDGET_TRAINING_DRAWS == "tau":
        return Drawing.of_prices(sact.TAU, low, high, per_image)
    return Drawing(low, high, sact.BUDGET_TRAINING_DRAWS, per_image)


def box_head_spec(cfg: CN) -> ResNetV2Spec:
    """The network whose block 4 stands in a detector's box head: that of the config but for the keys BOX_HEAD_*.

    Cells of more than one position (TILE) are those of a rule whose positions halt one by one. Where max pooling has
    halved the regions (BOX_HEAD_MAX_POOL), block 4 has no stride.

    Raises:
        ValueError: a value is out of range.
    """
    sact, spec = cfg.MODEL.SACT, spec_from_config(cfg)
    assert isinstance(spec, ResNetV2Spec)
    rule = halting_rule(sact.BOX_HEAD_HALTING or spec.halting)
    return replace(
        spec,
        strides=(*spec.strides[:3], 1) if sact.BOX_HEAD_MAX_POOL else spec.strides,
        halting=rule.name,
        tile=spec.tile if rule.by_position else 1,
        norm=sact.BOX_HEAD_NORM or spec.norm,
        halting_norm=sact.BOX_HEAD_HALTING_NORM or spec.halting_norm,
    )


def extractor_units(cfg: CN) -> int:
    """Residual units of the blocks that REFERENCE_UNITS describes: a detector's extractor, or a whole classifier."""
    return sum(_units(cfg))


def network_title(cfg: CN) -> str:
    """How a table names these blocks, e.g. "SACT (3, 4, 23), tau 0.005"."""
    sact = cfg.MODEL.SACT
    if not halting_rule(sact.HALTING).adaptive:
        return f"ResNet {_units(cfg)}"
    budget = f", budget {sact.BUDGET:g}" if sact.BUDGET else ""
    return f"{sact.HALTING.upper()} {_units(cfg)}, tau {sact.TAU:g}{budget}"


def _units(cfg: CN) -> tuple[int, ...]:
    return tuple(cfg.MODEL.SACT.UNITS[: len(cfg.MODEL.SACT.REFERENCE_UNITS)])
