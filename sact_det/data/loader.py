"""The training stream: a pure function of the seed and the iteration.

Which images make up batch i, and how each of them is augmented, depends on nothing else: neither on the number of
loading workers nor of processes, nor on where a run was interrupted. So a resumed run goes on exactly where the
uninterrupted one would be, and two processes train on the batches of one.
"""

import itertools
import logging
import random
from typing import Any, Callable, Iterator, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data.common import DatasetFromList
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from sact_det.errors import InputError, one_line

logger = logging.getLogger(__name__)

Draw = tuple[int, int]  # (position in the stream, index of the image)


def derived_seed(*parts: int) -> int:
    """A 32-bit seed that is a well-mixed function of its parts."""
    return int(np.random.SeedSequence([part % 2**32 for part in parts]).generate_state(1)[0])


class BatchStream(Sampler[list[Draw]]):
    """Infinite batches of draws for one process, from one shuffled stream for all.

    Every epoch is a new permutation. With `groups`, a global batch holds images of one group only (Detectron2's
    aspect-ratio grouping); images wait until their group has enough.

    Args:
        size: images in the data set.
        batch_size: of all processes together; must be divisible by `world_size`.
        seed: of the permutations.
        groups: group of each image, or None for a single one.
        rank, world_size: this process takes every world_size-th image of each batch.

    Attributes:
        start: batches to skip; set it before iterating to resume.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        groups: Sequence[int] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ):
        if batch_size < 1 or batch_size % world_size:
            raise InputError(
                "SOLVER.IMS_PER_BATCH must be a positive multiple of the number of processes, "
                f"{world_size}; got {batch_size}"
            )
        self._size = size
        self._batch_size = batch_size
        self._seed = seed
        self._groups = groups
        self._rank, self._world_size = rank, world_size
        self.start = 0

    def _draws(self) -> Iterator[Draw]:
        generator = torch.Generator()
        position = 0
        for epoch in itertools.count():
            generator.manual_seed(derived_seed(self._seed, epoch))
            for index in torch.randperm(self._size, generator=generator).tolist():
                yield position, index
                position += 1

    def _batches(self) -> Iterator[list[Draw]]:
        waiting: dict[int, list[Draw]] = {}
        for draw in self._draws():
            group = 0 if self._groups is None else self._groups[draw[1]]
            bucket = waiting.setdefault(group, [])
            bucket.append(draw)
            if len(bucket) == self._batch_size:
                del waiting[group]
                yield bucket

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in itertools.islice(self._batches(), self.start, None):
            yield batch[self._rank :: self._world_size]


class SeededMap(Dataset):
    """Maps a dataset dict under random generators seeded by its position in the stream."""

    def __init__(self, dicts: Sequence[dict[str, Any]], mapper: Callable[[dict[str, Any]], dict[str, Any]], seed: int):
        self._dicts, self._mapper, self._seed = dicts, mapper, seed

    def __len__(self) -> int:
        return len(self._dicts)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        position, index = draw
        seed = derived_seed(self._seed, position)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  (what Detectron2's augmentations draw from)
        # torch's generator stays untouched: with no workers it is the model's.
        return self._mapper(self._dicts[index])


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
    try:
        return get_detection_dataset_dicts(list(names), filter_empty=filter_empty)
    except AssertionError as error:
        raise InputError(f"{', '.join(names)}: no usable images: {one_line(error)}") from error


def build_train_loader(cfg: CfgNode) -> DataLoader:
    """Batches of mapped dicts for this process, endless.

    Reads DATASETS.TRAIN, SOLVER.IMS_PER_BATCH, SEED and DATALOADER.{NUM_WORKERS, ASPECT_RATIO_GROUPING,
    FILTER_EMPTY_ANNOTATIONS}. With SEED < 0 the stream is another one in every run, and after every resume.

    Raises:
        InputError: there is no such data set, it has nothing to train on, or a batch cannot be split evenly.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN is empty: it must name a data set")
    dicts = _dataset_dicts(cfg.DATASETS.TRAIN, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    grouping = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    stream = BatchStream(
        size=len(dicts),
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        seed=seed,
        groups=[int(d["width"] > d["height"]) for d in dicts] if grouping else None,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
    )
    return DataLoader(
        SeededMap(DatasetFromList(dicts, copy=False), CheckedMapper(cfg, is_train=True), seed),
        batch_sampler=stream,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=list,
        # Starting to iterate draws from this one, not from the model's.
        generator=torch.Generator(),
    )


def build_test_loader(cfg: CfgNode, name: str) -> DataLoader:
    """Detectron2's test loader over all images of `name`, one image at a time. Raises InputError for a bad data set."""
    dicts = _dataset_dicts([name], filter_empty=False)
    mapper = CheckedMapper(cfg, is_train=False)
    return build_detection_test_loader(dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)
