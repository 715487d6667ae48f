"""CIFAR-10's pickles: read as what they are, never executed."""

import io
import pickle
import struct
import tarfile

import numpy as np
import pytest

from sact_det.base.errors import InputError
from sact_det.data.image_sources import open_images

FOLDER = "cifar-10-batches-py"
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
PER_BATCH = 3


def batch_data(number):
    return np.random.default_rng(number).integers(0, 256, (PER_BATCH, 3072), dtype=np.uint8)


def batch_labels(number):
    return [(number + offset) % 3 for offset in range(PER_BATCH)]


def python_2_string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + struct.pack("<i", len(raw)) + raw


def python_2_integer(value):
    return b"K" + bytes([value]) if value < 256 else b"J" + struct.pack("<i", value)


def python_2_batch(data, labels):
    """The opcodes that Python 2's cPickle wrote with protocol 2 for {"data": data, "labels": labels}."""
    dtype = (
        b"cnumpy\ndtype\n(" + python_2_string("u1") + b"K\0K\1tR(K\3" + python_2_string("|") + b"NNNJ\xff\xff\xff\xff"
    )
    dtype += b"J\xff\xff\xff\xffK\0tb"
    shape = b"".join(python_2_integer(side) for side in data.shape)
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0t" + python_2_string("b") + b"tR(K\1("
    array += shape + b"t" + dtype + b"I00\n" + python_2_string(data.tobytes()) + b"tb"
    items = b"".join(python_2_integer(label) for label in labels)
    return b"\x80\2}(" + python_2_string("data") + array + python_2_string("labels") + b"](" + items + b"eu."


def python_2_meta(classes):
    return b"\x80\2}(" + python_2_string("label_names") + b"](" + b"".join(map(python_2_string, classes)) + b"eu."


def write_cifar(root, style="python 2", classes=("cat", "dog", "frog")):
    """The published folder, with 3 images per batch."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    for number, name in enumerate(BATCHES):
        if style == "python 2":
            content = python_2_batch(batch_data(number), batch_labels(number))
        else:
            content = pickle.dumps({b"data": batch_data(number), b"labels": batch_labels(number)}, protocol=style)
        (folder / name).write_bytes(content)
    (folder / "batches.meta").write_bytes(python_2_meta(classes))
    return folder


def assert_is_published_content(images, batches):
    pixels = np.concatenate([batch_data(number) for number in batches]).reshape(-1, 3, 32, 32)
    assert images.classes == ["cat", "dog", "frog"]
    assert [item["label"] for item in images] == [label for number in batches for label in batch_labels(number)]
    for item, channels_first in zip(images, pixels, strict=True):
        assert item["image"].flags.c_contiguous
        np.testing.assert_array_equal(item["image"], channels_first.transpose(1, 2, 0))


def test_the_hand_written_python_2_pickle_is_what_pickle_reads(tmp_path):
    folder = write_cifar(tmp_path)
    content = pickle.loads((folder / "data_batch_3").read_bytes(), encoding="bytes")  # our own bytes
    np.testing.assert_array_equal(content[b"data"], batch_data(2))
    assert content[b"labels"] == batch_labels(2)


@pytest.mark.parametrize("style", ["python 2", 3, 4])
@pytest.mark.parametrize("layout", ["folder", "parent", "archive"])
@pytest.mark.parametrize(("split", "batches"), [("train", range(5)), ("test", [5]), ("val", [5])])
def test_images_and_labels_are_read_from_folder_and_archive(tmp_path, style, layout, split, batches):
    folder = write_cifar(tmp_path, style)
    path = {"folder": folder, "parent": tmp_path, "archive": tmp_path / "cifar-10-python.tar.gz"}[layout]
    if layout == "archive":
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, FOLDER)
    images = open_images(path, split)
    assert_is_published_content(images, batches)
    name = BATCHES[batches[0]]
    assert images[1]["file_name"] == f"{path}: {name}: image 1"


def test_numbers_in_names_start_anew_in_every_batch(tmp_path):
    images = open_images(write_cifar(tmp_path), "train")
    assert [images.name(index).rsplit(": ", 2)[1:] for index in (2, 3, 14)] == [
        ["data_batch_1", "image 2"],
        ["data_batch_2", "image 0"],
        ["data_batch_5", "image 2"],
    ]


def refusal(path, split="train"):
    with pytest.raises(InputError) as error:
        open_images(path, split)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_split_must_be_named(tmp_path):
    assert "holds training and held-out images; name the split" in refusal(write_cifar(tmp_path), "")


class Executes:
    """Unpickled by Python's own unpickler, it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def build_on(stand_in):
    """A pickle that sets attributes on what a stand-in's name gives."""
    return b"\x80\2" + stand_in + b"}U\x01xK\1sb."


@pytest.mark.parametrize(
    "make",
    [
        lambda root: pickle.dumps({b"data": Executes(root / "ran"), b"labels": [0]}, protocol=2),
        lambda root: pickle.dumps({b"data": np.array([Executes(root / "ran")]), b"labels": [0]}, protocol=2),
        lambda root: build_on(b"cnumpy\nndarray\n"),
        lambda root: build_on(b"cnumpy.core.multiarray\n_reconstruct\n"),
        lambda root: b"cos\nsystem\n(S'touch ran'\ntR.",
        lambda root: b"cbuiltins\neval\n(S'1'\ntR.",
        lambda root: b"cnumpy\nload\n(S'x'\ntR.",
        lambda root: b"\x80\2}U\x04datacnumpy\nndarray\ns.",
        lambda root: pickle.dumps({b"data": np.zeros((3, 3072), np.float32), b"labels": [0] * 3}, protocol=3),
        lambda root: pickle.dumps({b"data": np.zeros((3, 3071), np.uint8), b"labels": [0] * 3}, protocol=3),
        lambda root: pickle.dumps({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0] * 2}, protocol=3),
        lambda root: pickle.dumps({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 3]}, protocol=3),
        lambda root: pickle.dumps({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, protocol=3),
        lambda root: pickle.dumps({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1.5, 1]}, protocol=3),
        lambda root: pickle.dumps({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, True, 2**70]}, protocol=3),
        lambda root: pickle.dumps([1, 2]),
        lambda root: b"no pickle",
        lambda root: b"",
    ],
)
def test_a_pickle_of_anything_else_is_refused_and_not_executed(tmp_path, make, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_cifar(tmp_path)
    (folder / "data_batch_2").write_bytes(make(tmp_path))
    assert refusal(folder).startswith(f"{folder}: data_batch_2: not a ")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["data_batch_4", "test_batch"])
def test_a_missing_batch_is_named(tmp_path, name):
    folder = write_cifar(tmp_path)
    (folder / name).unlink()
    split = "test" if name == "test_batch" else "train"
    assert refusal(folder, split) == f"{folder}: no {name}; expected the files of CIFAR-10 for Python"


@pytest.mark.parametrize("content", [b"", b"no archive", None], ids=["empty", "text", "cut"])
def test_a_damaged_archive_is_refused(tmp_path, content):
    path = tmp_path / "cifar-10-python.tar.gz"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(write_cifar(tmp_path), FOLDER)
    path.write_bytes(buffer.getvalue()[:20_000] if content is None else content)
    assert refusal(path).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [{b"data": 1}, {b"label_names": [b"\xff", b"a", b"b"]}, {b"label_names": 3}, 3])
def test_class_names_that_are_none_are_refused(tmp_path, content):
    folder = write_cifar(tmp_path)
    (folder / "batches.meta").write_bytes(pickle.dumps(content))
    assert refusal(folder).startswith(f"{folder}: batches.meta: not a file of CIFAR-10 for Python")


def test_the_checksum_at_the_end_of_an_archive_is_compared(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(write_cifar(tmp_path), FOLDER)
        archive.addfile(tarfile.TarInfo("last"), io.BytesIO())
    whole = bytearray(buffer.getvalue())
    path.write_bytes(whole)
    assert len(open_images(path, "train")) == 15
    whole[-6] ^= 1  # of the CRC-32, which is followed by the size
    path.write_bytes(whole)
    assert "not a readable tar.gz of CIFAR-10 for Python: CRC check failed" in refusal(path)


def test_no_byte_of_an_archive_changes_an_image_without_a_word(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(write_cifar(tmp_path), FOLDER)
    whole = path.read_bytes()
    for place in range(64, len(whole), len(whole) // 40):  # behind the header with its name, which has no checksum
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        assert refusal(path).startswith(f"{path}: ")
