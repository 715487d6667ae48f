"""The loaders of classifiers: labelled images behind the training stream."""

from typing import Any, Callable, Optional, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, build_detection_test_loader
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset

from sact_det.base.errors import InputError
from sact_det.classification.augmentation import build_augmentation
from sact_det.data.image_files import naming_image
from sact_det.data.labelled_images import LabelledImages
from sact_det.data.stream import build_stream_loader
from sact_det.data.subsets import evenly


class ImageMapper:
    """From a dict of LabelledImages to an input of the model: "image" becomes [3, H, W], "label" an output's index.

    Args:
        prepare: from uint8 RGB [H, W, 3] to [3, H, W] in [0, 255]; it must be picklable, for loading processes.
        label_offset: 1 if the model's class 0 is background.
    """

    def __init__(self, prepare: Callable[[np.ndarray], Tensor], label_offset: int):
        self._prepare = prepare
        self._label_offset = label_offset

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Maps one dict. Raises InputError, naming the image, if it cannot be used."""
        with naming_image(item["file_name"], "used"):
            image = self._prepare(item["image"])
        return {**item, "image": image, "label": item["label"] + self._label_offset}


def label_offset(classes: Sequence[str], num_classes: int, name: str) -> int:
    """What to add to the labels of data set `name`: 1 if the model has one class more than the data, else 0.

    Raises:
        InputError: the model has neither as many classes as the data nor one more.
    """
    offset = num_classes - len(classes)
    if offset not in (0, 1):
        raise InputError(
            f"MODEL.CLASSIFIER.NUM_CLASSES is {num_classes}, but data set {name!r} has {len(classes)} classes; "
            f"expected {len(classes)}, or {len(classes) + 1} with class 0 for background"
        )
    return offset


def open_data_sets(names: Sequence[str]) -> list[LabelledImages]:
    """The registered data sets, all of the same classes. Raises InputError if one is missing or broken."""
    opened = []
    for name in names:
        images = DatasetCatalog.get(name) if name in DatasetCatalog else None
        if not isinstance(images, LabelledImages):
            raise InputError(f"{name}: no such data set of labelled images; DATASETS.CLASSIFICATION lists yours")
        opened.append(images)
        if images.classes != opened[0].classes:
            raise InputError(f"data set {name!r}: its classes differ from those of {names[0]!r}")
    return opened


def build_train_loader(cfg: CfgNode) -> DataLoader:
    """Batches of mapped dicts for this process, endless.

    Reads DATASETS.TRAIN, INPUT.CLASSIFICATION, MODEL.CLASSIFIER.NUM_CLASSES and what `build_stream_loader` reads.

    Raises:
        InputError: a data set is missing or broken or has other classes, or a batch cannot be split evenly.
    """
    names = cfg.DATASETS.TRAIN
    if not names:
        raise InputError("DATASETS.TRAIN is empty: it must name a data set")
    sources = open_data_sets(names)
    settings = cfg.INPUT.CLASSIFICATION
    prepare = build_augmentation(settings.AUGMENTATION, settings.SIZE_TRAIN, settings.CROP_FRACTION)
    mapper = ImageMapper(prepare, label_offset(sources[0].classes, cfg.MODEL.CLASSIFIER.NUM_CLASSES, names[0]))
    return build_stream_loader(cfg, sources[0] if len(sources) == 1 else ConcatDataset(sources), mapper)  # type: ignore


def build_test_loader(cfg: CfgNode, name: str, most: Optional[int] = None) -> DataLoader:
    """This process's share of all images of `name`, in batches (lists), as the evaluation sees them.

    Args:
        cfg: a classifier's.
        name: of a registered data set.
        most: so many of the images, evenly spread; None: all.

    Raises:
        InputError: the data set is missing or broken or has other classes than the model.
    """
    (images,) = open_data_sets([name])
    settings = cfg.INPUT.CLASSIFICATION
    offset = label_offset(images.classes, cfg.MODEL.CLASSIFIER.NUM_CLASSES, name)
    chosen: Any = images if most is None else Subset(images, evenly(range(len(images)), most))  # type: ignore[arg-type]
    return build_detection_test_loader(
        chosen,
        mapper=ImageMapper(build_augmentation("none", settings.SIZE_TEST, settings.CROP_FRACTION), offset),
        batch_size=settings.BATCH_SIZE_TEST,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
