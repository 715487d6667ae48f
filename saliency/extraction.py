"""The ponder maps of a trained model for the images of a data set: the one file here that needs torch and Detectron2.

A map has the size of the image as the model sees it: every block's ponder cost enlarged to it by the original's rule,
and summed (`PonderRecord.map`). The parts of the sum are kept (saliency/cache.py) under a fingerprint of the weights,
the model's config and that size, and under a digest of the image; what has been made is not made again.
"""

import hashlib
import os
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any, Mapping, Optional, Union

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.utils import comm
from torch import Tensor
from torch.multiprocessing import ProcessExitedException

from sact_det.base.errors import InputError, one_line
from sact_det.base.files import file_sha256
from sact_det.classification.predictor import load_classifier
from sact_det.classification.preprocessing import whole_image, whole_size
from sact_det.detection.predictor import Predictor
from sact_det.engine.checkpoint import local_weights
from sact_det.engine.fingerprint import budgets_sha256
from sact_det.engine.launch import check_launch, launch
from sact_det.network.halting_rule import halting_rule
from sact_det.rule import ledger
from sact_det.rule.ponder import PonderRecord
from saliency.cache import MapCache
from saliency.dataset import FixationDataset, FixationImage

# Longer edge that a model sees an image at, in pixels: of CAT2000's 1920x1080 it makes the paper's 320x180 and 640x360.
LONGER_EDGE = {"SACTClassifier": 320, "SACTGeneralizedRCNN": 640, "SACTRetinaNet": 640}

_RULE = 2  # raised with every change that alters the maps


class PonderModel:
    """A trained SACT model as a function from images to ponder maps.

    A classifier's images are resized as for its pictures (legacy bilinear), a detector's as in its evaluation (Pillow's
    bilinear), both to `longer_edge`, keeping the aspect. Of a detector only the extractor runs.

    Args:
        cfg: from `sact_det.tasks.load_config`; MODEL.WEIGHTS names a file with the whole model.
        longer_edge: in pixels.

    Raises:
        InputError: the model does not halt by position, or its weights are missing, broken or do not fit.
    """

    def __init__(self, cfg: CfgNode, longer_edge: int):
        check_halts_by_position(cfg)
        self._longer_edge = longer_edge
        self._is_classifier = cfg.MODEL.META_ARCHITECTURE == "SACTClassifier"
        self._is_bgr = cfg.INPUT.FORMAT == "BGR"
        self._model: Any = load_classifier(cfg) if self._is_classifier else Predictor(cfg).model

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The ponder map, float32 [h, w], of an image uint8 RGB [H, W, 3]; max(h, w) is the longer edge."""
        record, size = self._record(image)
        return record.map(size)[0].numpy()

    def by_block(self, image: np.ndarray) -> np.ndarray:
        """What the map is the sum of: every block's ponder cost enlarged to its size, float32 [B, h, w], in order."""
        record, size = self._record(image)
        parts = (PonderRecord({name: block}, record.dense_flops) for name, block in record.blocks.items())
        return np.stack([part.map(size)[0].numpy() for part in parts])

    @torch.no_grad()
    def _record(self, image: np.ndarray) -> tuple[PonderRecord, tuple[int, int]]:
        item = {"image": self._input(image)}
        size = (item["image"].shape[1], item["image"].shape[2])
        if self._is_classifier:
            record = self._model.classify(self._model.preprocess([item])).ponder
        else:
            images = self._model.preprocess_image([item])
            with ledger.open(images.image_sizes) as spent:
                self._model.backbone(images.tensor)
            (record,) = spent["backbone"]
        return record.on_host().image(0), size

    def _input(self, image: np.ndarray) -> Tensor:
        if self._is_classifier:
            return whole_image(image, self._longer_edge)
        height, width = image.shape[:2]
        resize = T.ResizeTransform(height, width, *whole_size((height, width), self._longer_edge))
        resized = resize.apply_image(image)
        channels = resized[..., ::-1] if self._is_bgr else resized
        return torch.from_numpy(np.ascontiguousarray(channels.transpose(2, 0, 1)))


class ExtractedMaps:
    """The maps of a data set's images in a cache; called with an image's name. Can be sent to other processes.

    Maps are float32 [h, w], or by block [B, h, w].
    """

    def __init__(self, cache: MapCache, keys: Mapping[str, str], by_block: bool):
        self._cache, self._keys, self._by_block = cache, keys, by_block

    def __call__(self, name: str) -> np.ndarray:
        """The map. Raises InputError if it is not there."""
        blocks = self._cache(self._keys[name])
        return blocks if self._by_block else torch.from_numpy(blocks).sum(0).numpy()  # as `PonderRecord.map` adds


def check_halts_by_position(cfg: CfgNode) -> None:
    """Raises InputError if the ponder map of the config's network has one value everywhere."""
    if not halting_rule(cfg.MODEL.SACT.HALTING).by_position:
        raise InputError(
            f"MODEL.SACT.HALTING must be 'sact' for ponder maps to differ from place to place; "
            f"got {cfg.MODEL.SACT.HALTING!r}"
        )


def check_processes(cfg: CfgNode, processes: int, on_gpus: bool) -> None:
    """Raises InputError, naming the option, if there are fewer GPUs, or processes on the CPU are for a model on a GPU.

    Args:
        cfg: of the model.
        processes: the option --num-gpus or, on the CPU, --num-processes.
        on_gpus: which of both.
    """
    check_launch(processes, on_gpus, 1, 0, "auto", torch.cuda.device_count())
    if not on_gpus and cfg.MODEL.DEVICE != "cpu":
        raise InputError(
            f"--num-processes is for MODEL.DEVICE cpu, --num-gpus for GPUs; got MODEL.DEVICE {cfg.MODEL.DEVICE}"
        )


def fingerprint(cfg: CfgNode, longer_edge: int) -> dict[str, Any]:
    """What the maps of a model depend on, beside the image. Raises InputError if the weights cannot be read."""
    weights = cfg.MODEL.WEIGHTS
    if not weights:
        raise InputError("MODEL.WEIGHTS is empty: name trained weights")
    model = cfg.MODEL.clone()
    del model["WEIGHTS"], model["DEVICE"], model["SACT"]["EXECUTION"]  # the maps depend on none beyond rounding
    return {
        "rule": _RULE,
        "longer_edge": longer_edge,
        "weights_sha256": file_sha256(local_weights(weights)),
        "budgets": budgets_sha256(cfg),
        "model": model,
        "format": cfg.INPUT.FORMAT,
    }


def extract_maps(
    cfg: CfgNode,
    dataset: FixationDataset,
    folder: Union[str, Path],
    longer_edge: Optional[int] = None,
    *,
    processes: int = 1,
    on_gpus: Optional[bool] = None,
    by_block: bool = False,
) -> ExtractedMaps:
    """The ponder maps of all images; makes those that the cache lacks.

    Args:
        cfg: of the model, as `PonderModel` takes it.
        dataset: the images.
        folder: of the cache.
        longer_edge: of the images as the model sees them, in pixels; default: LONGER_EDGE's.
        processes: that share the images. The maps do not depend on it. With more than one, the calling script needs
            `if __name__ == "__main__":`.
        on_gpus: whether each of them has a GPU; else they share the CPU. None: if there are any.
        by_block: maps are those of every block, as `PonderModel.by_block` makes them, instead of their sums.

    Raises:
        InputError: the model cannot be used, an image cannot be read, the cache cannot be written, or there are fewer
            GPUs than processes.
    """
    check_halts_by_position(cfg)
    longer_edge = LONGER_EDGE[cfg.MODEL.META_ARCHITECTURE] if longer_edge is None else longer_edge
    images = {_key(image): image for image in dataset}
    shapes = {key: whole_size(image.shape, longer_edge) for key, image in images.items()}
    cache = MapCache(folder, {**fingerprint(cfg, longer_edge), "by_block": True}, shapes, by_block=True)
    missing = {key: images[key] for key in cache.missing(list(images))}
    processes = min(processes, max(len(missing), 1))
    on_gpus = torch.cuda.is_available() if on_gpus is None else on_gpus
    if processes > 1:
        check_processes(cfg, processes, on_gpus)
    if missing and processes == 1:
        _extract(cfg, longer_edge, missing, cache)
    elif missing:
        _extract_in_processes(processes, on_gpus, cfg, longer_edge, missing, cache)
    return ExtractedMaps(cache, {image.name: key for key, image in images.items()}, by_block)


def _extract(cfg: CfgNode, longer_edge: int, images: Mapping[str, FixationImage], cache: MapCache) -> None:
    model = PonderModel(cfg, longer_edge)
    cache.fill(list(images), lambda key: model.by_block(images[key].pixels()), progress=comm.get_rank() == 0)


def _extract_in_processes(processes: int, on_gpus: bool, *job: Any) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does: processes share the cores
    with tempfile.TemporaryDirectory() as folder:
        problem = Path(folder) / "problem"
        try:
            launch(_extract_share, processes, on_gpus=on_gpus, dist_url="auto", args=(problem, *job))
        except ProcessExitedException as error:
            raise InputError(problem.read_text() if problem.exists() else f"extraction: {one_line(error)}") from error


def _extract_share(
    problem: Path,
    cfg: CfgNode,
    longer_edge: int,
    images: Mapping[str, FixationImage],
    cache: MapCache,
) -> None:
    """Every n-th image, in one of n processes. What is wrong with the input goes to `problem`: one of them says it."""
    share = dict(islice(images.items(), comm.get_rank(), None, comm.get_world_size()))
    try:
        _extract(cfg, longer_edge, share, cache)
    except (InputError, OSError) as error:
        problem.write_text(one_line(error))
        sys.exit(1)
    comm.synchronize()


def _key(image: FixationImage) -> str:
    """The name and a digest of the content: another data set may use the same names."""
    if isinstance(image.source, Path):
        try:
            digest = file_sha256(image.source)
        except OSError as error:
            raise InputError(f"{image.source}: the image cannot be read: {error.strerror}") from error
    else:
        digest = hashlib.sha256(repr(image.source.shape).encode() + image.source.tobytes()).hexdigest()
    return f"{image.name}-{digest[:16]}"
