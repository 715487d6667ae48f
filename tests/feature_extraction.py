"""A feature extractor's features and the record of what they took."""

from typing import Optional

from torch import Tensor, nn

from sact_det.rule import ledger
from sact_det.rule.padding import Sizes
from sact_det.rule.ponder import PonderRecord


def extract(
    backbone: nn.Module, images: Tensor, sizes: Optional[Sizes] = None
) -> tuple[dict[str, Tensor], PonderRecord]:
    """Runs a backbone on a batch [N, 3, H, W] whose images have these sizes, or fill it."""
    with ledger.open(sizes) as spent:
        features = backbone(images)
    (record,) = spent["backbone"]
    return features, record
