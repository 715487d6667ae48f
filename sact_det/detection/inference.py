"""A detector over many images without annotations, shared by processes: what it found, and what it spent.

Results are in COCO's format or in FiftyOne's (fiftyone.py).
"""

import hashlib
import itertools
import json
import logging
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Optional, Sequence

import torch
from detectron2.config import CfgNode
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import sact_det
from sact_det.base.errors import InputError
from sact_det.base.files import file_sha256, writable_file, write_json, write_lines
from sact_det.base.parts import Parts
from sact_det.base.text_files import read_json
from sact_det.base.torchrun import Place
from sact_det.data.image_files import distinct_stems
from sact_det.detection.box_evaluator import coco_results
from sact_det.detection.evaluator import PonderEvaluator, detector_row
from sact_det.detection.fiftyone import write_labels
from sact_det.detection.image_names import Categories, image_ids
from sact_det.detection.loader import CheckedMapper
from sact_det.detection.predictor import load_detector
from sact_det.detection.reference import DetectorReference
from sact_det.engine.checkpoint import local_weights
from sact_det.engine.evaluator import ponder_row
from sact_det.engine.failures import sizes_fit
from sact_det.engine.fingerprint import fingerprint

FORMATS = ("coco", "fiftyone")
PART = 32  # images: what a kill costs a process, at most

_BESIDE = ("images.jsonl", "summary.json", "media.json", "parts")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outputs:
    """The files of a run, and where it keeps its parts.

    Attributes:
        results: what was found, in the order of the images: a list in COCO's result format, or FiftyOne's labels.
        rows: what each image took, a line of json for every image; one that cannot be read has its "error".
        summary: means over images, and which ids stand for what.
        media: where the images are that FiftyOne's labels name; in COCO's format there is no such file.
        parts: a folder, gone when all is done.
    """

    results: Path
    rows: Path
    summary: Path
    media: Path
    parts: Path

    @classmethod
    def beside(cls, results: str) -> "Outputs":
        """Those of RESULTS.json: RESULTS.images.jsonl, RESULTS.summary.json, RESULTS.media.json and RESULTS.parts/."""
        path = Path(results)
        if path.suffix != ".json":
            raise InputError(f"{results}: the output must be called something.json")
        further = (path.with_name(f"{path.stem}.{name}") for name in _BESIDE)
        return cls(path, *further)

    def run(self) -> Optional[str]:
        """Which run has written all of them; None: none has."""
        if not all(path.is_file() for path in (self.results, self.rows, self.summary)):
            return None
        content = read_json(self.summary)
        return content.get("run") if isinstance(content, dict) else None


class _Images(Dataset):
    """Images as a detector takes them in evaluation, each with its index; what cannot be read is an error in words."""

    def __init__(self, cfg: CfgNode, paths: Sequence[Path], indices: Sequence[int]):
        self._mapper = CheckedMapper(cfg, is_train=False)
        self._paths, self._indices = paths, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: int) -> tuple[int, dict[str, Any]]:
        index = self._indices[place]
        try:
            return index, self._mapper({"file_name": str(self._paths[index])})
        except (InputError, OSError) as error:
            return index, {"error": str(error)}


_Item = tuple[int, dict[str, Any]]  # of _Images
_Found = tuple[list[dict[str, Any]], dict[str, Any]]  # the results of an image, and its row


class _Run:
    """A detector, and what is kept of an image."""

    def __init__(self, cfg: CfgNode, paths: Sequence[Path], ids: Sequence[Any], categories: Categories):
        self.model = load_detector(cfg)
        self._detector = DetectorReference.from_config(cfg)
        self._paths, self._ids, self._categories = paths, ids, categories
        self.seconds = 0.0  # in the network

    @torch.no_grad()
    def __call__(self, items: Sequence[_Item]) -> list[_Found]:
        """What is found in images that are computed together; there is but one item if it cannot be read."""
        if "error" in items[0][1]:
            ((index, item),) = items
            return [([], {**self._names(index), "error": item["error"]})]
        start = time.perf_counter()
        outputs = self.model([item for _, item in items])
        self.seconds += time.perf_counter() - start
        return [self._found(index, item, output) for (index, item), output in zip(items, outputs, strict=True)]

    def _names(self, index: int) -> dict[str, Any]:
        return {"image_id": self._ids[index], "file_name": str(self._paths[index])}

    def _found(self, index: int, item: dict[str, Any], output: dict[str, Any]) -> _Found:
        names, size = self._names(index), (item["image"].shape[1], item["image"].shape[2])
        found = coco_results(output["instances"], names["image_id"])
        for result in found:
            result["category_id"] = self._categories.ids[result["category_id"]]
        row = {**ponder_row(output["ponder"], size, self.model.reference), "box_head_flops": output["box_head_flops"]}
        return found, {**names, **row, **detector_row(output, size, self._detector)}


def predict_images(
    cfg: CfgNode, paths: Sequence[Path], output: str, place: Place, output_format: str = "coco", batch: int = 1
) -> None:
    """Detects in images and writes `Outputs`; what was done before a kill is not done again.

    Several processes, of one machine or of several that have the folder in common, share the images. The files do not
    depend on their number, if each of them has as many threads. An image that cannot be read is passed over and listed.
    In batches results are the same to rounding.

    Args:
        cfg: of a trained detector.
        paths: of the images.
        output: RESULTS.json.
        place: which of the processes this is.
        output_format: of RESULTS.json, one of FORMATS.
        batch: so many images are computed at a time, at most: those of PART that have one shape in the network.

    Raises:
        InputError: weights or config cannot be used, no image can be read, or parts of another run are in the way.
        OSError: the output cannot be written.
    """
    files, categories = Outputs.beside(output), Categories.of(cfg)
    for path in (files.results, files.rows, files.summary):
        writable_file(path)
    ids, ids_said = image_ids(cfg, paths)
    run = _identity(cfg, paths, ids, categories, output_format, batch)
    parts = Parts(files.parts, run, len(paths), PART, lambda: files.run() == run)
    missing = parts.missing(place.rank, place.world_size)
    if missing:
        what = "an image" if batch == 1 else f"--batch {batch}"
        with sizes_fit(cfg, what, ("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST")):
            _work(cfg, paths, parts, missing, _Run(cfg, paths, ids, categories), place, batch)
    about = {"run": run, "version": sact_det.__version__, "image_ids": ids_said, **categories.said()}
    names = distinct_stems(paths) if output_format == "fiftyone" else None
    if parts.join(lambda: _write(files, parts, about, categories, names)):
        logger.info("What was found is in %s, what each image took in %s and %s", *_outputs(files))
    elif files.run() == run:
        logger.info("%s is there, of this config, these weights and images", files.results)


def _outputs(files: Outputs) -> tuple[Path, Path, Path]:
    return files.results, files.rows, files.summary


def _identity(
    cfg: CfgNode, paths: Sequence[Path], ids: Sequence[Any], categories: Categories, output_format: str, batch: int
) -> str:
    """Tells runs apart that may write other files. Raises InputError without weights."""
    if not cfg.MODEL.WEIGHTS:
        raise InputError("MODEL.WEIGHTS is empty: detections need trained weights")
    images = [(str(path), path.stat().st_size if path.is_file() else None) for path in paths]
    said = json.dumps(
        [images, list(ids), list(categories.ids), cfg.MODEL.SACT.EXECUTION, sact_det.__version__, output_format, batch]
    )
    own = fingerprint(cfg, file_sha256(local_weights(cfg.MODEL.WEIGHTS)))
    return hashlib.sha256(f"{own}\n{said}".encode()).hexdigest()


def _work(
    cfg: CfgNode, paths: Sequence[Path], parts: Parts, missing: Sequence[int], run: _Run, place: Place, batch: int
) -> None:
    indices = [index for part in missing for index in parts.items(part)]
    loader = DataLoader(_Images(cfg, paths, indices), batch_size=None, num_workers=cfg.DATALOADER.NUM_WORKERS)
    shown = None if place.rank == 0 else True  # None: where stderr is a terminal
    start = time.perf_counter()
    with tqdm(total=len(indices), unit="image", disable=shown) as progress:
        items = iter(loader)
        for part in missing:
            found: dict[int, _Found] = {}
            sizes: dict[int, list[Any]] = {}
            for together in _batches(itertools.islice(items, len(parts.items(part))), batch):
                own = [index for index, _ in together]
                found.update(zip(own, run(together), strict=True))
                sizes.update((index, [item.get("height"), item.get("width")]) for index, item in together)  # of files
                progress.update(len(together))
            results, rows = zip(*(found[index] for index in parts.items(part)))
            content = {"results": [*itertools.chain(*results)], "images": [*rows]}
            parts.write(part, {**content, "sizes": [sizes[index] for index in parts.items(part)]})
    seconds = time.perf_counter() - start
    logger.info(
        "Process %d of %d: %d images in %.1f s, %.2f a second; the network took %.4f s an image",
        place.rank + 1,
        place.world_size,
        len(indices),
        seconds,
        len(indices) / seconds,
        run.seconds / len(indices),
    )


def _batches(items: Iterable[_Item], batch: int) -> Iterator[list[_Item]]:
    """Images of one shape, since Detectron2's detectors propose regions in the padding, too; unreadable ones alone."""
    if batch == 1:
        yield from ([item] for item in items)
        return
    by_shape: dict[tuple[int, ...], list[_Item]] = defaultdict(list)
    for item in items:
        if "error" in item[1]:
            yield [item]
        else:
            by_shape[tuple(item[1]["image"].shape)].append(item)
    for alike in by_shape.values():
        yield from (alike[first : first + batch] for first in range(0, len(alike), batch))


def _write(
    files: Outputs, parts: Parts, about: dict[str, Any], categories: Categories, names: Optional[Sequence[str]]
) -> None:
    """In FiftyOne's format if images have names."""
    rows = [row for part in parts.read() for row in part["images"]]
    read, unreadable = ([row for row in rows if ("error" in row) is wrong] for wrong in (False, True))
    if not read:
        raise InputError(f"none of the {len(rows)} images can be read: {rows[0]['error']}")
    if names is None:
        results = (json.dumps(own) for part in parts.read() for own in part["results"])
        write_lines(files.results, results, "[\n", ",\n", "\n]\n")
    else:
        write_labels(files.results, files.media, parts.read(), names, categories)
    write_lines(files.rows, map(json.dumps, rows), "", "\n", "\n")
    failed = [row["file_name"] for row in unreadable]
    write_json(files.summary, {**about, "unreadable": failed, "summary": PonderEvaluator.summarize(read)})
    if failed:
        logger.warning("%d of %d images cannot be read; %s says why", len(failed), len(rows), files.rows)
