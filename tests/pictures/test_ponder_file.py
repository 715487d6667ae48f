import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.base.errors import InputError
from sact_det.pictures.ponder_file import PonderFile
from sact_det.pictures.ponder_writer import block_scope, writing_ponder_file

NAMES = ["a/cat.jpg", "test.npz: image 7", "Zürich.png", "d.png"]


def outcome(halting, family="imagenet"):
    """Four images and their record under a small network."""
    units = (1, 2, 3, 2) if family == "imagenet" else (2, 3, 2)
    model = build_classifier(units, halting=halting, num_classes=3, base_channels=4, family=family)
    pixels = images(4, 37, 50).clamp(-1, 1)
    with torch.no_grad():
        return pixels, randomize(model, pixels)(pixels).ponder


def write(path, halting="sact", family="imagenet", **options):
    pixels, record = outcome(halting, family)
    with writing_ponder_file(path, family, halting, **options) as writer:
        writer.append(NAMES, pixels, record)
    return pixels, record


def contents(path):
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda key, item: arrays.update({key: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return arrays


@pytest.mark.parametrize("family", ["imagenet", "cifar"])
@pytest.mark.parametrize("halting", ["act", "sact"])
def test_what_is_written_is_read(tmp_path, halting, family):
    pixels, record = write(tmp_path / "x.h5", halting, family)
    with PonderFile(tmp_path / "x.h5") as file:
        assert (len(file), file.names, file.rule.name) == (4, NAMES, halting)
        assert file.blocks == [block_scope(name, family) for name in record.blocks]
        for index in range(4):
            np.testing.assert_array_equal(file.image(index), pixels[index].permute(1, 2, 0).numpy())
            actual, expected = file.record(index), record.image(index)
            assert torch.equal(actual.flops, expected.flops) and torch.equal(actual.dense_flops, expected.dense_flops)
            assert torch.equal(actual.map((37, 50)), expected.map((37, 50)))
            for name, block in zip(record.blocks, actual.blocks.values()):
                for key in ("ponder_cost", "num_units", "flops", "halting_distribution"):
                    assert torch.equal(getattr(block, key), getattr(expected.blocks[name], key)), key


def test_blocks_of_cifar_have_the_originals_names():
    assert block_scope("block3", "cifar") == "block_3" and block_scope("block3", "imagenet") == "block3"


def test_images_one_by_one_make_the_same_file_as_a_batch(tmp_path):
    pixels, record = write(tmp_path / "batch.h5")
    with writing_ponder_file(tmp_path / "one_by_one.h5", "imagenet", "sact") as writer:
        for index, name in enumerate(NAMES):
            assert len(writer) == index
            writer.append([name], pixels[index : index + 1], record.image(index))
    one_by_one, batch = contents(tmp_path / "one_by_one.h5"), contents(tmp_path / "batch.h5")
    assert one_by_one.keys() == batch.keys()
    for key, array in batch.items():
        np.testing.assert_array_equal(one_by_one[key], array)


def test_a_compressed_file_has_the_same_content(tmp_path):
    write(tmp_path / "plain.h5")
    write(tmp_path / "gzip.h5", gzip=True)
    plain, compressed = contents(tmp_path / "plain.h5"), contents(tmp_path / "gzip.h5")
    assert all(np.array_equal(plain[key], compressed[key]) for key in plain) and plain.keys() == compressed.keys()
    with h5py.File(tmp_path / "gzip.h5") as file:
        assert file["ponder_cost_map"].compression == "gzip"


def test_a_plain_networks_file_has_flops_and_says_that_there_is_no_more(tmp_path):
    _, record = write(tmp_path / "x.h5", "none")
    blocks = {f"block{index}/flops" for index in (1, 2, 3, 4)}
    arrays = contents(tmp_path / "x.h5")
    assert arrays.keys() == {"images", "file_names", "flops", *blocks}
    np.testing.assert_array_equal(arrays["flops"], record.flops)
    with PonderFile(tmp_path / "x.h5") as file, pytest.raises(InputError, match=r"x\.h5: of a plain network"):
        file.record(0)


def test_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / "x.h5").write_text("precious")
    pixels, record = outcome("sact")
    with pytest.raises(KeyError), writing_ponder_file(tmp_path / "x.h5", "imagenet", "sact") as writer:
        writer.append(NAMES, pixels, record)
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]
    assert (tmp_path / "x.h5").read_text() == "precious"


def test_a_folder_that_cannot_be_written_is_named(locked_folder):
    with pytest.raises(PermissionError) as error, writing_ponder_file(locked_folder / "x.h5", "imagenet", "sact"):
        raise AssertionError("nothing is computed before this is known")
    assert error.value.filename == str(locked_folder / "x.h5")


FULL_DISK = """
import resource, sys, torch
from sact_det.rule.ponder import BlockPonder, PonderRecord
from sact_det.pictures.ponder_writer import writing_ponder_file
cost = torch.rand(2, 8, 8)
block = BlockPonder(cost, torch.ones(2, 8, 8, dtype=torch.long), torch.ones(2, dtype=torch.long), cost[:, None])
record = PonderRecord({"block1": block}, torch.ones(2, dtype=torch.long))
for limit, batches in (1000, 1), (300_000, 2), (300_000, 40):  # fails at once, when the file is closed, midway
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    try:
        with writing_ponder_file(sys.argv[1], "imagenet", "sact") as writer:
            for _ in range(batches):
                writer.append(["a", "b"], torch.rand(2, 3, 100, 100), record)
    except OSError as error:
        print(len(writer), error)
"""


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path):
    path = tmp_path / "x.h5"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [message for _, message in lines] == [f"[Errno 27] File too large: '{path}'"] * 3
    assert int(lines[2][0]) < 80
    assert not list(tmp_path.iterdir())


def as_the_original(path, **changes):
    """A file of the original program: two images, one block, every number a float32."""
    shapes = {"images": (2, 8, 12, 3), "flops": (2,), "block1/flops": (2,)}
    shapes |= {
        "block1/ponder_cost": (2, 2, 3),
        "block1/num_units": (2, 2, 3),
        "block1/halting_distribution": (2, 2, 3, 4),
    }
    with h5py.File(path, "w") as file:
        file.attrs["block_scopes"] = ["block1"]
        for key, shape in {**shapes, **changes}.items():
            if shape is not None:
                file.create_dataset(key, data=np.full(shape, 3.0, np.float32))
    return path


def test_a_file_of_the_original_program_is_read(tmp_path):
    with PonderFile(as_the_original(tmp_path / "x.h5")) as file:
        assert (file.names, file.rule.name, file.blocks) == (["image 0", "image 1"], "sact", ["block1"])
        record = file.record(1)
        assert record.flops.tolist() == [3] and record.blocks["block1"].num_units.dtype == torch.int64
        assert torch.equal(record.map((8, 12)), torch.full((1, 8, 12), 3.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "it has no numbers under images"),
        ({"images": (2, 8, 12, 4)}, "images has shape"),
        ({"images": (0, 8, 12, 3), "flops": (0,), "block1/flops": (0,)}, "block1/ponder_cost has shape"),
        ({"flops": (3,)}, "flops has shape"),
        ({"block1/num_units": None}, "it has no numbers under block1/num_units"),
        ({"block1/num_units": (2, 2, 2)}, "block1/num_units has shape"),
        ({"block1/halting_distribution": (2, 2, 3)}, "block1/halting_distribution has shape"),
        ({"block1/ponder_cost": None, "block1/ponder_cost/group": (1,)}, "it has no numbers under block1/ponder_cost"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, changes, message):
    path = as_the_original(tmp_path / "x.h5", **changes)
    with pytest.raises(InputError, match=message) as error:
        PonderFile(path)
    assert str(error.value).startswith(f"{path}: ")


def truncated(path):
    write(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such HDF5 file"),
        (lambda path: path.write_text("no HDF5"), "not an HDF5 file"),
        (lambda path: path.write_bytes(b""), "not an HDF5 file"),
        (lambda path: path.mkdir(), "not an HDF5 file"),
        (truncated, "not an HDF5 file"),
        (lambda path: h5py.File(path, "w").close(), "it has no attribute block_scopes"),
    ],
    ids=["missing", "text", "empty", "folder", "truncated", "of something else"],
)
def test_what_is_no_ponder_file_is_one_line(tmp_path, make, message):
    make(tmp_path / "x.h5")
    with pytest.raises(InputError, match=message) as error:
        PonderFile(tmp_path / "x.h5")
    assert str(tmp_path / "x.h5") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1, 1e300])
@pytest.mark.parametrize("key", ["images", "flops", "block1/ponder_cost", "block1/num_units", "block1/flops"])
def test_numbers_that_no_network_makes_are_named_with_their_image(tmp_path, key, value):
    path = as_the_original(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        values = file[key][()].astype(np.float64)
        values.flat[-1] = value
        del file[key]
        file[key] = values
    with PonderFile(path) as file:
        assert np.isfinite(file.image(0)).all() and file.record(0).flops.item() == 3
        if key == "images" and value == -1:  # black is a colour
            assert file.image(1).min() == -1
            return
        with pytest.raises(InputError) as error:
            file.image(1) if key == "images" else file.record(1)
    assert str(error.value).startswith(f"{path}: {value:g} among {key} of image 1 (image 1); expected ")


def test_a_block_that_is_named_twice_is_refused(tmp_path):
    path = as_the_original(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["block_scopes"] = ["block1", "block1"]
    with pytest.raises(InputError, match="block_scopes names a block twice: block1, block1"):
        PonderFile(path)
