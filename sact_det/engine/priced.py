"""A meta-architecture of Detectron2 that pays for its computation in training and reports it in evaluation."""

import math
from typing import Any, Mapping, Optional, Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.utils.events import get_event_storage
from torch import Tensor

from sact_det.base.errors import InputError
from sact_det.base.recording import is_recording
from sact_det.base.transfer import to_host
from sact_det.budget import Budgeted, Drawing
from sact_det.budget.image_scale import scaled_images, scaled_size
from sact_det.engine.logged import FLOPS_PERCENT, UNITS, block_means, log_after_backward, put_ponder_map
from sact_det.engine.reference import Reference
from sact_det.engine.spec import box_head_spec, drawing_from_config, spec_from_config
from sact_det.execution import Executable
from sact_det.network.freeze import freeze_halting, freeze_network
from sact_det.rule import ledger
from sact_det.rule.ledger import Ledger

_PRICES = {"backbone": "MODEL.SACT.TAU", "box_head": "MODEL.SACT.TAU_BOX_HEAD"}


class Priced(Budgeted, Executable):
    """A mixin before any meta-architecture whose parts enter what they spend (sact_det/rule/ledger.py).

        class SACTRetinaNet(Priced, RetinaNet): ...

    In training it adds `loss_ponder`: the backbone's price times its ponder cost (eq. 13, alg. 2 line 37), averaged
    over each image's own positions and then over images; and `loss_ponder_PART` for every other part with a price,
    averaged over its regions. Without prices there is no such loss.
    In evaluation every output dict has, beside what the meta-architecture puts there:
        "seen_size": (height, width) of the image in the network: smaller than it was given where the budget says so;
        "ponder": PonderRecord of the backbone for this image (its last call, if it has several), N = 1, on the CPU; of
            the smaller image, where the budget makes it smaller;
        "flops": dict of int, FLOPs of this image by part, and their sum, "total";
        "box_head_flops": int, those of the part "box_head"; 0 if there is none;
        "regions": int, how many regions of this image evaluated a unit of the part "box_head"; if there is none, how
            many proposals a `SACTRPN` made, else 0;
        "detections": int, how many regions of this image the mask and keypoint heads looked at; 0 if there are none;
        "rejected_regions": int, how many more were rejected before its first unit;
        "units_per_region": float, units that one of "regions" evaluated on average; None without regions or blocks.

    Args:
        prices: part -> the price of one unit of its ponder cost. A part without a price is never charged.
        reference: whose FLOPs are 100% of the backbone's in the training log; None: no percentage is logged.
        budget: to be spent with the weights that will be loaded (Budgeted.set_budget); None: as trained.
        drawing: what every training step draws (Budgeted.draw_shift); None: nothing. Drawn prices are all scaled alike.
        fixed_halting: whether halting stays as the weights have it (sact_det/network/freeze.py). Nothing is charged.
        fixed_network: whether all else stays.
        **kwargs: of the meta-architecture.

    Raises:
        InputError: a price is negative or not finite.
        ValueError: budgets are drawn, and there is no reference.
    """

    training: bool  # this and the next of the meta-architecture
    input_format: str

    @configurable
    def __init__(
        self,
        *,
        prices: Mapping[str, float],
        reference: Optional[Reference] = None,
        budget: Optional[float] = None,
        drawing: Optional[Drawing] = None,
        fixed_halting: bool = False,
        fixed_network: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.asked_budget = budget
        self.begin_drawing(drawing)
        for part, price in prices.items():
            if not 0 <= price < math.inf:
                key = _PRICES.get(part, "a price")
                raise InputError(f"the price of {part!r} ({key}) must be finite and not negative; got {price}")
        self.prices = {} if fixed_halting else dict(prices)
        self.reference = reference
        if self.tracked is not None and reference is None:
            raise ValueError("`reference` is missing: drawn budgets are shares of its FLOPs")
        for name in ("mask_head", "keypoint_head"):
            head = getattr(getattr(self, "roi_heads", None), name, None)
            if head is not None:
                head.register_forward_pre_hook(_enter_detections)
        if fixed_halting:
            freeze_halting(self)  # type: ignore[arg-type]
        if fixed_network:
            freeze_network(self)  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of the constructor: prices are those of MODEL.SACT; a part that is plain has none.

        Raises InputError if nothing obeys MODEL.SACT.PROPOSAL_MASS or RPN_POSITIONS.
        """
        sact, prices = cfg.MODEL.SACT, {}
        if spec_from_config(cfg).rule.adaptive:
            prices["backbone"] = sact.TAU
        if sact.TAU_BOX_HEAD and (sact.REJECTION or box_head_spec(cfg).rule.adaptive):
            prices["box_head"] = sact.TAU_BOX_HEAD
        arguments = super().from_config(cfg)  # type: ignore[misc]  # of the meta-architecture
        generator = arguments.get("proposal_generator")
        if getattr(generator, "mass", 1) != sact.PROPOSAL_MASS:
            raise InputError(
                f"MODEL.SACT.PROPOSAL_MASS {sact.PROPOSAL_MASS} needs MODEL.PROPOSAL_GENERATOR.NAME SACTRPN in a "
                f"detector of proposals; got {cls.__name__}, {cfg.MODEL.PROPOSAL_GENERATOR.NAME!r}"
            )
        if sact.RPN_POSITIONS != "all" and getattr(getattr(generator, "rpn_head", None), "blocks", None) is None:
            raise InputError(
                f"MODEL.SACT.RPN_POSITIONS {sact.RPN_POSITIONS} needs MODEL.RPN.HEAD_NAME SACTRPNHead in a detector of "
                f"proposals; got {cls.__name__}, {cfg.MODEL.RPN.HEAD_NAME!r}"
            )
        return {
            **arguments,
            "prices": prices,
            "reference": Reference.from_config(cfg),
            "budget": sact.BUDGET or None,
            "drawing": drawing_from_config(cfg),
            "fixed_halting": sact.FREEZE_HALTING,
            "fixed_network": sact.FREEZE_NETWORK,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Detectron2's interface: a dict of losses in training, a list of output dicts in evaluation.

        Raises:
            ValueError: there are no images in training (in evaluation they have no outputs), or a part that has a price
                enters nothing.
            RuntimeError: a part that has a price ran without gradients, as of `Ledger.cost`.
        """
        if self.training and not batched_inputs:
            raise ValueError("`batched_inputs`: there is nothing to learn from no images")
        if not self.training:
            self.meet_deadline(batched_inputs)
        drawn = self.draw_shift(len(batched_inputs)) if self.training else None
        outputs, spent = self._accounted(super().forward, batched_inputs)  # type: ignore[misc]
        if not self.training:
            return outputs
        losses = dict(outputs)
        ratios = None
        if self.drawing is not None and drawn is not None:
            ratios = self.drawing.price_ratios(drawn, self.device)  # type: ignore[attr-defined]
            get_event_storage().put_scalar(self.drawing.logged, float(drawn.mean()))
            if self.reference is not None:
                dense = torch.tensor([self.reference.flops(size) for size in _sizes(batched_inputs)])
                self.observe_spent(drawn, spent.flops("backbone") / dense.to(self.device))  # type: ignore[attr-defined]
        for part, price in self.prices.items():
            losses["loss_ponder" if part == "backbone" else f"loss_ponder_{part}"] = price * spent.cost(part, ratios)
        self._log(batched_inputs, losses, spent)
        return losses

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """The meta-architecture's own; in evaluation images are as large as the budget has them."""
        if (scale := self.present_scale) != 1:
            batched_inputs = [
                {**item, "image": scaled_images(item["image"][None], scale)[0]} for item in batched_inputs
            ]
        return super().preprocess_image(batched_inputs)  # type: ignore[misc]

    def inference(self, batched_inputs: list[dict[str, Any]], *args: Any, **kwargs: Any) -> Any:
        """The meta-architecture's own, if it has one; postprocessed outputs get what `forward` adds."""
        return self._accounted(super().inference, batched_inputs, *args, **kwargs)[0]  # type: ignore[misc]

    def _accounted(self, run: Any, batched_inputs: list[dict[str, Any]], *args: Any, **kwargs: Any) -> Any:
        """What a method of the meta-architecture returns, and its ledger."""
        sizes = _sizes(batched_inputs)
        if (scale := self.present_scale) != 1:
            # Outputs are for the images as they were given.
            batched_inputs = [{"height": h, "width": w, **item} for item, (h, w) in zip(batched_inputs, sizes)]
            sizes = [scaled_size(size, scale) for size in sizes]
        with ledger.open(sizes) as spent:
            outputs = run(batched_inputs, *args, **kwargs) if batched_inputs else []
        if "backbone" in spent and isinstance(outputs, list) and all(isinstance(output, dict) for output in outputs):
            report(outputs, spent, sizes)
        return outputs, spent

    @torch.no_grad()
    def _log(self, batched_inputs: list[dict[str, Any]], losses: Mapping[str, Tensor], spent: Ledger) -> None:
        """Logs what the step took when the backward pass has reached the losses; now and then a ponder map."""
        values = {}
        if self.reference is not None and "backbone" in spent:
            dense = sum(map(self.reference.flops, _sizes(batched_inputs)))
            values[FLOPS_PERCENT] = 100 * spent.flops("backbone").sum().double() / dense
        if "backbone" in spent:
            values[UNITS] = spent["backbone"][-1].mean_units().mean()
        for part, records in spent.items():
            if part != "backbone":
                values[f"sact/{part}_gflops"] = spent.flops(part).double().mean() / 1e9
            if len(records[-1].dense_flops):  # a box head may have met no region
                values.update(block_means(records[-1].blocks))
        if values:
            log_after_backward(values, next((loss for loss in losses.values() if loss.requires_grad), None))
        storage, period = get_event_storage(), getattr(self, "vis_period", 0)
        if period > 0 and storage.iter % period == 0 and "backbone" in spent:
            image = convert_image_to_rgb(batched_inputs[0]["image"].permute(1, 2, 0), self.input_format)
            put_ponder_map(spent["backbone"][-1], image)


def _enter_detections(head: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
    """Detectron2's heads take features and instances: postprocessing, which comes later, may drop some of these."""
    ledger.enter_detections([len(own) for own in inputs[1]])


def _sizes(batched_inputs: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(item["image"].shape[-2], item["image"].shape[-1]) for item in batched_inputs]


def report(outputs: list[dict[str, Any]], spent: Ledger, sizes: Sequence[tuple[int, int]]) -> None:
    """Adds to each image's output what it took ("ponder" alone in a recording); a GPU is waited for once.

    Args:
        outputs: of the images.
        spent: what they took.
        sizes: (height, width) of each in the network.
    """
    if is_recording():  # numbers would be those of the example
        for index, output in enumerate(outputs):
            output["ponder"] = spent["backbone"][-1].image(index)
        return
    record, nothing = spent["backbone"][-1], torch.zeros(len(outputs), dtype=torch.int64)
    met = spent.regions("box_head") if "box_head" in spent else None
    rejected, units = (spent.rejected("box_head"), spent.units("box_head")) if met and any(met) else (nothing, nothing)
    regions = met or spent.proposals or nothing.tolist()
    detections = spent.detections or nothing.tolist()
    flops = [spent.flops(part) for part in spent]
    rejected, units, *copies = to_host([rejected, units, *flops, *record.tensors()])
    flops, record = copies[: len(spent)], record.with_tensors(copies[len(spent) :])
    for index, output in enumerate(outputs):
        by_part = {part: int(values[index]) for part, values in zip(spent, flops)}
        output["seen_size"] = sizes[index]
        output["ponder"] = record.image(index)
        output["flops"] = {**by_part, "total": sum(by_part.values())}
        output["box_head_flops"] = by_part.get("box_head", 0)
        output["rejected_regions"] = int(rejected[index])
        output["regions"] = regions[index] - output["rejected_regions"]
        output["detections"] = detections[index]
        output["units_per_region"] = float(units[index]) / output["regions"] if met and output["regions"] else None
