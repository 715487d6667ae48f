"""Classification data sets named in the config: which layout a path holds is told by its content.

* a folder with one folder of images per class (class_folders.py);
* an npz of encoded images (jpeg_npz.py);
* CIFAR-10 as published for Python: `cifar-10-python.tar.gz`, or the folder it unpacks to (cifar_python.py);
* ImageNet as published (imagenet_tars.py): `ILSVRC2012_img_train.tar`, or a folder of the per-class tars in it;
  `ILSVRC2012_img_val.tar` with `ILSVRC2012_devkit_t12.tar.gz` beside it; or the folder that holds these archives.

Where a path holds training and held-out images, a split says which: "train", or "val" ("test" is the same).
"""

from pathlib import Path
from typing import Union

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from sact_det.base.errors import InputError
from sact_det.data.cifar_python import CifarPython, is_cifar_python
from sact_det.data.class_folders import ClassFolders
from sact_det.data.image_files import is_visible
from sact_det.data.imagenet_tars import TRAIN_TAR, VAL_TAR, ClassTars, ValidationTar
from sact_det.data.jpeg_npz import JpegNpz
from sact_det.data.labelled_images import LabelledImages

SPLITS = ("", "train", "val", "test")


def register_image_sources(cfg: CfgNode) -> None:
    """Registers every entry of DATASETS.CLASSIFICATION; they are read when they are used.

    Registering a name again replaces it.

    Raises:
        InputError: an entry is neither (name, path) nor (name, path, split).
    """
    for entry in cfg.DATASETS.CLASSIFICATION:
        is_entry = isinstance(entry, (list, tuple)) and len(entry) in (2, 3) and all(isinstance(p, str) for p in entry)
        if not is_entry or (len(entry) == 3 and entry[2] not in SPLITS):
            raise InputError(
                "DATASETS.CLASSIFICATION: each entry must be (name, path) or (name, path, split) with split 'train', "
                f"'val' or 'test'; got {entry!r}"
            )
        name, path, split = (*entry, "")[:3]
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
        DatasetCatalog.register(name, lambda path=path, split=split: open_images(path, split))


def open_images(path: Union[str, Path], split: str = "") -> LabelledImages:
    """The labelled images at `path`.

    Args:
        path: of a file or folder, in one of the layouts above.
        split: which part, where the path holds more than one.

    Raises:
        InputError: there is no such file or folder, its layout is none of these, it is broken, or a split is missing.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder of images")
    if is_cifar_python(path):
        return CifarPython(path, train=_wants_training(path, split))
    if path.is_dir() and ((path / TRAIN_TAR).is_file() or (path / VAL_TAR).is_file()):
        both = (path / TRAIN_TAR).is_file() and (path / VAL_TAR).is_file()
        train = _wants_training(path, split) if both or split else (path / TRAIN_TAR).is_file()
        return ClassTars([path / TRAIN_TAR]) if train else ValidationTar(path / VAL_TAR)
    if split:
        raise InputError(f"{path}: holds no splits; expected (name, path), without {split!r}")
    if path.is_dir():
        tars = sorted(tar for tar in path.glob("*.tar") if is_visible(tar.name))
        return ClassTars(tars) if tars else ClassFolders(path)
    if path.suffix == ".npz":
        return JpegNpz(path)
    if path.suffix == ".tar":
        return ValidationTar(path) if path.name == VAL_TAR else ClassTars([path])
    raise InputError(
        f"{path}: not a layout of labelled images; expected a folder with one folder per class, an npz, or the "
        "archives of CIFAR-10 (for Python) or ImageNet"
    )


def _wants_training(path: Path, split: str) -> bool:
    if not split:
        raise InputError(f"{path}: holds training and held-out images; name the split: (name, path, 'train' or 'val')")
    return split == "train"
