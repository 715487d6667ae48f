"""Networks as functions of one tensor: what is recorded of classifiers, backbones and detectors."""

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.export.torchscript_patch import patch_builtin_len
from torch import Tensor, nn

from sact_det.base.errors import InputError
from sact_det.execution import set_execution
from sact_det.export.programs import Axes
from sact_det.rule import ledger
from sact_det.rule.ponder import PonderRecord

_IMAGE_AXES = {1: "height", 2: "width"}
# Fields of Detectron2's Instances -> names of outputs.
_FIELDS = {
    "pred_boxes": "boxes",
    "scores": "scores",
    "pred_classes": "classes",
    "pred_masks": "masks",
    "pred_keypoints": "keypoints",
}


def check_exportable(cfg: CfgNode, format_name: str) -> None:
    """Raises InputError if what a whole detector does depends on numbers that a recording cannot have."""
    sact = cfg.MODEL.SACT
    if format_name == "torch_export":
        raise InputError(
            "--format torch_export: how many boxes Detectron2's detectors propose and keep depends on the image, which "
            "torch.export cannot record; choose onnx or torchscript, or --part backbone"
        )
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
        axes: those of the argument that are dynamic.
    """

    axes: Axes = _IMAGE_AXES

    def __init__(self, model: Any):
        super().__init__()
        set_execution(model, "export")
        self.model = model

    @classmethod
    def reference(cls, model: Any, x: Tensor) -> dict[str, Tensor]:
        """What the model itself gives, in its present execution, under the names of the outputs."""
        raise NotImplementedError


class ClassifierForm(Form):
    """Images float32 [N, 3, H, W], RGB in [0, 255] -> "logits" [N, classes], and what was spent on each."""

    axes = {0: "images", 2: "height", 3: "width"}  # noqa: RUF012

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
        with ledger.open([size]) as spent:
            features = model.backbone(model.preprocess_image([{"image": x}]).tensor)
        return {**features, **_of_one(spent["backbone"][-1], size)}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """See the class."""
        model, height, width = self.model, image.shape[1], image.shape[2]
        step = max(model.backbone.size_divisibility, 1)
        x = (image - model.pixel_mean) / model.pixel_std
        x = F.pad(x, (0, (step - width % step) % step, 0, (step - height % step) % step))
        with ledger.open([(height, width)]) as spent:
            features = model.backbone(x[None])
        return {**features, **_of_one(spent["backbone"][-1], (height, width))}


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
        with patch_builtin_len():  # Detectron2's way to keep lengths of tensors in a recording
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
