"""Networks as functions of one tensor: what is recorded of classifiers, backbones and detectors."""

import math
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.budget.image_scale import scaled_images, scaled_size
from sact_det.execution import set_execution
from sact_det.export.programs import Axes, Axis
from sact_det.export.recordable import pad_image, recordable
from sact_det.rule import ledger
from sact_det.rule.ponder import PonderRecord

# torch.export: a map of one position along a side would broadcast, which is another program.
_LEAST_SIDE = 64
# Fields of Detectron2's Instances -> names of outputs.
_FIELDS = {
    "pred_boxes": "boxes",
    "scores": "scores",
    "pred_classes": "classes",
    "pred_masks": "masks",
    "pred_keypoints": "keypoints",
}


def check_exportable(cfg: CfgNode) -> None:
    """Raises InputError if what a whole detector does depends on numbers that a recording cannot have."""
    sact = cfg.MODEL.SACT
    if cfg.MODEL.META_ARCHITECTURE == "SACTPanopticFPN":
        raise InputError(
            "MODEL.META_ARCHITECTURE SACTPanopticFPN: its segments are put together one by one, which cannot be "
            "recorded; choose --part backbone"
        )
    if sact.REJECTION:
        raise InputError("MODEL.SACT.REJECTION: how many regions are rejected depends on the image; set it to False")
    if sact.RPN_POSITIONS != "all":
        raise InputError(f"MODEL.SACT.RPN_POSITIONS must be 'all' for an export; got {sact.RPN_POSITIONS!r}")


class Form(nn.Module):
    """A network as a function of a tensor that returns named tensors.

    It is like Detectron2's TracingAdapter, but names its outputs, and knows what networks of this package report.

    Args:
        model: in evaluation mode; from now on its execution is "export".

    Attributes:
        axes: those of the argument that are dynamic, here of an image [3, H, W].
    """

    axes: Axes

    def __init__(self, model: Any):
        super().__init__()
        set_execution(model, "export")
        self.model = model
        features = model.backbone.output_shape().values() if hasattr(model, "backbone") else ()
        seen = max([_LEAST_SIDE, *(1 + int(feature.stride) for feature in features)])
        least = math.ceil(seen / model.present_scale)
        self.axes = {1: Axis("height", least), 2: Axis("width", least)}

    @classmethod
    def reference(cls, model: Any, x: Tensor) -> dict[str, Tensor]:
        """What the model itself gives, in its present execution, under the names of the outputs."""
        raise NotImplementedError


class ClassifierForm(Form):
    """Images float32 [N, 3, H, W], RGB in [0, 255] -> "logits" [N, classes], and what was spent on each."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.axes = {0: Axis("images"), 2: self.axes[1], 3: self.axes[2]}

    @classmethod
    def reference(cls, model: Any, x: Tensor) -> dict[str, Tensor]:
        """See Form."""
        outputs = model([{"image": image} for image in x])
        spent = [spent_on(output["ponder"], (x.shape[2], x.shape[3])) for output in outputs]
        named = {name: torch.cat([one[name] for one in spent]) for name in spent[0]}
        return {"logits": torch.stack([output["logits"] for output in outputs]), **named}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See the class."""
        output = self.model.classify((images - self.model.pixel_mean) / self.model.pixel_std)
        return {"logits": output.logits, **spent_on(output.ponder, (images.shape[2], images.shape[3]))}


class BackboneForm(Form):
    """A detector's image, float32 [3, H, W] in [0, 255] -> its backbone's features [1, C, h, w], and what was spent."""

    @classmethod
    def reference(cls, model: Any, x: Tensor) -> dict[str, Tensor]:
        """See Form."""
        size = (x.shape[1], x.shape[2])
        with ledger.open([scaled_size(size, model.present_scale)]) as spent:
            features = model.backbone(model.preprocess_image([{"image": x}]).tensor)
        return {**features, **_of_one(spent["backbone"][-1], size)}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """See the class."""
        model, size = self.model, (image.shape[1], image.shape[2])
        image = scaled_images(image[None], model.present_scale)[0]
        x = pad_image([(image - model.pixel_mean) / model.pixel_std], model.backbone.size_divisibility).tensor
        with recordable(), ledger.open([(image.shape[1], image.shape[2])]) as spent:
            features = model.backbone(x)
        return {**features, **_of_one(spent["backbone"][-1], size)}


class DetectorForm(Form):
    """An image float32 [3, H, W] in [0, 255] -> "boxes" [R, 4] in its pixels, "scores", "classes", and what was spent.

    What else the instances have is there, too: "masks", "keypoints".
    """

    @classmethod
    def reference(cls, model: Any, x: Tensor) -> dict[str, Tensor]:
        """See Form."""
        return _found(model([{"image": x}])[0], x)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """See the class."""
        with recordable():
            output = self.model([{"image": image}])[0]
        return _found(output, image)


def _found(output: dict[str, Any], image: Tensor) -> dict[str, Tensor]:
    """The outputs of a DetectorForm, of what the detector itself returns for an image [3, H, W]."""
    named = {}
    for field, value in output["instances"].get_fields().items():
        value = getattr(value, "tensor", value)
        if field in _FIELDS and isinstance(value, Tensor):
            named[_FIELDS[field]] = value
    return {**named, **_of_one(output["ponder"], (image.shape[1], image.shape[2]))}


def spent_on(record: PonderRecord, size: tuple[int, int]) -> dict[str, Tensor]:
    """What images of (height, width) took, N first.

    "ponder_map", float32 [N, H, W]; "ponder_cost_blockK", float32 [N, h, w], of every block; "flops", int64 [N].
    """
    costs = {f"ponder_cost_{name}": block.ponder_cost for name, block in record.blocks.items()}
    return {"ponder_map": record.map(size), **costs, "flops": record.flops}


def _of_one(record: PonderRecord, size: tuple[int, int]) -> dict[str, Tensor]:
    return {name: value[0] for name, value in spent_on(record.image(0), size).items()}
