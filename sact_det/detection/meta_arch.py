"""Faster R-CNN that pays for its extractor's computation and reports it."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN

from sact_det.detection.parts import check_parts
from sact_det.engine.priced import Priced


@META_ARCH_REGISTRY.register()
class SACTGeneralizedRCNN(Priced, GeneralizedRCNN):
    """Detectron2's GeneralizedRCNN of a `SACTBackbone` and a `SACTRes5ROIHeads`; what it adds is said in `Priced`.

    Block 4, in the box head, has the price MODEL.SACT.TAU_BOX_HEAD, by default none.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of the constructor. Raises InputError if it takes no such parts."""
        check_parts(cfg)
        return super().from_config(cfg)
