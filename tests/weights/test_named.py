"""Published weights by name, from a server on this machine that has the original program's small checkpoints."""

import io
import runpy
import tarfile
from pathlib import Path

import pytest
import torch
from file_server import serve

from sact_det.base.errors import InputError
from sact_det.weights import load_sact_tf, published
from sact_det.weights.named import local_source, weights_named
from sact_det.weights.published import PUBLISHED, find_published
from sact_det.weights.weight_file import load_weights

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "tests/fixtures/oracle/cifar_sact/ckpt"
NAME = "cifar10_resnet_5_sact_1e-2"


def tar_of(*folders):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for number, folder in enumerate(folders):
            archive.add(folder, f"model{number}")
    return content.getvalue()


@pytest.fixture
def server(monkeypatch, own_cache):
    with serve({"/models/cifar.tar.gz": tar_of(CHECKPOINT)}) as server:
        here = PUBLISHED[NAME]._replace(url=f"{server.address}/models/cifar.tar.gz")
        monkeypatch.setitem(published.PUBLISHED, NAME, here)
        yield server


def test_a_name_is_fetched_and_converted_once_and_then_needs_no_network(server):
    path = weights_named(NAME)
    state_dict, metadata = load_weights(path)
    expected = load_sact_tf(CHECKPOINT)
    assert state_dict.keys() == expected.keys()
    assert all(torch.equal(state_dict[name], expected[name]) for name in expected)
    assert f"{server.address}/models/cifar.tar.gz, sha256 " in metadata["source"]
    server.files.clear()
    assert weights_named(NAME) == path and len(server.requests) == 1
    assert (path.parent / "cifar.tar.gz").is_file()


def test_detectron2s_path_manager_takes_the_name(server):
    file_io = pytest.importorskip("detectron2.utils.file_io")
    from sact_det.engine.checkpoint import local_weights

    path = local_weights(f"sact://{NAME}")
    assert load_weights(path).metadata["family"] == "cifar"
    with file_io.PathManager.open(f"sact://{NAME}", "rb") as file:
        assert file.read() == Path(path).read_bytes()
    with pytest.raises(InputError, match=r"^sact://nobodys: no such weights; there are imagenet_101, "):
        local_weights("sact://nobodys")


def test_without_network_one_line_says_where_to_put_the_file(server, own_cache):
    server.files.clear()
    with pytest.raises(InputError, match="404 Not Found; without network, save http") as error:
        weights_named(NAME)
    place = Path(str(error.value).rpartition(" as ")[2])
    place.write_bytes(tar_of(CHECKPOINT))
    assert own_cache in place.parents and load_weights(weights_named(NAME)).metadata["units"] == (5, 5, 5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar_of(), "expected one checkpoint of TensorFlow; found none"),
        (tar_of(CHECKPOINT, CHECKPOINT), "expected one checkpoint of TensorFlow; found model0, model1"),
        (tar_of(CHECKPOINT)[:-5000], "damaged, or no tar"),
        (b"<html>not found</html>", "cifar.tar.gz"),
    ],
)
def test_what_is_no_archive_of_one_checkpoint_leaves_no_weights(server, own_cache, content, message):
    server.files["/models/cifar.tar.gz"] = content
    with pytest.raises(InputError, match=message) as error:
        weights_named(NAME)
    assert str(error.value).startswith(f"sact://{NAME}: ") and "\n" not in str(error.value)
    assert not list(own_cache.rglob("*.pth"))


def test_every_publication_is_one_that_a_conversion_reads():
    from sact_det.weights.conversion import CONVERSIONS

    timms = find_published("timm/resnetv2_101.a1h_in1k")
    assert timms.url.endswith("/timm/resnetv2_101.a1h_in1k/resolve/main/model.safetensors")
    assert all(own.conversion in CONVERSIONS for own in (*PUBLISHED.values(), timms))
    for name in ("timm/resnet50.a1_in1k", "timm/resnetv2_50", "timm/resnetv2_50.a/../b", "../imagenet_101", ""):
        with pytest.raises(InputError, match="no such weights"):
            find_published(name)


@pytest.mark.parametrize("source", ["{tar}", "file://{tar}", "{server}/models/cifar.tar.gz", f"sact://{NAME}"])
def test_the_converter_reads_tars_addresses_and_names(server, tmp_path, capsys, source):
    tar, output = tmp_path / "a tar.tgz", tmp_path / "ours.pth"
    tar.write_bytes(tar_of(CHECKPOINT))
    tool = runpy.run_path(str(ROOT / "tools/convert_weights.py"))["main"]
    source = source.format(tar=tar, server=server.address)
    tool(["sact-tf", source, str(output)])
    assert torch.equal(
        load_weights(output).state_dict["stem.conv.weight"], load_sact_tf(CHECKPOINT)["stem.conv.weight"]
    )
    tool(["inspect", source])
    assert "family: cifar" in capsys.readouterr().out


def test_a_folder_that_is_no_tar_is_itself():
    with local_source(str(CHECKPOINT)) as path:
        assert path == CHECKPOINT
