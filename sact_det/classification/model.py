"""The classifier as it is used: built by depth or units, evaluated by any execution."""

from typing import Optional

from torch import Tensor
from typing_extensions import override

from sact_det.base.checks import check_choice
from sact_det.budget import Budgeted
from sact_det.budget.image_scale import scaled_images
from sact_det.execution import Executable
from sact_det.network.classifier import FAMILIES, ClassifierNetwork, ClassifierOutput
from sact_det.network.resnet_v2 import UNITS_BY_DEPTH

DEFAULT_CLASSES = {"imagenet": 1001, "cifar": 10}


class Classifier(Budgeted, Executable, ClassifierNetwork):
    """A ClassifierNetwork whose execution and budget can be chosen."""

    @override
    def classify(self, images: Tensor) -> ClassifierOutput:
        return super().classify(scaled_images(images, self.present_scale))


def build_classifier(
    units: Optional[tuple[int, ...]] = None,
    depth: Optional[int] = None,
    halting: str = "sact",
    num_classes: Optional[int] = None,
    base_channels: Optional[int] = None,
    tile: int = 1,
    family: str = "imagenet",
) -> Classifier:
    """A classifier with fresh weights, in training mode.

    Args:
        units: residual units per block, e.g. (3, 4, 23, 3).
        depth: instead of `units`: 50, 101, 152 or 200 ("imagenet"), 6n + 2 ("cifar": n units in each of three blocks).
            Default: 101 and 32.
        halting: "none", "act" or "sact".
        num_classes: default 1001 ("imagenet"; the original's models have 0 for background), 10 ("cifar").
        base_channels: width of block 1, in the bottleneck for "imagenet". Default: 64 and 16.
        tile: SACT shares halting scores in tile x tile cells.
        family: "imagenet" (sact_det/network/resnet_v2.py) or "cifar" (sact_det/network/resnet_cifar.py).

    Raises:
        ValueError: an argument is out of range, or both `units` and `depth` are given.
    """
    check_choice("family", family, tuple(FAMILIES))
    if units is not None and depth is not None:
        raise ValueError("give `units` or `depth`, not both")
    fields = {"base_channels": base_channels, "units": units if depth is None else units_of_depth(family, depth)}
    given = {name: value for name, value in fields.items() if value is not None}
    spec = FAMILIES[family](halting=halting, tile=tile, **given)  # type: ignore[arg-type]
    return Classifier(spec, DEFAULT_CLASSES[family] if num_classes is None else num_classes)


def units_of_depth(family: str, depth: int) -> tuple[int, ...]:
    """Residual units per block of the network with so many layers. Raises ValueError if there is none."""
    if family == "cifar":
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"`depth` must be 6n + 2 (8, 14, 20, 26, 32, ...); got {depth}")
        return ((depth - 2) // 6,) * 3
    if depth not in UNITS_BY_DEPTH:
        raise ValueError(f"`depth` must be one of {', '.join(map(str, UNITS_BY_DEPTH))}; got {depth}")
    return UNITS_BY_DEPTH[depth]
