"""Files of fixations: lossless ones say where people looked, in whatever mode they are stored; others are refused."""

import cv2
import numpy as np
import pytest
from cat2000_folder import SHAPE, cells, write_cat2000_folder, write_locations
from PIL import Image
from scipy.sparse import csc_matrix

from sact_det.base.errors import InputError
from saliency.cat2000 import read_cat2000
from saliency.fixations import read_fixations

COUNTS = np.zeros(SHAPE, np.uint16)
COUNTS[::7, ::11] = np.arange(36).reshape(6, 6) % 5 + 1  # 1 to 5 observers


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".gif", ".pgm", ".npy", "16.png", "16.tif", ".mat"])
def test_of_a_lossless_map_every_pixel_that_is_not_zero_is_fixated(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    counts = COUNTS if suffix.startswith("16") else COUNTS.astype(np.uint8)
    if suffix == ".npy":
        np.save(path, counts)
    elif suffix == ".mat":
        write_locations(path, counts)
    elif suffix == ".gif":
        Image.fromarray(counts).save(path)
    else:
        cv2.imwrite(str(path), counts)
    assert (read_fixations(path).counts() == (COUNTS > 0)).all()


def test_a_sparse_map_of_matlab_is_a_map(tmp_path):
    write_locations(tmp_path / "a.mat", csc_matrix(COUNTS.astype(float)))
    assert (read_fixations(tmp_path / "a.mat").counts() == (COUNTS > 0)).all()


@pytest.mark.parametrize("content", [COUNTS, csc_matrix(COUNTS.astype(float)), COUNTS > 0, csc_matrix(COUNTS > 0)])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_cell_with_one_map_is_that_map(tmp_path, content, depth):
    for _ in range(depth):
        content = cells(content)
    write_locations(tmp_path / "a.mat", content)
    assert (read_fixations(tmp_path / "a.mat").counts() == (COUNTS > 0)).all()


def grey(mode, alpha=255):
    """The counts as an image of another mode that holds them nonetheless, or does not where `alpha` is less."""
    image = Image.fromarray(COUNTS.astype(np.uint8)).convert(mode)
    if mode.endswith("A"):
        image.putalpha(alpha)
    return image


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA", "P"])
def test_grey_levels_in_channels_that_agree_are_a_map(tmp_path, mode):
    grey(mode).save(tmp_path / "a.png")
    assert (read_fixations(tmp_path / "a.png").counts() == (COUNTS > 0)).all()


def labels_in_colours(path):
    """A palette image, as tools for labelling write: every observer a colour."""
    image = Image.fromarray(COUNTS.astype(np.uint8), "L").convert("P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    image.save(path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: grey("LA", 128).save(path), "is partly transparent; expected grey levels without an alpha"),
        (lambda path: grey("RGBA", 0).save(path), "is partly transparent"),
        (labels_in_colours, "is in colours"),
        (lambda path: cv2.imwrite(str(path), np.dstack([COUNTS, COUNTS, 40000 - COUNTS])), "is in colours"),
        (lambda path: cv2.imwrite(str(path), np.dstack([COUNTS] * 4)), "is partly transparent"),
    ],
    ids=["grey, half transparent", "transparent", "palette", "16 bits, colours", "16 bits, transparent"],
)
def test_fixations_in_colours_or_transparency_are_refused_in_one_line(tmp_path, write, message):
    root = write_cat2000_folder(tmp_path)
    path = root / "FIXATIONLOCS/Action/001.png"
    path.with_suffix(".mat").unlink()
    write(path)
    with pytest.raises(InputError, match=message) as error:
        read_cat2000(root)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


SMOOTH = cv2.GaussianBlur((COUNTS > 0) * 255.0, (0, 0), 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".npy", "16.png"])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_smoothed_or_inverted_map_given_as_fixations_is_warned_of_in_one_line(tmp_path, caplog, suffix, inverted):
    levels = SMOOTH / SMOOTH.max()
    levels = 1 - levels if inverted else levels
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, levels)
    else:
        top, kind = (65535, np.uint16) if suffix.startswith("16") else (255, np.uint8)
        cv2.imwrite(str(path), (top * levels).round().astype(kind))
    read_fixations(path)
    (record,) = caplog.records
    assert "is the map smoothed or inverted?" in record.getMessage() and str(path) in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(("share", "warns"), [(0.009, False), (0.03, True), (0.97, True)])
@pytest.mark.parametrize("suffix", [".png", ".mat"])
def test_more_fixations_than_people_make_are_warned_of(tmp_path, caplog, suffix, share, warns):
    locations = np.zeros(50 * 40, np.uint8)
    locations[: round(share * 2000)] = 255
    path = tmp_path / f"a{suffix}"
    (write_locations if suffix == ".mat" else cv2.imwrite)(str(path), locations.reshape(40, 50))
    assert len(read_fixations(path)) == round(share * 2000)
    expected = f"{path}: {100 * share:.1f}% of the pixels are fixated ({round(share * 2000)} of 50x40)"
    assert (expected in caplog.text) == warns and bool(caplog.records) == warns
