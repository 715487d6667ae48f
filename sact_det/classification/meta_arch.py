"""The classifier as a model of Detectron2: pays for its computation in training, and reports it."""

from typing import Any, Optional

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import get_event_storage
from torch import Tensor

from sact_det.base.transfer import to_device, to_host
from sact_det.budget import Drawing
from sact_det.classification.model import Classifier
from sact_det.engine.logged import FLOPS_PERCENT, UNITS, block_means, log_after_backward, put_ponder_map
from sact_det.engine.reference import Reference
from sact_det.engine.spec import drawing_from_config, spec_from_config
from sact_det.network.classifier import FAMILIES, ClassifierOutput
from sact_det.network.freeze import freeze, freeze_halting, freeze_network
from sact_det.network.spec import NetworkSpec


@META_ARCH_REGISTRY.register()
class SACTClassifier(Classifier):
    """A `Classifier` that takes Detectron2's lists of dicts. Its state dict is the classifier's, name by name.

    Each input has "image", [3, H, W] RGB in [0, 255] (all of one size), and, in training, "label".

    In training it returns `loss_cls`, the cross entropy, and, unless the network is plain or its halting is fixed,
    `loss_ponder` = tau * the sum over all blocks of the mean ponder cost, averaged over positions and then over images
    (eq. 13).
    In evaluation it returns for every image
        "logits": float32 [num_classes], on the CPU;
        "ponder": PonderRecord of the whole network, N = 1, on the CPU.

    Args:
        spec, num_classes, head_norm: of the network, as in Classifier.
        tau: the price of one unit of ponder cost.
        label_smoothing: this share of every target is spread evenly over the classes.
        pixel_mean, pixel_std: three numbers each; the network sees (image - mean) / std.
        reference: the plain network whose FLOPs are 100%.
        freeze_at: 0 trains everything; 1 freezes the stem, 2 also block 1, and so on (sact_det/network/freeze.py).
        execution: how blocks compute.
        vis_period: every so many steps, the ponder map of an image goes to the log; 0: never.
        budget: to be spent with the weights that will be loaded (Budgeted.set_budget); None: as trained.
        flops_limit: as of ClassifierNetwork.
        drawing: what every training step draws (Budgeted.draw_shift); None: nothing.
        fixed_halting: whether halting stays as the weights have it (sact_det/network/freeze.py). Nothing is charged.
        fixed_network: whether all else stays.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        spec: NetworkSpec,
        num_classes: int,
        head_norm: str = "",
        tau: float,
        label_smoothing: float,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        reference: Reference,
        freeze_at: int = 0,
        execution: str = "auto",
        vis_period: int = 0,
        budget: Optional[float] = None,
        flops_limit: Optional[float] = None,
        drawing: Optional[Drawing] = None,
        fixed_halting: bool = False,
        fixed_network: bool = False,
    ):
        super().__init__(spec, num_classes, head_norm or None)
        self.asked_budget = budget
        self.begin_drawing(drawing)
        self.flops_limit = flops_limit
        self.tau = tau
        self.label_smoothing = label_smoothing
        self.reference = reference
        self.vis_period = vis_period
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)
        self.set_execution(execution)
        freeze([self.stem, *(self.get_submodule(name) for name in self.block_names)], freeze_at)
        self.fixed_halting = fixed_halting
        if fixed_halting:
            freeze_halting(self)
        if fixed_network:
            freeze_network(self)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of the constructor."""
        family, num_classes = FAMILIES[cfg.MODEL.CLASSIFIER.FAMILY], cfg.MODEL.CLASSIFIER.NUM_CLASSES
        return {
            "spec": spec_from_config(cfg, family),
            "num_classes": num_classes,
            "head_norm": cfg.MODEL.SACT.BOX_HEAD_NORM,
            "tau": cfg.MODEL.SACT.TAU,
            "label_smoothing": cfg.MODEL.CLASSIFIER.LABEL_SMOOTHING,
            "pixel_mean": tuple(cfg.MODEL.PIXEL_MEAN),
            "pixel_std": tuple(cfg.MODEL.PIXEL_STD),
            "reference": Reference.from_config(cfg, family, num_classes),
            "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
            "execution": cfg.MODEL.SACT.EXECUTION,
            "vis_period": cfg.VIS_PERIOD,
            "budget": cfg.MODEL.SACT.BUDGET or None,
            "flops_limit": cfg.MODEL.SACT.FLOPS_LIMIT or None,
            "drawing": drawing_from_config(cfg),
            "fixed_halting": cfg.MODEL.SACT.FREEZE_HALTING,
            "fixed_network": cfg.MODEL.SACT.FREEZE_NETWORK,
        }

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:  # type: ignore[override]
        """Detectron2's interface: a dict of losses in training, a list of output dicts in evaluation."""
        if not self.training:
            self.meet_deadline(batched_inputs)
            return _outputs(self.classify(self.preprocess(batched_inputs)))
        drawn = self.draw_shift(len(batched_inputs))
        return self._losses(batched_inputs, self.classify(self.preprocess(batched_inputs)), drawn)

    def preprocess(self, batched_inputs: list[dict[str, Any]]) -> Tensor:
        """The images as the network sees them, float32 [N, 3, H, W]."""
        images = torch.stack([item["image"] for item in batched_inputs]).to(self.device)
        return (images.float() - self.pixel_mean) / self.pixel_std

    def _losses(
        self, batched_inputs: list[dict[str, Any]], output: ClassifierOutput, drawn: Optional[Tensor]
    ) -> dict[str, Tensor]:
        labels = to_device([item["label"] for item in batched_inputs], self.device)
        losses = {"loss_cls": F.cross_entropy(output.logits, labels, label_smoothing=self.label_smoothing)}
        ratios = None
        if self.drawing is not None and drawn is not None:
            ratios = self.drawing.price_ratios(drawn, self.device)
            get_event_storage().put_scalar(self.drawing.logged, float(drawn.mean()))
            dense = self.reference.flops(tuple(batched_inputs[0]["image"].shape[1:]))
            self.observe_spent(drawn, output.ponder.flops / dense)
        if self.spec.rule.adaptive and not self.fixed_halting:
            cost = output.ponder.mean_cost()
            losses["loss_ponder"] = self.tau * (cost if ratios is None else ratios * cost).mean()
        self._log(batched_inputs, output, labels, losses["loss_cls"])
        return losses

    @torch.no_grad()
    def _log(
        self, batched_inputs: list[dict[str, Any]], output: ClassifierOutput, labels: Tensor, loss: Tensor
    ) -> None:
        storage, ponder = get_event_storage(), output.ponder
        height, width = batched_inputs[0]["image"].shape[1:]
        values = {
            "classifier/accuracy": (output.logits.argmax(1) == labels).float().mean(),
            FLOPS_PERCENT: 100 * ponder.flops.double().mean() / self.reference.flops((height, width)),
            UNITS: ponder.mean_units().mean(),
            **block_means(ponder.blocks),
        }
        log_after_backward(values, loss)
        if self.vis_period > 0 and storage.iter % self.vis_period == 0:
            image = batched_inputs[0]["image"].permute(1, 2, 0).byte().cpu().numpy()
            put_ponder_map(ponder, image)


def _outputs(output: ClassifierOutput) -> list[dict[str, Any]]:
    """One dict per image, on the CPU."""
    logits, *tensors = to_host([output.logits, *output.ponder.tensors()])
    ponder = output.ponder.with_tensors(tensors)
    return [{"logits": logits[index], "ponder": ponder.image(index)} for index in range(len(logits))]
