"""Every kind of image file becomes 8-bit RGB by one rule, or is refused by name."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from sact_det.base.errors import InputError
from sact_det.data.decoding import decode_levels, decode_rgb, decode_size
from sact_det.data.image_files import read_checked
from saliency.images import read_image

DEEP = np.array([[0, 1, 128, 129], [255, 256, 257, 385], [386, 32767, 65406, 65535]], np.uint16)
# 255 x / 65535 = x / 257, rounded: half of 257 is 128.5.
EXPECTED = np.array([[0, 0, 0, 1], [1, 1, 1, 1], [2, 127, 254, 255]], np.uint8)


def file_of(image, form, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, form, **options)
    return buffer.getvalue()


def by_opencv(suffix, pixels):
    """The file of grey levels or RGB that Pillow cannot write."""
    return cv2.imencode(suffix, pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes()


def png(width, height, depth, kind, rows, chunks=()):
    """A PNG from its bytes: `kind` is its colour type, `rows` the samples of each row, `chunks` go before them."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    middle = b"".join(chunk(name, content) for name, content in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tags(**values):
    numbers = {"bits": 258, "max_sample": 281, "s_max_sample": 341, "orientation": 274}
    directory = ImageFileDirectory_v2()
    for name, value in values.items():
        directory[numbers[name]] = value
    return directory


@pytest.mark.parametrize(
    "encoded",
    [
        by_opencv(".png", DEEP),
        by_opencv(".tif", DEEP),
        by_opencv(".pgm", DEEP),
        file_of(Image.fromarray(DEEP), "TIFF"),
        file_of(Image.frombytes("I;16B", (4, 3), DEEP.astype(">u2").tobytes()), "TIFF"),
        by_opencv(".png", np.dstack([DEEP] * 3)),
        by_opencv(".tif", np.dstack([DEEP] * 3)),
        by_opencv(".ppm", np.dstack([DEEP] * 3)),
        png(4, 3, 16, 0, [row.astype(">u2").tobytes() for row in DEEP], [(b"sBIT", b"\x0c")]),
        png(4, 3, 16, 4, [np.stack([row, row[::-1]], axis=1).astype(">u2").tobytes() for row in DEEP]),
    ],
    ids=["png", "tif", "pgm", "I;16", "I;16B", "RGB png", "RGB tif", "RGB ppm", "sBIT", "LA png"],
)
def test_16_bits_are_scaled_by_their_range_and_rounded(encoded):
    assert (decode_rgb(encoded) == EXPECTED[..., None]).all()


def test_the_channels_of_16_bits_stay_in_order():
    pixels = np.dstack([np.full_like(DEEP, value) for value in (65535, 257 * 100, 257)])
    for suffix in (".png", ".tif"):
        assert (decode_rgb(by_opencv(suffix, pixels)) == [255, 100, 1]).all()


def test_the_range_that_a_tiff_states_counts():
    levels = np.array([[0, 2048, 4095]], np.uint16)
    assert decode_rgb(file_of(levels, "TIFF", tiffinfo=tags(max_sample=4095)))[0, :, 0].tolist() == [0, 128, 255]
    kelvin = np.array([[0, 100, 400]], np.int32)
    assert decode_rgb(file_of(kelvin, "TIFF", tiffinfo=tags(s_max_sample=400)))[0, :, 0].tolist() == [0, 64, 255]


def test_floats_count_from_0_to_1():
    levels = np.array([[0, 0.25, 0.5019, 1]], np.float32)
    assert decode_rgb(file_of(levels, "TIFF"))[0, :, 0].tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (np.array([[0, 1.5]], np.float32), "samples from 0 to 1.5; expected numbers from 0 to 1"),
        (np.array([[-0.1, 1]], np.float32), "samples from -0.1 to 1"),
        (np.array([[np.nan, 1]], np.float32), "samples from nan to nan"),
        (np.array([[0, np.inf]], np.float32), "samples from 0 to inf"),
        (np.array([[0, 70000]], np.int32), "integers of 32 bits, or with a sign, whose range the file does not state"),
    ],
)
def test_samples_without_a_known_range_are_refused(levels, message):
    with pytest.raises(InputError) as error:
        decode_rgb(file_of(levels, "TIFF"))
    assert message in str(error.value)


def test_samples_beyond_the_stated_range_are_refused():
    with pytest.raises(InputError, match="samples from 0 to 5000; expected numbers from 0 to 4095"):
        decode_rgb(file_of(np.array([[0, 5000]], np.uint16), "TIFF", tiffinfo=tags(max_sample=4095)))


def test_palettes_transparency_and_few_bits_become_the_colours_as_stored():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    colors = [[[10, 20, 30], [200, 100, 50]]]
    assert decode_rgb(file_of(palette, "PNG")).tolist() == colors
    assert decode_rgb(file_of(palette, "PNG", transparency=b"\x80\x40")).tolist() == colors
    assert decode_rgb(file_of(palette, "GIF")).tolist() == colors
    rgba = np.array([[[10, 20, 30, 0], [200, 100, 50, 128]]], np.uint8)
    assert decode_rgb(file_of(rgba, "PNG")).tolist() == colors
    grey = [[[7] * 3, [250] * 3]]
    assert decode_rgb(file_of(Image.fromarray(np.array([[[7, 0], [250, 9]]], np.uint8), "LA"), "PNG")).tolist() == grey
    black_white = [[[0] * 3, [255] * 3]]
    assert decode_rgb(file_of(np.array([[False, True]]), "PNG")).tolist() == black_white
    assert decode_rgb(png(2, 1, 2, 0, [b"\x30"])).tolist() == black_white
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(decode_rgb(file_of(cmyk, "JPEG")).astype(int) - [255, 0, 0]).max() < 6


LYING = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
UPRIGHT = {
    1: LYING,
    2: LYING[:, ::-1],
    3: LYING[::-1, ::-1],
    4: LYING[::-1],
    5: LYING.transpose(1, 0, 2),
    6: np.rot90(LYING, -1),
    7: LYING[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(LYING, 1),
    9: LYING,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_are_turned_upright_once(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    encoded = file_of(LYING, "PNG", exif=exif)
    assert (decode_rgb(encoded) == UPRIGHT[orientation]).all()
    assert decode_size(encoded) == decode_rgb(encoded).shape[:2]
    assert (decode_rgb(encoded, upright=False) == LYING).all()
    if orientation < 9:  # a TIFF turns itself
        deep = png(4, 2, 16, 2, [(257 * row.astype(">u2")).tobytes() for row in LYING], [(b"eXIf", exif.tobytes()[6:])])
        assert (decode_rgb(deep) == UPRIGHT[orientation]).all()
        tiff = file_of(LYING, "TIFF", tiffinfo=tags(orientation=orientation))
        assert (decode_rgb(tiff) == UPRIGHT[orientation]).all()
        assert decode_size(tiff) == decode_rgb(tiff).shape[:2]


def test_every_reader_says_the_same_of_a_file(tmp_path):
    for name, encoded in (("a.png", by_opencv(".png", DEEP)), ("b.tif", by_opencv(".tif", np.dstack([DEEP] * 3)))):
        (tmp_path / name).write_bytes(encoded)
        assert (read_checked(tmp_path / name, "BGR")[..., ::-1] == EXPECTED[..., None]).all()
        assert (read_image(tmp_path / name) == EXPECTED[..., None]).all()


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", "cannot identify image file"),
        (b"no image", "cannot identify image file"),
        (b"\xff\xd8\xff\xe0 no more", "Truncated File Read"),
        (by_opencv(".png", DEEP)[:60], "truncated|broken"),
        (file_of(np.zeros((60, 80, 3), np.uint8), "JPEG")[:-40], "truncated"),
        (png(40000, 40000, 8, 0, [b""]), "decompression bomb"),
    ],
    ids=["empty", "text", "head of a JPEG", "cut PNG", "cut JPEG", "bomb"],
)
def test_what_is_no_whole_image_is_one_line(tmp_path, encoded, message):
    (tmp_path / "a.jpg").write_bytes(encoded)
    for read in (read_checked, read_image):
        with pytest.raises(InputError, match=message) as error:
            read(tmp_path / "a.jpg")
        assert str(error.value).startswith(f"{tmp_path / 'a.jpg'}: the image cannot be read: ")
        assert "\n" not in str(error.value) and "BytesIO" not in str(error.value)


def test_levels_keep_their_depth():
    for encoded in (by_opencv(".png", DEEP), by_opencv(".tif", DEEP), by_opencv(".png", np.dstack([DEEP] * 3))):
        values, lossy = decode_levels(encoded)
        assert values.dtype == np.uint16 and (values == DEEP).all() and not lossy
    floats = np.array([[-3.5, 7e9]], np.float32)
    assert (decode_levels(file_of(floats, "TIFF")).values == floats).all()


@pytest.mark.parametrize(
    ("form", "options", "lossy"),
    [
        ("PNG", {}, False),
        ("BMP", {}, False),
        ("GIF", {}, False),
        ("PPM", {}, False),
        ("TIFF", {}, False),
        ("TIFF", {"compression": "tiff_lzw"}, False),
        ("TIFF", {"compression": "jpeg"}, True),
        ("JPEG", {}, True),
        ("WEBP", {}, True),
        ("WEBP", {"lossless": True}, False),
    ],
)
def test_it_is_known_whether_levels_are_as_they_were_written(form, options, lossy):
    levels = np.zeros((16, 16), np.uint8)
    levels[4:8] = 3
    found = decode_levels(file_of(levels, form, **options))
    assert found.lossy == lossy and (lossy or (found.values == levels).all())


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.array([[[0, 0, 128], [128, 255, 128]]], np.uint8), "in colours"),
        (np.array([[[0, 0, 0, 0], [0, 0, 0, 255]]], np.uint8), "partly transparent"),
    ],
)
def test_levels_that_lie_in_colours_or_transparency_are_refused(pixels, message):
    with pytest.raises(InputError, match=message):
        decode_levels(file_of(pixels, "PNG"))
    opaque = np.dstack([np.full((1, 2, 3), 9, np.uint8), np.full((1, 2), 255, np.uint8)])
    assert decode_levels(file_of(opaque, "PNG")).values.tolist() == [[9, 9]]
