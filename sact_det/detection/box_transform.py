"""Detectron2's boxes of deltas in half as many operators: beside a small image each takes a share of the time."""

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor

from sact_det.base.recording import is_recording


class SideBySideTransform(Box2BoxTransform):
    """Detectron2's Box2BoxTransform, which computes x and y, and widths and heights, side by side.

    Every number is computed as there, so that boxes are equal to the last bit. What is to be learned from, recordings,
    and x and y with weights of their own are left to Detectron2.
    """

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Detectron2's: deltas [N, k * 4], boxes [N, 4] -> boxes [N, k * 4]."""
        of_centre, of_y, of_size, of_height = self.weights
        learns = torch.is_grad_enabled() and (deltas.requires_grad or boxes.requires_grad)
        if learns or is_recording() or of_centre != of_y or of_size != of_height:
            return super().apply_deltas(deltas, boxes)
        deltas = deltas.float()
        low, high = boxes.to(deltas.dtype)[:, None].split(2, 2)  # [N, 1, 2] each
        size = high - low
        moved, scaled = deltas.reshape(len(deltas), deltas.shape[1] // 4, 4).split(2, 2)  # [N, k, 2] each
        centre = moved / of_centre * size + (low + 0.5 * size)
        half = 0.5 * ((scaled / of_size).clamp(max=self.scale_clamp).exp() * size)
        return torch.cat((centre - half, centre + half), 2).reshape(deltas.shape)


def compute_side_by_side(transform: object) -> None:
    """Makes a Box2BoxTransform one of the above, in place; any other object stays as it is."""
    if type(transform) is Box2BoxTransform:
        transform.__class__ = SideBySideTransform
