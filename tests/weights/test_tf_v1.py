"""The reader of V1 checkpoints, against TensorFlow, a writer of the format, and damage."""

from pathlib import Path

import numpy as np
import pytest
import tf_writers
from tf_writers import nested, number, write_bundle, write_v1

from sact_det.base.errors import InputError
from sact_det.weights.tf_bundle import TensorBundle
from sact_det.weights.tf_checkpoint import open_checkpoint
from sact_det.weights.tf_v1 import V1Checkpoint

TENSORS = {
    "resnet/conv/weights": np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32),
    "resnet/conv/biases": np.linspace(-1, 1, 5, dtype=np.float32),
    "double": np.array([[1e300, -1e-300]]),
    "half": np.array([1.5, -2.0, 65504.0], np.float16),
    "global_step": np.array(1 << 40, np.int64),
    "counts": np.array([-1, 0, 300], np.int32),
    "pixels": np.array([0, 255], np.uint8),
    "flags": np.array([True, False, True]),
    "empty": np.zeros((0, 7), np.float32),
}


TENSORFLOW = Path(__file__).resolve().parents[1] / "fixtures" / "tensorflow"


def test_variables_of_many_types_are_those_of_tensorflow():
    checkpoint, expected = V1Checkpoint(TENSORFLOW / "types" / "v1m"), np.load(TENSORFLOW / "types" / "expected.npz")
    assert checkpoint.keys() == set(expected.files) - {"uint64"} | {"part"}
    for name in checkpoint.keys() - {"part"}:
        assert checkpoint[name].dtype == expected[name].dtype and np.array_equal(checkpoint[name], expected[name])
    with pytest.raises(InputError, match="v1m: part is a partitioned variable"):
        checkpoint["part"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_v1(tmp_path / "resnet.ckpt", TENSORS)
    return tmp_path / "resnet.ckpt"


def test_tensors_of_all_types_come_back(path: Path):
    checkpoint = V1Checkpoint(path)
    assert list(checkpoint) == sorted(TENSORS) and len(checkpoint) == len(TENSORS)
    for name, value in checkpoint.items():
        assert (value.dtype, value.shape) == (TENSORS[name].dtype, TENSORS[name].shape)
        assert np.array_equal(value, TENSORS[name])
        assert (checkpoint.entries[name].type_name, checkpoint.entries[name].shape) == (value.dtype.name, value.shape)
    assert checkpoint.files == [path] and "no/such" not in checkpoint
    with pytest.raises(KeyError):
        checkpoint["no/such"]


def test_both_formats_are_opened_by_what_lies_at_the_path(path: Path):
    write_bundle(path.parent / "model-1", TENSORS)
    assert isinstance(open_checkpoint(path), V1Checkpoint)
    assert isinstance(open_checkpoint(path.parent / "model-1"), TensorBundle)
    (path.parent / "checkpoint").write_text('model_checkpoint_path: "resnet.ckpt"')
    assert open_checkpoint(path.parent).prefix == str(path)
    assert all(
        np.array_equal(open_checkpoint(path)[name], value)
        for name, value in TensorBundle(path.parent / "model-1").items()
    )


def test_values_come_in_one_run_or_in_several(tmp_path: Path):
    value = np.arange(6, dtype=np.float32)
    pieces = nested(5, value[:4].tobytes()) + nested(5, value[4:].tobytes())
    write_v1(tmp_path / "v1", {"a": value}, data={"a": pieces})
    assert np.array_equal(V1Checkpoint(tmp_path / "v1")["a"], value)


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        dict(V1Checkpoint(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_consumer": 2}, "asks for readers of 2 or later"),
        ({"num_slices": 2}, "a is a partitioned variable"),
        ({"num_slices": 0}, "a is a partitioned variable"),
        ({"data": {"a": b""}}, r"a has 0 values; expected 6 for \[2, 3\]"),
        ({"data": {"a": nested(5, bytes(4))}}, "a has 1 values; expected 6"),
        ({"data": {"a": nested(5, bytes(23))}}, "damaged values of a"),
        ({"data": {"a": b"\xff"}}, "damaged values of a: a number is cut off"),
        ({"data": {"a": number(5, 3)}}, "a has 0 values"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, change: dict, message: str):
    write_v1(tmp_path / "v1", {"a": np.zeros((2, 3), np.float32)}, **change)
    assert_refused(tmp_path / "v1", message)


def test_another_table_and_no_table_are_refused(tmp_path: Path):
    tf_writers.write_table(tmp_path / "v1", {b"some": b"\x08\x01"})
    assert_refused(tmp_path / "v1", "not a V1 checkpoint, or damaged: no table of contents")
    write_bundle(tmp_path / "v2", TENSORS)
    assert_refused(tmp_path / "v2.index", "not a V1 checkpoint, or damaged")
    (tmp_path / "text").write_text("hello")
    assert_refused(tmp_path / "text", "not a TensorFlow checkpoint's table, or truncated")


def test_values_that_are_not_in_the_file_are_named(tmp_path: Path):
    contents = nested(1, nested(1, b"gone") + number(3, 1) + nested(4, b""))
    tf_writers.write_table(tmp_path / "v1", {b"": nested(1, contents)})
    assert_refused(tmp_path / "v1", "gone is in the table of contents, but its values are not in the file")


def test_any_flipped_byte_or_cut_is_refused_or_harmless(path: Path):
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        content = bytearray(whole)
        if trial % 3 == 0:
            del content[rng.integers(len(whole)) :]
        start = len(whole) - 60 if trial % 3 == 1 else 0
        for position in rng.integers(start, len(whole), 2):
            if position < len(content):
                content[position] ^= rng.integers(1, 256)
        path.write_bytes(content)
        try:
            assert all(np.array_equal(value, TENSORS[name]) for name, value in V1Checkpoint(path).items())
        except InputError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 200
