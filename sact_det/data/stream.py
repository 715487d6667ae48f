"""The training stream: a pure function of the seed and the iteration.

Which images make up batch i, and how each of them is augmented, depends on nothing else: neither on the number of
loading workers nor of processes, nor on where a run was interrupted. So a resumed run goes on exactly where the
uninterrupted one would be, and two processes train on the batches of one.
"""

import itertools
import random
from typing import Any, Callable, Iterator, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from sact_det.base.errors import InputError

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
        check_batch_size(batch_size, world_size)
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
        with torch.random.fork_rng(devices=[]):  # with no workers the generator is the model's
            # What torchvision's draw from; torch.manual_seed is for GPUs as well.
            torch.default_generator.manual_seed(seed)
            return self._mapper(self._dicts[index])


def check_batch_size(batch_size: int, world_size: int, parts: int = 1) -> None:
    """Raises InputError, naming the key, if processes cannot share the images of a batch evenly, each in its parts."""
    if parts > 1 and batch_size % (world_size * parts):
        raise InputError(
            f"SOLVER.IMS_PER_BATCH must be a multiple of the number of processes times SOLVER.ACCUMULATION_STEPS, "
            f"{world_size} x {parts}; got {batch_size}"
        )
    if batch_size < 1 or batch_size % world_size:
        raise InputError(
            "SOLVER.IMS_PER_BATCH must be a positive multiple of the number of processes, "
            f"{world_size}; got {batch_size}"
        )


def build_stream_loader(
    cfg: CfgNode,
    dicts: Sequence[dict[str, Any]],
    mapper: Callable[[dict[str, Any]], dict[str, Any]],
    groups: Sequence[int] | None = None,
) -> DataLoader:
    """Batches (lists) of mapped dicts for this process, endless; its batch sampler is a BatchStream.

    Reads SOLVER.IMS_PER_BATCH, SEED and DATALOADER.NUM_WORKERS. With SEED < 0 the stream is another one in every run,
    and after every resume.

    Raises:
        InputError: a batch cannot be split evenly.
    """
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    stream = BatchStream(
        size=len(dicts),
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        seed=seed,
        groups=groups,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
    )
    return DataLoader(
        SeededMap(dicts, mapper, seed),
        batch_sampler=stream,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=list,
        # Starting to iterate draws from this one, not from the model's.
        generator=torch.Generator(),
    )
