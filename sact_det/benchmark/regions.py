"""Regions that do not depend on what a detector proposes, so that every candidate's box head has the same work."""

from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

LEAST_SIDE = 16  # pixels


def random_boxes(number: int, size: tuple[int, int], seed: int) -> Tensor:
    """Boxes [number, 4] as x0, y0, x1, y1, inside an image of (height, width) `size`.

    Sides are drawn evenly on a logarithmic scale, from LEAST_SIDE pixels to the image's own.
    """
    generator = torch.Generator().manual_seed(seed)
    limits = torch.tensor([size[1], size[0]], dtype=torch.float32)
    least = limits.clamp(max=LEAST_SIDE)
    sides = least * (limits / least) ** torch.rand(number, 2, generator=generator)
    corners = (limits - sides) * torch.rand(number, 2, generator=generator)
    return torch.cat([corners, corners + sides], 1)


class GivenRegions(nn.Module):
    """A proposal generator whose work is done, and whose proposals are then replaced by the same boxes for all images.

    Args:
        generator: the real one.
        number: of boxes.
        seed: of the boxes.
    """

    def __init__(self, generator: nn.Module, number: int, seed: int):
        super().__init__()
        self.generator = generator
        self._number, self._seed = number, seed

    def forward(self, images: Any, *args: Any) -> Any:
        """The generator's own losses, and the boxes as its proposals."""
        _, losses = self.generator(images, *args)
        given = []
        for size in images.image_sizes:
            boxes = random_boxes(self._number, size, self._seed).to(images.tensor.device)
            given.append(Instances(size, proposal_boxes=Boxes(boxes), objectness_logits=torch.zeros_like(boxes[:, 0])))
        return given, losses
