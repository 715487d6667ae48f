"""Detectron2's count of a detector's operators beside the paper's."""

from typing import Any

import torch
from detectron2.utils.analysis import FlopCountAnalysis
from torch import Tensor

from sact_det.detection.reference import DetectorReference
from sact_det.rule.flops import MULTIPLY_ADD

_PRODUCTS = ("conv", "linear")  # as fvcore calls the operators that the paper counts


@torch.no_grad()
def counts(model: Any, image: Tensor) -> dict[str, int]:
    """FLOPs of a detector on one image, two for a multiply-add.

    fvcore counts what PyTorch records: the dense form, halting branches included, whatever the execution is.

    Args:
        model: in evaluation mode, of kinds that DetectorReference knows.
        image: [3, H, W], as the model takes it.

    Returns:
        "dense": convolutions and linear layers as fvcore counts them; "plain": those of the plain detector with the
        model's own units, by the paper's rule, with as many regions; "spent": those of the plain one in whose place the
        adaptive parts took what they report. Of a plain detector all three are equal if its map is not padded.
    """
    output = model([{"image": image}])[0]
    analysis = FlopCountAnalysis(model, [{"image": image}])
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    operators = analysis.by_operator()
    reference = DetectorReference.of(model)
    arguments = ((image.shape[1], image.shape[2]), output["regions"], output["detections"])
    return {
        "dense": MULTIPLY_ADD * int(sum(operators[name] for name in _PRODUCTS)),
        "plain": reference.flops(*arguments)["total"],
        "spent": reference.flops_with(output["flops"], *arguments)["total"],
    }
