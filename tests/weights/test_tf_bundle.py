"""The reader of V2 checkpoints against checkpoints that TensorFlow wrote, and against damage."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import tf_writers
from tf_writers import entry_proto, header_proto, nested, number, shape_proto, write_bundle

from sact_det.base.errors import InputError
from sact_det.weights.protobuf import Message
from sact_det.weights.tf_bundle import TensorBundle, resolve_checkpoint
from sact_det.weights.tf_table import masked_crc32c

ORACLE = Path(__file__).resolve().parents[1] / "fixtures" / "oracle"
CASES = ["sact_small_even", "act_small_even", "vanilla_small_odd", "cifar_sact"]
REAL = ORACLE / "sact_small_even" / "ckpt" / "model-0"
TENSORS = {
    "a/weights": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a/weights/Momentum": np.ones((2, 3, 4), np.float32),
    "b/double": np.linspace(0, 1, 7),
    "b/half": np.array([[1.5], [-2.0]], np.float16),
    "empty": np.zeros((0, 3), np.float32),
    "global_step": np.array(123456789012, np.int64),
    "is_training": np.array([True, False]),
    "pixels": np.arange(256, dtype=np.uint8),
}


def copied(folder: Path) -> str:
    """A writable copy of a real checkpoint; returns its prefix."""
    for file in REAL.parent.iterdir():
        shutil.copyfile(file, folder / file.name)
    return str(folder / REAL.name)


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("case", CASES)
def test_checkpoints_of_tensorflow_hold_what_their_program_says(case: str):
    folder = ORACLE / case
    bundle = TensorBundle(folder / "ckpt")
    variables = {v["name"]: v for v in json.loads((folder / "variables.json").read_text())}
    assert bundle.keys() == variables.keys()
    for name, entry in bundle.entries.items():
        assert (entry.shape, entry.type_name) == (tuple(variables[name]["shape"]), variables[name]["dtype"]), name
        assert (bundle[name].shape, bundle[name].dtype.name) == (entry.shape, entry.type_name)


@pytest.mark.parametrize("case", CASES)
def test_values_are_the_bytes_of_the_data_file_in_the_order_of_the_names(case: str):
    folder = ORACLE / case
    raw, position = (folder / "ckpt" / "model-0.data-00000-of-00001").read_bytes(), 0
    bundle = TensorBundle(folder / "ckpt")
    for variable in sorted(json.loads((folder / "variables.json").read_text()), key=lambda v: v["name"]):
        dtype, count = np.dtype(variable["dtype"]), math.prod(variable["shape"])
        expected = np.frombuffer(raw, dtype, count, position).reshape(variable["shape"])
        assert np.array_equal(bundle[variable["name"]], expected)
        position += count * dtype.itemsize
    assert position == len(raw)


def test_a_training_checkpoint_has_its_slots_beside_the_same_variables():
    bundle, plain = TensorBundle(ORACLE / "sact_small_even" / "ckpt_momentum"), TensorBundle(REAL)
    slots = {name for name in bundle if name.endswith("/Momentum")}
    assert slots and bundle["global_step"] == 123456
    assert {name.removesuffix("/Momentum") for name in slots} <= plain.keys()
    assert bundle.keys() - slots - {"global_step"} == plain.keys() - {"global_step"}
    assert all(bundle.entries[slot].shape == plain.entries[slot.removesuffix("/Momentum")].shape for slot in slots)


def test_variables_of_many_types_over_several_shards_are_those_of_tensorflow():
    folder = ORACLE.parent / "tensorflow" / "types"
    bundle, expected = TensorBundle(folder / "m"), np.load(folder / "expected.npz")
    assert [file.name for file in bundle.files] == ["m.index", *(f"m.data-0000{i}-of-00003" for i in range(3))]
    assert bundle.keys() == {*expected.files, "bfloat16", "part", "text"}
    for name in expected.files:
        assert_equal(bundle[name], expected[name])
    for name, reason in {"bfloat16": "type bfloat16", "part": "a partitioned variable", "text": "type string"}.items():
        with pytest.raises(InputError, match=f"m: {name} is .*{reason}"):
            bundle[name]


@pytest.mark.parametrize("num_shards", [1, 3, 8])
def test_tensors_of_all_types_come_back_from_several_shards(tmp_path: Path, num_shards: int):
    write_bundle(tmp_path / "model", TENSORS, num_shards)
    bundle = TensorBundle(tmp_path / "model")
    assert list(bundle) == sorted(TENSORS) and len(bundle) == len(TENSORS)
    for name, value in bundle.items():
        assert_equal(value, TENSORS[name])
    assert len(bundle.files) == 1 + num_shards and all(file.is_file() for file in bundle.files)


def test_only_the_shards_of_the_tensors_asked_for_are_read(tmp_path: Path):
    write_bundle(tmp_path / "model", TENSORS, num_shards=2)
    (tmp_path / "model.data-00001-of-00002").unlink()
    bundle = TensorBundle(tmp_path / "model")
    assert_equal(bundle["a/weights"], TENSORS["a/weights"])
    with pytest.raises(InputError, match="data-00001-of-00002: no such file; a/weights/Momentum is in this shard of 2"):
        bundle["a/weights/Momentum"]


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError, match="no/such"):
        TensorBundle(REAL)["no/such"]


def test_checksums_are_those_of_rfc_3720():
    vectors = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E}
    for data, crc in vectors.items():
        assert masked_crc32c(data) == ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32
        assert masked_crc32c(data) == tf_writers.masked_crc(data)


def test_messages_skip_unknown_fields_and_take_the_last_value():
    data = number(1, 5) + nested(9, b"later version") + tf_writers.fixed32(8, 3) + varint_fixed64(7) + number(1, -6)
    message = Message(data)
    assert (message.integer(1), message.integer(2), message.fixed32(8), bytes(message.bytes(9))) == (
        -6,
        0,
        3,
        b"later version",
    )


def varint_fixed64(field: int) -> bytes:
    return tf_writers.varint(field * 8 + 1) + bytes(8)


# Where a checkpoint is


# Damage


def assert_refused(prefix: object, message: str, *parts: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        dict(TensorBundle(prefix))
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in parts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a TensorFlow checkpoint's table, or truncated: its 0 bytes end in nothing; expected 57fb"),
        (b"hello", "its 5 bytes end in 68656c6c6f"),
        (bytes(1000), "its 1000 bytes end in 0000000000000000"),
        (b"\xff" * 100 + tf_writers.MAGIC, "damaged or truncated: a number of more than 10 bytes"),
        (b"\x7f" * 100 + tf_writers.MAGIC, "damaged or truncated: a block of 127 bytes at 127 ends beyond"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "model.index").write_bytes(content)
    assert_refused(tmp_path / "model", message, str(tmp_path / "model.index"))


@pytest.mark.parametrize("keep", [47, 100, 5000, 10_646])
def test_a_truncated_index_is_refused(tmp_path: Path, keep: int):
    prefix = copied(tmp_path)
    index = Path(f"{prefix}.index")
    index.write_bytes(index.read_bytes()[:keep])
    assert_refused(prefix, f"{index}: not a TensorFlow checkpoint's table, or truncated: its {keep} bytes")


def test_a_truncated_shard_is_refused_by_the_tensor_that_it_cuts(tmp_path: Path):
    prefix = copied(tmp_path)
    shard = Path(f"{prefix}.data-00000-of-00001")
    shard.write_bytes(shard.read_bytes()[:-1])
    bundle = TensorBundle(prefix)
    last = max(bundle)
    assert_refused(prefix, "truncated: it has 1186535 bytes", str(shard), f"{last} needs 1186536")
    assert_equal(bundle[min(bundle)], TensorBundle(REAL)[min(bundle)])


@pytest.mark.parametrize("position", [0, 600_000, -1])
def test_a_flipped_bit_of_a_shard_is_found(tmp_path: Path, position: int):
    prefix = copied(tmp_path)
    shard = Path(f"{prefix}.data-00000-of-00001")
    content = bytearray(shard.read_bytes())
    content[position] ^= 1
    shard.write_bytes(content)
    assert_refused(prefix, r"damaged: the checksum of \S+ is [0-9a-f]{8}; expected [0-9a-f]{8}", str(shard))


def test_a_missing_shard_is_named(tmp_path: Path):
    prefix = copied(tmp_path)
    Path(f"{prefix}.data-00000-of-00001").unlink()
    assert_refused(prefix, f"{prefix}.data-00000-of-00001: no such file")


def test_any_flipped_byte_or_cut_of_the_index_is_refused_or_harmless(tmp_path: Path):
    prefix, expected = copied(tmp_path), dict(TensorBundle(REAL).entries)
    index = Path(f"{prefix}.index")
    whole = index.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        content = bytearray(whole)
        if trial % 3 == 0:
            del content[rng.integers(len(whole)) :]
        # The footer, where no checksum protects, gets its share.
        start = len(whole) - 60 if trial % 3 == 1 else 0
        for position in rng.integers(start, len(whole), rng.integers(1, 4)):
            if position < len(content):
                content[position] ^= rng.integers(1, 256)
        index.write_bytes(content)
        try:
            assert TensorBundle(prefix).entries == expected
        except InputError as error:
            refused += 1
            assert str(index) in str(error) and "\n" not in str(error)
    assert refused > 200


def test_any_bytes_with_sound_checksums_are_refused_or_read(tmp_path: Path):
    """Behind the checksums: the parsers of blocks and messages meet noise."""
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        entry = bytearray(entry_proto(TENSORS["a/weights"], 0, 0))
        header = bytearray(header_proto(1))
        for content in (entry, header):
            for position in rng.integers(0, len(content), rng.integers(0, 3)):
                content[position] = rng.integers(256)
        write_bundle(tmp_path / "m", {}, header=bytes(header), entries={"x": bytes(entry)})
        (tmp_path / "m.data-00000-of-00001").write_bytes(TENSORS["a/weights"].tobytes())
        try:
            assert isinstance(TensorBundle(tmp_path / "m")["x"], np.ndarray)
        except InputError:
            refused += 1
    assert 150 < refused < 300


def foreign(dtype: int, shape: bytes = b"", size: int = 4) -> bytes:
    return number(1, dtype) + nested(2, shape) + number(5, size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"header": header_proto(1, big_endian=True)}, "big-endian; expected little-endian"),
        ({"header": header_proto(1, min_consumer=2)}, "asks for readers of 2 or later; expected up to 1"),
        ({"header": number(1, 0)}, "it has 0 shards"),
        ({"header": b"\xff"}, "a number is cut off"),
        ({"header": b""}, "no header"),
        ({"compression": tf_writers.SNAPPY}, r"compressed \(Snappy\)"),
        ({"compression": 9}, r"compressed \(method 9\)"),
        ({"entries": {"x": foreign(7)}}, "x is of type string; expected numbers"),
        ({"entries": {"x": foreign(14)}}, "x is of type bfloat16"),
        ({"entries": {"x": foreign(99)}}, "x is of type type 99"),
        ({"entries": {"x": foreign(1) + nested(7, b"")}}, "x is a partitioned variable"),
        ({"entries": {"x": foreign(1, shape_proto([3]))}}, r"x has 4 bytes; expected 12 for float32 \[3\]"),
        ({"entries": {"x": foreign(1, shape_proto([-1]))}}, r"'x': the shape \[-1\] is not fully known"),
        ({"entries": {"x": foreign(1, number(3, 1))}}, r"'x': the shape \[\] is not fully known"),
        ({"entries": {"x": foreign(1, shape_proto([1] * 70))}}, "'x': a shape of 70 sides; expected up to 32"),
        ({"entries": {"x": foreign(1) + number(3, 1)}}, "'x': 4 bytes at 0 of shard 1; expected a place in 1 shards"),
        ({"entries": {"x": foreign(1) + number(4, -8)}}, "'x': 4 bytes at -8"),
        ({"entries": {"x": b"\x0c"}}, "'x': field 1 has the unknown wire type 4"),
        ({"entries": {"x": nested(2, b"abc")[:-1]}}, "'x': field 2 is cut off"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, change: dict, message: str):
    write_bundle(tmp_path / "model", {"a": np.zeros(1, np.float32)}, **change)
    assert_refused(tmp_path / "model", message, str(tmp_path / "model"))


def test_the_slices_of_a_partitioned_variable_are_no_tensors_of_their_own(tmp_path: Path):
    whole = foreign(1, shape_proto([3]), 0) + nested(7, nested(1, b""))
    write_bundle(tmp_path / "model", TENSORS, entries={"part": whole, "\0part\0\1": entry_proto(np.zeros(3), 0, 0)})
    bundle = TensorBundle(tmp_path / "model")
    assert bundle.keys() == {*TENSORS, "part"} and bundle.entries["part"].sliced
    assert_equal(bundle["b/half"], TENSORS["b/half"])


def test_a_table_of_something_else_is_refused(tmp_path: Path):
    tf_writers.write_table(tmp_path / "model.index", {b"some": b"database"})
    assert_refused(tmp_path / "model", "not the index of a V2 checkpoint: no header")
    tf_writers.write_table(tmp_path / "model.index", {})
    assert_refused(tmp_path / "model", "not the index of a V2 checkpoint: no header")


def test_a_checkpoint_in_one_file_is_no_bundle(tmp_path: Path):
    tf_writers.write_table(tmp_path / "resnet.ckpt", {b"": b""})
    assert resolve_checkpoint(tmp_path / "resnet.ckpt") == str(tmp_path / "resnet.ckpt")
    assert_refused(tmp_path / "resnet.ckpt", "not a V2 checkpoint, which has a file .*resnet.ckpt.index")
