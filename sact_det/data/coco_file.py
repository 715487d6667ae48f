"""A file in COCO format, parsed once in a process, whoever asks for it: COCO's own takes seconds and gigabytes."""

import contextlib
import os
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional, Sequence, Union

from sact_det.base.doing import doing
from sact_det.base.garbage_collection import uncollected
from sact_det.data.coco_boxes import CocoBoxes, coco_boxes
from sact_det.data.coco_json import LISTS, read_categories, read_coco
from sact_det.data.coco_shapes import Skeleton, has_segmentations, read_skeleton

_LARGE = 30_000_000  # bytes


class CocoFile:
    """What a detector reads of a file in COCO format. Annotations are checked when `boxes` are first asked for.

    Args:
        json_file: the file; or a list of Pascal VOC or a folder of YOLO (`read_coco`).
        masks: whether annotations keep their polygons.
        required: as in `read_coco`, whose errors are raised.

    Attributes:
        categories: names by id, by ascending id.
        segmented: whether the file has a mask of any object that is no crowd; False without `masks`.
    """

    def __init__(self, json_file: Union[str, Path], masks: bool = False, required: Sequence[str] = LISTS):
        self._json_file = str(json_file)
        with _shown(self._json_file), uncollected():
            self._content = read_coco(json_file, required, polygons=masks)
        self.categories = read_categories(json_file, self._content)
        self.segmented = masks and has_segmentations(self._content)

    @cached_property
    def skeleton(self) -> Optional[Skeleton]:
        """The keypoints that the categories name, or None. Raises InputError if they are no names."""
        return read_skeleton(self._json_file, self._content)

    @cached_property
    def boxes(self) -> CocoBoxes:
        """The objects. Raises InputError for an entry of the file that cannot be used."""
        # The entries go as they are read: a file of 118,000 images has no room for them beside what they become.
        content, self._content["annotations"] = {**self._content}, []
        content["annotations"] = _taken_from(content["annotations"])
        try:
            with _shown(self._json_file, "checking"), uncollected():
                return coco_boxes(self._json_file, content)
        except BaseException:
            forget(self._json_file)  # what is left of it is not the file
            raise


def _shown(json_file: str, what: str = "reading") -> AbstractContextManager[None]:
    """Tells a terminal of files that take seconds."""
    is_large = os.path.isfile(json_file) and os.path.getsize(json_file) >= _LARGE
    return doing(f"{what} {json_file}") if is_large else contextlib.nullcontext()


def _taken_from(entries: list[Any]) -> Iterator[Any]:
    for index, entry in enumerate(entries):
        entries[index] = None
        yield entry


class _Stamp(NamedTuple):
    """What a file must still have for what was read of it to be true."""

    inode: int
    size: int
    nanoseconds: int


_read: dict[tuple[str, bool], tuple[_Stamp, CocoFile]] = {}


def coco_file(json_file: Union[str, Path], masks: bool = False, required: Sequence[str] = LISTS) -> CocoFile:
    """The file, parsed unless this process has done so and it has not changed since; see CocoFile.

    What is kept stays until it is told to go (`forget`). Lists of Pascal VOC and folders of YOLO, which stand for many
    files, are read anew.
    """
    path = os.path.abspath(json_file)
    if not (os.path.isfile(path) and path.endswith(".json")):
        return CocoFile(json_file, masks, required)
    found = os.stat(path)
    stamp = _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)
    kept = _read.get((path, masks))
    if kept is None or kept[0] != stamp:
        kept = _read[path, masks] = (stamp, CocoFile(json_file, masks, required))
    return kept[1]


def forget(json_file: Optional[Union[str, Path]] = None) -> None:
    """Lets go of what this process has read of a file; None: of all."""
    for path, masks in list(_read):
        if json_file is None or path == os.path.abspath(json_file):
            del _read[path, masks]
