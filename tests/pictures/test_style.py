"""Pictures for papers: file formats, resolution, fonts, colours, fixed limits, smooth maps."""

import argparse
import re
import zlib

import cv2
import numpy as np
import pytest
from picture_search import place
from PIL import Image

from sact_det.base.errors import InputError
from sact_det.pictures.colors import colorize
from sact_det.pictures.contact_sheet import ContactSheet
from sact_det.pictures.folder import PictureFolder
from sact_det.pictures.panels import draw_panel, maps_panel, panel
from sact_det.pictures.style import Style, add_map_style, add_page_style, resize_nearest, style_of

COSTS = [np.random.default_rng(n).uniform(1, 5, shape).astype(np.float32) for n, shape in enumerate(((24, 32), (6, 8)))]
SIZE = (300, 401)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
MAP = Style().spread(COSTS, SIZE)


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_map_style(parser)
    add_page_style(parser)
    return style_of(parser.parse_args(words))


def test_without_options_pictures_are_png_pixel_for_pixel():
    assert parsed() == Style() and parsed().density == 1
    assert parsed("--format", "pdf").dpi == 300


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--colormap", "virids"], "--colormap: matplotlib has none called 'virids'; expected, say, viridis"),
        (["--limits", "3", "3"], "--limits must be LOW HIGH with LOW < HIGH, both finite; got 3 3"),
        (["--limits", "0", "inf"], "--limits must be LOW HIGH with LOW < HIGH, both finite; got 0 inf"),
        (["--dpi", "0"], "--dpi must be from 20 to 1200; got 0"),
        (["--dpi", "nan"], "--dpi must be from 20 to 1200; got nan"),
        (["--font-size", "200"], "--font-size must be from 4 to 72; got 200"),
    ],
)
def test_what_cannot_be_drawn_with_is_said_in_a_line(words, said):
    with pytest.raises(InputError) as error:
        parsed(*words)
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


@pytest.mark.parametrize(("form", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_a_page_is_written_in_every_format_the_same_each_time(tmp_path, form, begins):
    style = Style(format=form, colormap="magma")
    for name in ("once", "again"):
        panel(IMAGE, MAP, style=style).save(tmp_path / name)
    content = (tmp_path / "once").read_bytes()
    assert content.startswith(begins) and content == (tmp_path / "again").read_bytes()


def test_a_pdf_holds_image_and_map_in_their_own_pixels_and_text_as_text(tmp_path):
    panel(IMAGE, MAP, image_title="a picture", style=Style(format="pdf")).save(tmp_path / "page.pdf")
    content = (tmp_path / "page.pdf").read_bytes()
    sizes = re.findall(rb"/Subtype /Image /Width (\d+) /Height (\d+)", content)
    sizes = sizes or re.findall(rb"/Height (\d+)[^>]*?/Width (\d+)", content, re.S)
    assert sizes.count((b"401", b"300")) + sizes.count((b"300", b"401")) == 2
    assert b"/FontFile2" in content  # TrueType, as journals ask for
    streams = re.findall(rb"stream\r?\n(.*?)endstream", content, re.S)
    unpacked = (zlib.decompressobj().decompress(stream) for stream in streams if stream[:1] == b"\x78")
    assert any(IMAGE.tobytes()[:3000] in data or b"Tj" in data or b"TJ" in data for data in unpacked)


def test_more_dots_per_inch_enlarge_the_page_and_are_written_down(tmp_path):
    style = Style(dpi=300)
    page = panel(style.enlarged(IMAGE), MAP, style=style)
    page.save(tmp_path / "page.png")
    written, plain = Image.open(tmp_path / "page.png"), draw_panel(IMAGE, MAP)
    assert written.size == (3 * plain.shape[1], 3 * plain.shape[0])
    assert written.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert place(np.asarray(written), IMAGE.repeat(3, 0).repeat(3, 1))
    assert place(np.asarray(written), colorize(MAP).repeat(3, 0).repeat(3, 1))


def test_a_larger_font_makes_the_page_larger_and_leaves_the_map_as_it_is():
    small, large = (draw_panel(IMAGE, MAP, style=Style(font_size=size)) for size in (9, 18))
    assert large.shape[0] > small.shape[0] and large.shape[1] > small.shape[1]
    assert place(large, colorize(MAP)) and place(small, colorize(MAP))


def test_colours_and_limits_are_those_asked_for():
    style = Style(colormap="magma", limits=(0.0, 20.0))
    expected = colorize(MAP, (0.0, 20.0), "magma")
    assert place(draw_panel(IMAGE, MAP, limits=(2.0, 3.0), style=style), expected)
    assert place(maps_panel(IMAGE, {"a": MAP, "b": MAP + 1}, style=style).pixels(), expected)
    sheet = ContactSheet(thumbnail=401, style=style)
    sheet.add("a", IMAGE, MAP, 3.0)
    (page,) = sheet.pages()
    assert sheet.limits() == (0.0, 20.0) and place(page, expected)


def test_cells_are_the_networks_and_smooth_maps_lie_between_them():
    assert np.array_equal(MAP, sum(resize_nearest(cost, SIZE) for cost in COSTS))
    smooth = Style(smooth=True).spread(COSTS, SIZE)
    steps = [np.abs(np.diff(one, axis=1)).max() for one in (smooth, MAP)]
    assert steps[0] < steps[1] / 4
    assert smooth.min() >= sum(cost.min() for cost in COSTS) and smooth.max() <= sum(cost.max() for cost in COSTS)
    assert smooth.mean() == pytest.approx(MAP.mean(), rel=0.02)
    assert np.allclose(cv2.resize(smooth, (32, 24), interpolation=cv2.INTER_AREA), COSTS[0] + 3, atol=2.5)


@pytest.mark.parametrize("form", ["png", "pdf", "svg"])
def test_a_folder_holds_pictures_and_sheet_in_one_format_which_another_replaces(tmp_path, form):
    for style in (Style(format="svg"), Style(format=form)):
        folder = PictureFolder(tmp_path, style=style)
        picture = panel(IMAGE, MAP, style=style)
        rows = [{"picture": folder.save("a", 3.0, picture, "a", IMAGE, MAP)}]
        folder.save_numbers(images=rows)
    assert {path.name for path in tmp_path.iterdir()} == {f"03.00_a.{form}", f"sheet.{form}", "ponder.json"}


def test_a_map_of_one_value_has_no_colour_bar_but_says_it():
    flat = np.full(SIZE, 20.0, np.float32)
    with_bar = draw_panel(IMAGE, MAP, mean_cost=20.0)
    page = draw_panel(IMAGE, flat, mean_cost=20.0, block_maps={"block1, mean 4.00": np.full((2, 3), 4.0)})
    assert page.shape[1] < with_bar.shape[1] - 30
    x, y = place(page, colorize(flat))
    assert (page[y : y + SIZE[0], x + SIZE[1] :] == 255).all()  # nothing at its right
    sheet = ContactSheet()
    sheet.add("a", IMAGE, flat, 20.0)
    (page,) = sheet.pages()
    assert (page[100:-40, -20:] == 255).all()
