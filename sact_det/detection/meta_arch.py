"""Faster R-CNN that pays for its extractor's computation and reports it."""

from typing import Any, Optional

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.base.transfer import to_host
from sact_det.detection.backbone import SACTBackbone
from sact_det.detection.parts import check_parts
from sact_det.detection.roi_heads import SACTRes5ROIHeads
from sact_det.engine.logged import log_after_backward
from sact_det.pictures.panels import draw_ponder_map
from sact_det.rule.flops import extractor_flops
from sact_det.rule.padding import Sizes
from sact_det.rule.ponder import PonderRecord


@META_ARCH_REGISTRY.register()
class SACTGeneralizedRCNN(GeneralizedRCNN):
    """GeneralizedRCNN over a `SACTBackbone`.

    In training it adds `loss_ponder` = tau * the sum over blocks 1-3 of the mean ponder cost, averaged over each
    image's own positions and then over images (eq. 13, alg. 2 line 37). Block 4, in the box head, is never charged.
    In inference every output dict has, beside "instances":
        "ponder": PonderRecord of the extractor for this image, N = 1, on the CPU;
        "box_head_flops": int, FLOPs of block 4 over the image's proposals.

    Args:
        tau: the price of one unit of ponder cost.
        reference_units: units of blocks 1-3 of the plain extractor whose FLOPs count as 100% in the training log.

    Raises:
        InputError: the backbone is another one, or tau is negative.
    """

    backbone: SACTBackbone

    @configurable
    def __init__(self, *, tau: float, reference_units: tuple[int, ...], **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(self.backbone, SACTBackbone):
            raise InputError(
                "MODEL.META_ARCHITECTURE SACTGeneralizedRCNN needs MODEL.BACKBONE.NAME build_sact_resnet_backbone; "
                f"got a {type(self.backbone).__name__}"
            )
        if not isinstance(self.roi_heads, SACTRes5ROIHeads):
            raise InputError(
                "MODEL.META_ARCHITECTURE SACTGeneralizedRCNN needs MODEL.ROI_HEADS.NAME SACTRes5ROIHeads; "
                f"got a {type(self.roi_heads).__name__}"
            )
        if tau < 0:
            raise InputError(f"MODEL.SACT.TAU must not be negative; got {tau}")
        self.tau = tau
        self.reference_units = reference_units

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of the constructor. Raises InputError if it takes no such parts."""
        check_parts(cfg)
        return {
            **super().from_config(cfg),
            "tau": cfg.MODEL.SACT.TAU,
            "reference_units": tuple(cfg.MODEL.SACT.REFERENCE_UNITS),
        }

    def set_execution(self, execution: str) -> None:
        """How extractor and box head compute (network/block.py: EXECUTIONS); the results do not depend on it."""
        self.backbone.set_execution(execution)
        self.roi_heads.res5.block4.set_execution(execution)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Detectron2's interface: a dict of losses in training, a list of output dicts in evaluation.

        Raises ValueError for no images in training; in evaluation they have no outputs.
        """
        if not self.training:
            return self.inference(batched_inputs)
        if not batched_inputs:
            raise ValueError("`batched_inputs`: there is nothing to learn from no images")
        images = self.preprocess_image(batched_inputs)
        targets = [x["instances"].to(self.device) for x in batched_inputs]
        features, ponder = self.backbone.extract(images.tensor, images.image_sizes)
        proposals, proposal_losses = self.proposal_generator(images, features, targets)
        _, detector_losses = self.roi_heads(images, features, proposals, targets)
        losses = {**detector_losses, **proposal_losses}
        if self.backbone.spec.halting != "none":
            losses["loss_ponder"] = self.tau * ponder.mean_cost().mean()
        self._log_ponder(ponder, images.image_sizes, detector_losses["loss_cls"])
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
            self._visualize_ponder(batched_inputs[0], ponder.image(0), images.image_sizes[0])
        return losses

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: Optional[list[Instances]] = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """GeneralizedRCNN.inference, with "ponder" and "box_head_flops" in each (postprocessed) output."""
        assert not self.training
        if not batched_inputs:
            return []
        images = self.preprocess_image(batched_inputs)
        features, ponder = self.backbone.extract(images.tensor, images.image_sizes)
        if detected_instances is not None:  # whose boxes stand: without masks, block 4 has nothing to do
            instances = [x.to(self.device) for x in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, instances)
            region_flops = torch.zeros(len(results), dtype=torch.int64)
        else:
            proposals, _ = self.proposal_generator(images, features, None)
            results, _ = self.roi_heads(images, features, proposals, None)
            regions = self.roi_heads.res5.ponder.flops.split([len(p) for p in proposals])
            region_flops = torch.stack([flops.sum() for flops in regions]) if regions else ponder.flops.new_zeros(0)
        if not do_postprocess:
            return results
        outputs = self._postprocess(results, batched_inputs, images.image_sizes)
        box_head, *tensors = to_host([region_flops, *ponder.tensors()])
        ponder = ponder.with_tensors(tensors)
        for index, (output, flops) in enumerate(zip(outputs, box_head.tolist())):
            output["ponder"] = ponder.image(index)
            output["box_head_flops"] = flops
        return outputs

    @torch.no_grad()
    def _log_ponder(self, ponder: PonderRecord, sizes: Sizes, loss: Tensor) -> None:
        """Logs what the step took when the backward pass has reached `loss`."""
        dense = sum(extractor_flops(self.reference_units, self.backbone.spec.base_channels, h, w) for h, w in sizes)
        values = {"sact/flops_percent": 100 * ponder.flops.sum().double() / dense}
        box_head = self.roi_heads.res5.ponder
        blocks = {**ponder.blocks, "block4": box_head} if len(box_head.flops) else ponder.blocks  # or of no region
        for name, block in blocks.items():
            values[f"sact/{name}_cost"] = block.mean_cost().mean()
            values[f"sact/{name}_units"] = block.mean_units().mean()
        log_after_backward(values, loss)

    @torch.no_grad()
    def _visualize_ponder(self, batched_input: dict[str, Any], ponder: PonderRecord, size: tuple[int, int]) -> None:
        image = convert_image_to_rgb(batched_input["image"].permute(1, 2, 0), self.input_format)
        picture = draw_ponder_map(ponder.detached().map(size)[0].cpu().numpy(), image=image)
        get_event_storage().put_image("Left: image;  Right: ponder map", picture.transpose(2, 0, 1))
