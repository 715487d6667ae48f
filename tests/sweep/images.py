"""Image files and folders of images that cannot be used."""

import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
from labelled_folders import encoded, noise_image, write_class_folders
from PIL import Image
from tar_files import tar_of

from sweep.harness import (
    CLASSIFIER,
    DRAW_CLASSES,
    DRAW_DETECTIONS,
    EVALUATE_CLASSIFIER,
    EVALUATE_DETECTOR,
    EXPORT,
    Case,
    coco_data,
    file,
    labelled_data,
)


def image_of(samples, form="TIFF", **options):
    """The file of an array."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(samples)).save(buffer, form, **options)
    return buffer.getvalue()


def huge_png(side):
    """A PNG of a few bytes that says it has side x side pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


PNG, JPEG = encoded(noise_image(0, 0)), encoded(noise_image(0, 0), "jpeg")
BAD = {
    "empty.jpg": (b"", "cannot identify image file"),
    "text.jpg": (b"Dear all, find the photograph attached.", "cannot identify image file"),
    "page.png": (b"<!DOCTYPE html><title>404</title>", "cannot identify image file"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "cannot identify image file"),
    "zeros.png": (bytes(1000), "cannot identify image file"),
    "double.jpg": (b"\0\5\x16\7\0\2\0\0Mac OS X        ", "cannot identify image file"),
    "signature.png": (PNG[:8], "cannot identify image file|broken|truncated|Truncated"),
    "cut.png": (PNG[: len(PNG) // 2], "truncated|broken"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "head.jpg": (JPEG[:30], "cannot identify image file|[Tt]runcated"),
    "bomb.png": (huge_png(60000), "decompression bomb"),
    "float.tif": (image_of(np.array([[0, 300]], np.float32)), "samples from 0 to 300; expected numbers from 0 to 1"),
    "nan.tif": (image_of(np.array([[0, np.nan]], np.float32)), "samples from nan to nan"),
    "signed.tif": (image_of(np.array([[-5, 300]], np.int32)), "integers of 32 bits, or with a sign"),
    "stated.tif": (
        image_of(np.array([[0, 5000]], np.uint16), tiffinfo={281: 4095}),
        "samples from 0 to 5000; expected numbers from 0 to 4095",
    ),
    "movie.gif": (b"GIF89a\x01\0", "cannot identify image file|[Tt]runcated|broken"),
}


def in_coco_folder(content):
    """The word for the good images, the first of which is replaced."""

    def write(place):
        folder = shutil.copytree(place.good.coco_images, place.folder / "coco")
        (folder / "1.png").write_bytes(content)
        return str(folder)

    return write


def in_class_folder(content, name="0.png"):
    """The word for class folders, one of whose images has this content."""

    def write(place):
        root = write_class_folders(place.folder / "classes", per_class=1)
        (Path(root) / "leaf" / name).write_bytes(content)
        return root

    return write


def layout(write):
    """The word for a folder that `write` fills."""

    def make(place):
        folder = place.folder / "data"
        folder.mkdir()
        write(folder)
        return str(folder)

    return make


def touched(*names):
    """Fills a folder with files of one byte; a name that ends with a slash is a folder."""

    def write(folder):
        for name in names:
            path = folder / name
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                path.write_bytes(b"x")

    return write


def npz(**arrays):
    """The word for train.npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return file("train.npz", buffer.getvalue())


JPEGS = {"jpeg": np.frombuffer(JPEG, np.uint8), "end": [len(JPEG)], "label": [0], "classes": ["a", "b", "c"]}

CASES = [
    *(
        Case("visualize", rf"{name}: the image cannot be read: .*({says})", *start, "--input", file(name, content))
        for start in (DRAW_DETECTIONS, DRAW_CLASSES)
        for name, (content, says) in BAD.items()
    ),
    *(
        Case(
            "train_net",
            rf"1\.png: the image cannot be used: .*({says})",
            *EVALUATE_DETECTOR,
            *coco_data(images=in_coco_folder(content)),
            leaves=("output/*",),
        )
        for content, says in BAD.values()
    ),
    *(
        Case(
            "train_net",
            rf"leaf/0\.png: the image cannot be read: .*({says})",
            *EVALUATE_CLASSIFIER,
            *labelled_data(in_class_folder(content)),
            leaves=("output/*",),
        )
        for content, says in BAD.values()
    ),
    Case(
        "train_net",
        r"1\.png: the image cannot be used: .*Mismatched image shape",
        *EVALUATE_DETECTOR,
        *coco_data(images=in_coco_folder(PNG)),
        leaves=("output/*",),
    ),
    Case(
        "export_ponder",
        r"leaf/0\.png: the image cannot be read",
        *EXPORT,
        *labelled_data(in_class_folder(BAD["cut.png"][0])),
    ),
    *(
        Case("visualize", says, *DRAW_DETECTIONS, "--input", word)
        for says, word in (
            (r"nowhere: no such image or folder", "nowhere"),
            (r"nowhere/\*\.jpg: no file matches", "nowhere/*.jpg"),
            (r"data: no images in this folder \(\.bmp", layout(touched())),
            (r"data: no images in this folder", layout(touched("._a.jpg", ".b.png", "notes.txt"))),
            (r"data: no images in this folder", layout(touched("a.jpg/", "b/c.jpg"))),
            (
                r"pipe\.jpg: cannot be read \(it is a pipe\); expected a regular image file",
                layout(lambda folder: os.mkfifo(folder / "pipe.jpg")),
            ),
            (r"a\.jpg: no such image", layout(lambda folder: (folder / "a.jpg").symlink_to("nowhere"))),
            (r"/dev/null: cannot be read \(it is a device\); expected a regular image file", "/dev/null"),
        )
    ),
    *(
        Case("train_net", says, *CLASSIFIER, *labelled_data(word))
        for says, word in (
            (r"nowhere: no such file or folder of images", "nowhere"),
            (r"data: holds no class folders", layout(touched())),
            (r"data: holds no class folders", layout(touched("a.png", ".cache/a.png"))),
            (r"data/b: no images in this class folder", layout(touched("a/0.png", "b/notes.txt"))),
            (r"data/b: no images in this class folder", layout(touched("a/0.png", "b/._0.png"))),
            (r"data/b: no images in this class folder", layout(touched("a/0.png", "b/c.png/"))),
            (r"a\.tar: not a readable, uncompressed tar", layout(touched("a.tar"))),
            (r"a\.tar: no images of class a", layout(lambda f: (f / "a.tar").write_bytes(tar_of([("._a.jpg", b"x")])))),
            (r"train\.npz: damaged, pickled, or not an npz", file("train.npz", b"PK\3\4")),
            (r"train\.npz: expected the arrays jpeg, end", npz(jpeg=JPEGS["jpeg"])),
            (r"train\.npz: the arrays do not fit", npz(**{**JPEGS, "end": [3]})),
            (r"train\.npz: the arrays do not fit", npz(**{**JPEGS, "label": [3]})),
            (r"train\.npz: the arrays do not fit", npz(**{**JPEGS, "end": [np.nan]})),
            (r"notes\.txt: not a layout of labelled images", file("notes.txt", "x")),
        )
    ),
]
