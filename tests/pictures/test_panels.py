import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from picture_search import place

from sact_det.pictures.canvas import Canvas, colorbar_ticks, printable, shortened, text_width
from sact_det.pictures.colors import blend, colorize
from sact_det.pictures.contact_sheet import ContactSheet
from sact_det.pictures.folder import sorted_name
from sact_det.pictures.panels import UNITS_LABEL, display_scale, draw_panel
from sact_det.pictures.style import resize_nearest

DARK, BRIGHT = (matplotlib.colormaps["viridis"](value, bytes=True)[:3] for value in (0.0, 1.0))


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cells(height, width, stride=16, seed=0):
    """A ponder map of stride x stride cells, float32 [height, width], from 6 to 34."""
    grid = np.random.default_rng(seed).uniform(6, 34, (-(-height // stride), -(-width // stride)))
    return grid.repeat(stride, 0).repeat(stride, 1)[:height, :width].astype(np.float32)


def is_framed_in_white(picture, pixels=3):
    frame = np.ones(picture.shape[:2], dtype=bool)
    frame[pixels:-pixels, pixels:-pixels] = False
    return (picture[frame] == 255).all()


def test_names_sort_by_cost():
    assert sorted_name(20.92, "name") == "20.92_name"
    costs = [0.0, 2.5, 9.996, 10.3, 36.01]
    names = [sorted_name(cost, stem) for cost, stem in zip(costs, "zbxay")]
    assert names == sorted(names)


def test_colours_run_from_a_maps_minimum_to_its_maximum():
    colours = colorize(np.array([[2.0, 3.0], [7.0, 5.0]]))
    assert tuple(colours[0, 0]) == tuple(DARK) and tuple(colours[1, 0]) == tuple(BRIGHT)
    assert colours.dtype == np.uint8 and colours.shape == (2, 2, 3)


def test_values_beyond_the_limits_take_the_last_colour():
    colours = colorize(np.array([[1.0, 2.0, 4.0, 9.0]]), (2.0, 4.0))
    assert (colours[0, :2] == DARK).all() and (colours[0, 2:] == BRIGHT).all()


def test_a_map_and_its_image_keep_every_pixel_and_are_aligned():
    ponder_map, image = cells(300, 421), photo(300, 421)
    picture = draw_panel(image, ponder_map)
    (image_x, image_y), (map_x, map_y) = place(picture, image), place(picture, colorize(ponder_map))
    assert image_y == map_y and image_x + 421 < map_x
    assert picture.dtype == np.uint8 and is_framed_in_white(picture)


def test_a_small_map_is_enlarged_by_a_whole_factor():
    ponder_map = cells(96, 128, stride=4)
    scale = display_scale(96, 128)
    assert scale == 4 and display_scale(480, 640) == 1
    assert place(draw_panel(photo(96, 128), ponder_map), colorize(ponder_map).repeat(scale, 0).repeat(scale, 1))


@pytest.mark.parametrize("size", [(5, 400), (400, 5), (1, 1), (480, 640), (1200, 900)])
def test_nothing_is_cut_off_at_any_size(size):
    blocks = {"block1, mean 2.00": np.full((1, 1), 2.0), "block2, mean 3.15": cells(7, 9, stride=1)}
    picture = draw_panel(
        photo(*size), cells(*size), mean_cost=3.0, limits=(0.0, 40.0), overlay=photo(*size), block_maps=blocks
    )
    assert is_framed_in_white(picture)


def test_the_colour_bar_goes_from_dark_below_to_bright_above():
    ponder_map, limits = cells(400, 400), (0.0, 40.0)
    picture = draw_panel(photo(400, 400), ponder_map, limits=limits)
    map_x, _ = place(picture, colorize(ponder_map, limits))
    bar = picture[:, map_x + 400 :]  # to the right of the map
    near = [(np.abs(bar.astype(int) - colour) < 8).all(-1) for colour in (DARK, BRIGHT)]
    dark, bright = (np.argwhere(mask)[:, 0] for mask in near)
    assert bright.max() < dark.min() and dark.max() - bright.min() > 0.97 * 400


def test_a_constant_map_can_be_drawn():
    constant = np.full((300, 400), 10.0, dtype=np.float32)
    assert place(draw_panel(photo(300, 400), constant), colorize(constant))
    assert len(np.unique(colorize(constant).reshape(-1, 3), axis=0)) == 1


def test_rounding_noise_is_not_stretched_over_the_scale():
    noisy = np.full((4, 4), 10.0) + np.linspace(0, 1e-6, 16).reshape(4, 4)
    assert np.ptp(colorize(noisy).astype(int), axis=(0, 1)).max() <= 1


def test_the_panel_shows_detections_at_the_left_and_the_map_at_the_right():
    ponder_map, detections = cells(300, 400), photo(300, 400)
    picture = draw_panel(detections, ponder_map, mean_cost=20.92)
    (left, top), (right, map_top) = place(picture, detections), place(picture, colorize(ponder_map))
    assert left < right and top == map_top


def test_an_overlay_is_a_third_picture_of_the_same_size():
    ponder_map, image = cells(300, 400), photo(300, 400)
    picture = draw_panel(image, ponder_map, overlay=image)
    assert place(picture, blend(image, ponder_map))
    assert picture.shape[1] > draw_panel(image, ponder_map).shape[1] + 400


def test_a_blend_is_between_grey_image_and_colours():
    ponder_map, image = cells(30, 40), photo(30, 40)
    assert np.array_equal(blend(image, ponder_map, opacity=1), colorize(ponder_map))
    grey = blend(image, ponder_map, opacity=0)
    assert (grey == grey[..., :1]).all()


def test_block_maps_make_a_row_as_wide_as_the_first_each_on_its_own_scale():
    image, ponder_map = photo(480, 640), cells(480, 640)
    blocks = {f"block{i}": cells(480 // s, 640 // s, stride=1, seed=i) * i for i, s in ((1, 4), (2, 8), (3, 16))}
    plain, picture = draw_panel(image, ponder_map), draw_panel(image, ponder_map, block_maps=blocks)
    assert abs(picture.shape[1] - plain.shape[1]) <= 6 and picture.shape[0] > plain.shape[0] + 200
    below = picture[plain.shape[0] :]
    assert (below == DARK).all(-1).any(0).sum() >= 3 and (below == BRIGHT).all(-1).any(0).sum() >= 3


def test_nearest_resizing_repeats_cells():
    grid = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(resize_nearest(grid, (4, 9)), grid.repeat(2, 0).repeat(3, 1))


@pytest.mark.parametrize(
    "call, argument",
    [
        (lambda: colorize(np.zeros(4)), "ponder_map"),
        (lambda: draw_panel(photo(4, 4), np.full((4, 4), np.nan)), "ponder_map"),
        (lambda: draw_panel(photo(4, 4), cells(4, 4), limits=(3.0, 3.0)), "limits"),
        (lambda: draw_panel(photo(4, 5), cells(4, 4)), "image"),
        (lambda: draw_panel(photo(4, 4).astype(np.float32), cells(4, 4)), "image"),
        (lambda: draw_panel(photo(8, 8), cells(4, 4)), "image"),
        (lambda: ContactSheet().add("a", photo(8, 8), cells(4, 4), 1.0), "image"),
    ],
)
def test_arguments_that_do_not_fit_are_named(call, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        call()


def test_the_sheet_is_sorted_by_mean_cost():
    maps = {cost: cells(90, 120, seed=int(cost)) for cost in (30.0, 4.5, 12.0)}
    sheet = ContactSheet(thumbnail=120, columns=3)
    for cost, ponder_map in maps.items():
        sheet.add(f"{cost}.jpg", photo(90, 120), ponder_map, cost)
    (page,) = sheet.pages()
    places = [place(page, colorize(maps[cost], sheet.limits())) for cost in sorted(maps)]
    assert places == sorted(places) and is_framed_in_white(page)


def test_the_sheet_has_one_scale_the_outer_permilles_of_all_maps():
    maps = [np.random.default_rng(seed).gamma(3, 2, (300, 400 + seed)) for seed in range(5)]
    sheet = ContactSheet()
    for seed, ponder_map in enumerate(maps):
        sheet.add(str(seed), photo(*ponder_map.shape), ponder_map, ponder_map.mean())
    expected = np.percentile(np.concatenate([m.ravel() for m in maps]), [0.1, 99.9])
    assert np.allclose(sheet.limits(), expected, atol=2e-3)


def test_equal_costs_have_equal_colours_on_the_whole_sheet():
    sheet = ContactSheet(thumbnail=100)
    low, high = np.full((100, 100), 5.0), np.full((100, 100), 5.0)
    low[:50], high[:50] = 2.0, 30.0
    for name, ponder_map in (("low", low), ("high", high)):
        sheet.add(name, photo(100, 100), ponder_map, ponder_map.mean())
    (page,) = sheet.pages()
    assert place(page, colorize(low, sheet.limits())) and place(page, colorize(high, sheet.limits()))


def test_a_long_sheet_has_several_pages():
    sheet = ContactSheet(thumbnail=40, per_page=4)
    assert len(sheet) == sheet.number_of_pages == 0 and not list(sheet.pages())
    with pytest.raises(ValueError, match="empty"):
        sheet.limits()
    for index in range(9):
        sheet.add(f"{index}.jpg", photo(30, 40), cells(30, 40, seed=index), index)
    assert sheet.number_of_pages == len(list(sheet.pages())) == 3


def test_the_sheet_keeps_thumbnails_only():
    sheet = ContactSheet(thumbnail=50)
    sheet.add("large.jpg", photo(2000, 1000), cells(2000, 1000), 20.0)
    (entry,) = sheet._entries
    assert entry.image.shape == (50, 25, 3) and entry.ponder_map.shape == (50, 25)


@pytest.mark.parametrize("name", ["$x_{1}$ 100% $.jpg", "a\nb.jpg", "bad\udcff.jpg", "n" * 500 + ".jpg", ""])
def test_any_file_name_can_be_a_caption(name):
    sheet = ContactSheet(thumbnail=100)
    sheet.add(name, photo(75, 100), cells(75, 100), 20.0)
    (page,) = sheet.pages()
    assert is_framed_in_white(page)


def test_long_text_is_shortened_in_the_middle():
    short = shortened("beginning-" + "x" * 200 + "-end.jpg", 12, 150)
    assert short.startswith("begin") and short.endswith("end.jpg") and "…" in short
    assert text_width(short, 12) <= 150
    assert shortened("short.jpg", 12, 150) == "short.jpg"
    assert printable("a\nb \udcff") == "a b ?"


@pytest.mark.parametrize("limits", [(2.0, 36.5), (9.5, 10.5), (2.0, 2.0004), (0.0, 1.0), (5.9, 7.1), (1e3, 2e4)])
def test_ticks_lie_within_the_limits_and_their_labels_tell_their_values(limits):
    ticks, labels = colorbar_ticks(limits, height=220, size=12)
    assert 2 <= len(ticks) <= 7 and len(set(labels)) == len(ticks)
    slack = 1e-5 * (limits[1] - limits[0])
    assert all(limits[0] - slack <= tick <= limits[1] + slack for tick in ticks)
    assert np.allclose([float(label) for label in labels], ticks, rtol=1e-9)


@pytest.mark.parametrize("limits", [(2.0, 36.5), (2.0, 2.0004), (1e3, 2e4)])
@pytest.mark.parametrize("size", [12, 20, 36])
def test_a_colour_bar_fits_into_the_width_it_asks_for(limits, size):
    height = 20 * size
    width = Canvas.colorbar_width(limits, height, size, UNITS_LABEL)
    page = Canvas(10 + width, height + 2 * size)
    page.colorbar(10, size, height, limits, size, UNITS_LABEL)
    assert is_framed_in_white(page.pixels(), pixels=1)


@pytest.mark.parametrize("width, height", [(997, 331), (1000, 1), (3, 777)])
def test_a_page_has_exactly_the_size_asked_for(width, height):
    assert Canvas(width, height).pixels().shape == (height, width, 3)


def test_drawing_needs_neither_detectron2_nor_pyplot():
    heavy = "('detectron2', 'matplotlib.pyplot')"
    code = f"import sys, sact_det.pictures.panels; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
