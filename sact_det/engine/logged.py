"""What a step leaves in Detectron2's event storage: numbers, read once and late (no wait for a GPU amid the forward
pass), and pictures."""

from typing import Mapping, Optional

import numpy as np
import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor

from sact_det.rule.ponder import BlockPonder, PonderRecord

FLOPS_PERCENT = "sact/flops_percent"  # of the plain network's, mean over the images of a step
UNITS = "sact/units"  # evaluated, over all blocks; mean over an image's positions, then over images


def log_after_backward(values: Mapping[str, Tensor], loss: Optional[Tensor] = None) -> None:
    """Puts scalars into the current storage when the backward pass of `loss` has been run, all in one copy.

    Args:
        values: name -> a tensor of one number, all on one device. They are detached.
        loss: a part of what is minimised; None, or one that has no gradient: they are read now.
    """
    storage = get_event_storage()
    iteration, names = storage.iter, list(values)
    vector = torch.stack([value.detach().double().reshape(()) for value in values.values()])

    def put() -> None:
        for name, value in zip(names, vector.tolist()):
            storage.put_scalar(name, value, cur_iter=iteration)

    def reached(_: Tensor) -> None:
        torch.autograd.Variable._execution_engine.queue_callback(put)

    if loss is None or not loss.requires_grad:
        put()
    else:
        loss.register_hook(reached)


def block_means(blocks: Mapping[str, BlockPonder]) -> dict[str, Tensor]:
    """ "sact/NAME_cost" and "sact/NAME_units" of every block: means over an image's positions, then over images."""
    means = {}
    for name, block in blocks.items():
        means[f"sact/{name}_cost"] = block.mean_cost().mean()
        means[f"sact/{name}_units"] = block.mean_units().mean()
    return means


def put_ponder_map(ponder: PonderRecord, image: np.ndarray) -> None:
    """Puts the first image of a batch beside its ponder map.

    Args:
        ponder: of the batch.
        image: uint8 RGB [H, W, 3], as the network saw it.
    """
    from sact_det.pictures.panels import draw_panel  # late: it imports matplotlib, which takes a second

    ponder_map = ponder.image(0).on_host().map(image.shape[:2])[0].numpy()
    picture = draw_panel(image, ponder_map, image_title="image")
    get_event_storage().put_image("Left: image;  Right: ponder map", picture.transpose(2, 0, 1))
