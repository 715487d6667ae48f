"""Maps of folders and ponder files are found by the image's name; a missing or broken one is an error or listed."""

import cv2
import numpy as np
import pytest
import torch
from cat2000_folder import write_cat2000_folder

from sact_det import build_classifier
from sact_det.base.errors import InputError
from sact_det.pictures.ponder_writer import writing_ponder_file
from saliency.cat2000 import read_cat2000
from saliency.dataset import FixationDataset, FixationImage
from saliency.fixations import Fixations
from saliency.map_sources import MapFolder, PaddingMasked, PonderFileMaps, with_all_maps

VALUES = np.random.default_rng(0).integers(0, 60000, (5, 7)).astype(np.uint16)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Action").mkdir()
    return tmp_path


def test_arrays_and_images_of_8_and_16_bits_keep_their_values(folder):
    np.save(folder / "Action/001.npy", VALUES / 7)
    cv2.imwrite(str(folder / "Action/002.png"), VALUES)
    cv2.imwrite(str(folder / "Action/003.png"), (VALUES >> 8).astype(np.uint8))
    maps = MapFolder(folder)
    assert (maps("Action/001") == VALUES / 7).all()
    assert (maps("Action/002") == VALUES).all() and (maps("Action/003") == VALUES >> 8).all()


def two_files(folder):
    np.save(folder / "Action/001.npy", VALUES)
    cv2.imwrite(str(folder / "Action/001.png"), VALUES)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: None, "Action/001: no such map"),
        (two_files, r"001\.npy: also 001\.png: which is the map\?"),
        (lambda folder: np.save(folder / "Action/001.npy", np.full((2, 2), np.inf)), "must be finite numbers"),
        (lambda folder: np.save(folder / "Action/001.npy", np.zeros(3)), r"got float64 \[3\]"),
        (lambda folder: np.save(folder / "Action/001.npy", np.array([[{}]])), "not an array that can be read"),
        (lambda folder: (folder / "Action/001.npy").write_bytes(b""), "not an array that can be read"),
        (lambda folder: (folder / "Action/001.png").write_bytes(b"x"), "cannot be read: cannot identify image file"),
    ],
)
def test_what_is_wrong_with_a_map_is_named(folder, write, message):
    write(folder)
    with pytest.raises(InputError, match=message) as error:
        MapFolder(folder)("Action/001")
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["/etc/passwd", "../001", "Action/../../001", ""])
def test_a_name_that_leads_out_of_the_folder_has_no_map(folder, name):
    np.save(folder.parent / "001.npy", VALUES)
    with pytest.raises(InputError, match=r"no such map as .*leads out of this folder"):
        MapFolder(folder)(name)


def test_an_image_is_not_its_own_map(tmp_path):
    dataset = read_cat2000(write_cat2000_folder(tmp_path))
    with pytest.raises(InputError, match=r"Action/001\.jpg: no map, but the image itself"):
        MapFolder(tmp_path / "Stimuli", dataset)("Action/001")


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (cv2.applyColorMap(VALUES.astype(np.uint8), cv2.COLORMAP_JET), "in colours"),
        (np.dstack([np.zeros((5, 7, 3), np.uint8), VALUES.astype(np.uint8)]), "partly transparent"),
    ],
)
def test_maps_in_colours_or_transparency_are_refused(folder, pixels, message):
    cv2.imwrite(str(folder / "Action/001.png"), pixels)
    with pytest.raises(InputError, match=rf"001\.png: the image cannot be read: is {message}"):
        MapFolder(folder)("Action/001")


def test_suffixes_may_be_upper_case_and_hidden_files_are_passed_over(folder):
    cv2.imwrite(str(folder / "Action/001.png"), VALUES)
    (folder / "Action/001.png").rename(folder / "Action/001.PNG")
    (folder / "Action/._001.npy").write_bytes(b"x")
    assert (MapFolder(folder)("Action/001") == VALUES).all()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder of maps"):
        MapFolder(tmp_path / "nowhere")


def test_an_image_without_a_map_is_an_error_or_listed(tmp_path):
    dataset = read_cat2000(write_cat2000_folder(tmp_path / "set"))
    for image in dataset:
        path = tmp_path / "maps" / f"{image.name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, VALUES)
    (tmp_path / "maps/Social/002.npy").unlink()
    sources = {"always": lambda name: VALUES, "some": MapFolder(tmp_path / "maps")}
    with pytest.raises(InputError, match="Social/002: no such map"):
        with_all_maps(dataset, sources)
    kept = with_all_maps(dataset, sources, skip_bad=True)
    assert len(kept) == 7 and "Social/002" not in [image.name for image in kept]
    (line,) = kept.skipped
    assert "Social/002: no such map" in line


@pytest.fixture(scope="module")
def ponder_file(tmp_path_factory):
    """A file of two images, and their ponder maps by the model itself."""
    path = tmp_path_factory.mktemp("ponder") / "ponder.h5"
    torch.manual_seed(0)
    model = build_classifier((1, 2, 2, 1), base_channels=4, halting="sact", num_classes=3).eval()
    for name, parameter in model.named_parameters():
        if "halting" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    pixels = torch.rand(2, 3, 40, 64) * 2 - 1
    with torch.no_grad():
        record = model(pixels).ponder
    with writing_ponder_file(path, "imagenet", "sact") as writer:
        writer.append(["/a/Stimuli/Action/001.jpg", "/a/Stimuli/Social/001.jpg"], pixels, record)
    maps = record.map((40, 64)).numpy()
    assert np.ptp(maps[0]) > 0.1
    return path, maps


def test_maps_of_a_ponder_file_are_the_models(ponder_file):
    path, expected = ponder_file
    maps = PonderFileMaps(path, ["Action/001", "Social/001", "Social/002"])
    assert (maps("Action/001") == expected[0]).all() and (maps("Social/001") == expected[1]).all()
    with pytest.raises(InputError, match=r"ponder\.h5: no map of the image 'Social/002'"):
        maps("Social/002")


def test_two_maps_of_one_image_are_refused(ponder_file):
    with pytest.raises(InputError, match="two maps fit the image '001'"):
        PonderFileMaps(ponder_file[0], ["001"])


@pytest.mark.parametrize(("halting", "message"), [("none", "of a plain network"), ("act", "halts whole images")])
def test_a_ponder_file_without_maps_is_refused(tmp_path, halting, message):
    model = build_classifier((1, 1, 1, 1), base_channels=4, halting=halting, num_classes=3).eval()
    pixels = torch.zeros(1, 3, 32, 32)
    with torch.no_grad(), writing_ponder_file(tmp_path / "p.h5", "imagenet", halting) as writer:
        writer.append(["a.png"], pixels, model(pixels).ponder)
    with pytest.raises(InputError, match=message):
        PonderFileMaps(tmp_path / "p.h5", ["a"])


def test_masked_padding_is_as_low_as_the_lowest_of_the_picture():
    pixels = np.full((36, 64, 3), 126, np.uint8)
    pixels[:, 16:48] = np.random.default_rng(0).integers(0, 100, (36, 32, 3))
    image = FixationImage("a", "", Fixations.from_points([[30, 10]], (36, 64)), pixels)
    values = np.random.default_rng(1).random((18, 32))
    values[:, :8] = 5
    values[:, 24:] = -5
    masked = PaddingMasked(lambda name: values, FixationDataset("one", [image]))("a")
    assert (masked[:, 8:24] == values[:, 8:24]).all()
    assert (masked[:, :8] == values[:, 8:24].min()).all() and (masked[:, 24:] == values[:, 8:24].min()).all()


def test_an_image_without_padding_keeps_its_map():
    image = FixationImage("a", "", Fixations.from_points([[1, 1]], (4, 4)), np.zeros((4, 4, 3), np.uint8))
    assert PaddingMasked(lambda name: VALUES, FixationDataset("one", [image]))("a") is VALUES
