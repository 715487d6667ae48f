"""Images in one folder per class, ImageNet's usual layout."""

import os
from pathlib import Path

import numpy as np
from typing_extensions import override

from sact_det.base.errors import InputError
from sact_det.data.class_titles import folder_titles
from sact_det.data.image_files import IMAGE_SUFFIXES, is_image_name, read_encoded
from sact_det.data.labelled_images import EncodedImages


class ClassFolders(EncodedImages):
    """The images of ROOT/CLASS/IMAGE; classes are numbered in the sorted order of the folder names.

    Raises:
        InputError: there is no class folder, or one without images (files by their suffix).
    """

    def __init__(self, root: Path):
        self._root = root
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
        if not classes:
            raise InputError(f"{root}: holds no class folders; expected one folder of images per class")
        names: list[bytes] = []
        counts = []
        for name in classes:
            with os.scandir(root / name) as entries:
                files = sorted(e.name for e in entries if is_image_name(e.name) and not e.is_dir())
            if not files:
                raise InputError(f"{root / name}: no images in this class folder ({', '.join(IMAGE_SUFFIXES)})")
            names += (os.fsencode(file) for file in files)
            counts.append(len(files))
        # An array of bytes: a list of a million strings would be copied, page by page, into every loading process.
        self._names = np.array(names)
        super().__init__(classes, np.repeat(np.arange(len(classes)), counts))

    def _path(self, index: int) -> Path:
        return self._root / self.classes[self.labels[index]] / os.fsdecode(self._names[index])

    @property
    @override
    def titles(self) -> list[str]:
        return folder_titles(self.classes, self._root)

    @override
    def name(self, index: int) -> str:
        return str(self._path(index))

    @override
    def encoded(self, index: int) -> bytes:
        return read_encoded(self._path(index))
