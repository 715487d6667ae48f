"""From a trained classifier and a data set to a ponder file (sact_det/pictures/ponder_file.py)."""

from pathlib import Path
from typing import Any, Iterable, Optional, Union

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from sact_det.base.errors import InputError
from sact_det.classification.loader import ImageMapper, open_data_sets
from sact_det.classification.meta_arch import SACTClassifier
from sact_det.classification.preprocessing import evaluation_image, whole_image, whole_size
from sact_det.data.labelled_images import LabelledImages
from sact_det.pictures.ponder_writer import writing_ponder_file


def build_export_loader(
    cfg: CfgNode, name: str, longer_edge: Optional[int] = None, max_images: Optional[int] = None
) -> DataLoader:
    """The images of data set `name` in batches (lists of dicts); unlike in evaluation, of whatever classes.

    Args:
        cfg: a classifier's.
        name: of a registered data set.
        longer_edge: nothing is cut off, and the longer side gets so many pixels; None: the crop of the evaluation.
        max_images: only the first so many.

    Raises:
        InputError: the data set is missing or broken, or its images would differ in size: a file of ponder costs holds
            images of one.
    """
    (images,) = open_data_sets([name])
    settings = cfg.INPUT.CLASSIFICATION

    def prepare(image: Any) -> Tensor:
        if longer_edge is not None:
            return whole_image(image, longer_edge)
        return evaluation_image(image, settings.SIZE_TEST, settings.CROP_FRACTION)

    count = len(images) if max_images is None else min(max_images, len(images))
    if longer_edge is not None:
        _check_sizes(images, count, longer_edge)
    return build_detection_test_loader(
        Subset(images, range(count)),  # type: ignore[arg-type]
        mapper=ImageMapper(prepare, label_offset=0),
        batch_size=settings.BATCH_SIZE_TEST,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


@torch.no_grad()
def export_ponder(
    model: SACTClassifier, batches: Iterable[list[dict[str, Any]]], path: Union[str, Path], gzip: bool = False
) -> int:
    """Runs the model, in evaluation mode, and writes what it spent.

    Args:
        model: the classifier.
        batches: of dicts with "image" ([3, H, W] RGB in [0, 255]) and "file_name".
        path: of the file; what was there is replaced when everything is written.
        gzip: compress the data sets.

    Returns:
        The number of images.

    Raises:
        InputError: there are no images, or they differ in size.
        OSError: the file cannot be written.
    """
    model.eval()
    size: Optional[tuple[int, ...]] = None
    with writing_ponder_file(path, model.spec.family, model.spec.halting, gzip) as writer:
        for batch in batches:
            for item in batch:
                own = tuple(item["image"].shape[-2:])
                size = size or own
                _check_size(item["file_name"], own, size)
            record = model.classify(model.preprocess(batch)).ponder
            # Not what a config makes of the pixels: the file's range is fixed.
            pixels = torch.stack([item["image"] for item in batch]).float()
            writer.append([item["file_name"] for item in batch], (pixels - 127.5) / 127.5, record)
        if not len(writer):
            raise InputError(f"{path}: there are no images to write")
        return len(writer)


def _check_sizes(images: LabelledImages, count: int, longer_edge: int) -> None:
    """Raises InputError, naming one, if images differ in size: before anything is computed."""
    first = None
    for index in range(count):
        size = whole_size(images.size(index), longer_edge)
        first = first or size
        _check_size(images.name(index), size, first)


def _check_size(name: str, size: tuple[int, ...], first: tuple[int, ...]) -> None:
    if size != first:
        raise InputError(
            f"{name}: {size[0]}x{size[1]} pixels, the images before it have {first[0]}x{first[1]}; a file of "
            "ponder costs holds images of one size: export those of one shape apart, or take the square crop of the "
            "evaluation (without --image-size)"
        )
