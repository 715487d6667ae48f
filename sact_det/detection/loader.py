"""The loaders of detectors: Detectron2's mapper behind our training stream."""

from typing import Any, Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data.common import DatasetFromList
from torch.utils.data import DataLoader

from sact_det.data.stream import build_stream_loader
from sact_det.errors import InputError, one_line


class CheckedMapper(DatasetMapper):
    """DatasetMapper that names the file when an image cannot be used. Raises InputError."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Maps one dataset dict; see DatasetMapper."""
        try:
            return super().__call__(dataset_dict)
        except Exception as error:
            raise InputError(f"{dataset_dict['file_name']}: the image cannot be used: {one_line(error)}") from error


def _dataset_dicts(names: Sequence[str], filter_empty: bool) -> list[dict[str, Any]]:
    for name in names:
        if name not in DatasetCatalog:
            raise InputError(f"{name}: no such data set; DATASETS.COCO_FORMAT lists yours")
    together = ", ".join(names)
    try:
        return get_detection_dataset_dicts(list(names), filter_empty=filter_empty)
    except (InputError, OSError):
        raise
    except AssertionError as error:
        empty = "no usable images: none has a box that is no crowd" if filter_empty else "no images"
        raise InputError(f"{together}: {empty} ({one_line(error)})") from error
    except (ImportError, LookupError, TypeError, ValueError) as error:  # of what Detectron2 or others have registered
        raise InputError(f"{together}: the data set cannot be loaded: {one_line(error)}") from error


def build_train_loader(cfg: CfgNode) -> DataLoader:
    """Batches of mapped dicts for this process, endless.

    Reads DATASETS.TRAIN, DATALOADER.{ASPECT_RATIO_GROUPING, FILTER_EMPTY_ANNOTATIONS} and what `build_stream_loader`
    reads.

    Raises:
        InputError: there is no such data set, it has nothing to train on, or a batch cannot be split evenly.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN is empty: it must name a data set")
    dicts = _dataset_dicts(cfg.DATASETS.TRAIN, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    groups = [int(d["width"] > d["height"]) for d in dicts] if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None
    mapper = CheckedMapper(cfg, is_train=True)
    return build_stream_loader(cfg, DatasetFromList(dicts, copy=False), mapper, groups)


def build_test_loader(cfg: CfgNode, name: str) -> DataLoader:
    """Detectron2's test loader over all images of `name`, one image at a time. Raises InputError for a bad data set."""
    dicts = _dataset_dicts([name], filter_empty=False)
    mapper = CheckedMapper(cfg, is_train=False)
    return build_detection_test_loader(dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)
