import cv2
import numpy as np
import pytest

from sact_det.pictures.colors import colorize
from sact_det.pictures.style import ON_SCREEN, Style
from saliency.center import CenterBaseline
from saliency.dataset import FixationDataset, FixationImage
from saliency.evaluation import evaluate
from saliency.fixations import Fixations
from saliency.methods import Model, Settings
from saliency.postprocess import PostProcessing
from saliency.search import Grid
from saliency.sheet import sheet

SHAPE = (601, 811)  # whose maps shrink on the sheet by no whole number
RAMP = np.tile(np.linspace(2, 20, SHAPE[1], dtype=np.float32), (SHAPE[0], 1))


def sheet_of(ponder_map, style=ON_SCREEN):
    rng = np.random.default_rng(0)
    images = []
    for number in range(4):
        counts = np.zeros(SHAPE, np.uint8)
        counts[rng.integers(0, SHAPE[0], 9), rng.integers(0, SHAPE[1], 9)] = 1
        pixels = np.zeros((*SHAPE, 3), np.uint8)
        images.append(FixationImage(f"a/{number}", "a", Fixations.from_map(counts), pixels))
    dataset = FixationDataset("toy", images)
    model = Model("model", lambda name: ponder_map, PostProcessing())
    settings = Settings(Grid((0,), (0,)), CenterBaseline(), metrics=("auc_judd",))
    return sheet(evaluate(dataset, [model], dataset.halves(), settings), model, "a title", style=style)


def columns(ponder_map):
    """What the sheet of such a model shows of its first image: the map, post-processed, its softmax."""
    page = sheet_of(ponder_map).pixels()
    return [page[80:240, 14 + column * 254 : 14 + column * 254 + 240] for column in (2, 3, 4)]


def test_the_rounding_of_a_constant_map_is_no_pattern():
    shrunk = cv2.resize(np.full(SHAPE, 1 / 487411, np.float32), (240, 178), interpolation=cv2.INTER_AREA)
    assert len(np.unique(shrunk)) > 1  # what would be seen if the scale went from the least to the greatest value
    for tile in columns(np.full(SHAPE, 5.0, np.float32)):
        assert np.ptp(tile, axis=(0, 1)).max() <= 1


def test_every_column_of_a_map_with_a_pattern_shows_it():
    for tile in columns(RAMP):
        assert np.ptp(tile, axis=(0, 1)).max() > 100  # a softmax has values of millionths


@pytest.mark.parametrize(("form", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_a_sheet_is_written_in_every_format(tmp_path, form, begins):
    sheet_of(RAMP, Style(format=form)).save(tmp_path / "sheet")
    assert (tmp_path / "sheet").read_bytes().startswith(begins)


def test_limits_are_of_the_ponder_map_and_colours_of_every_map():
    page = sheet_of(RAMP, Style(colormap="magma", limits=(0.0, 40.0))).pixels()
    ponder_map, finished = (page[150, left + 3 : left + 237] for left in (14 + 2 * 254, 14 + 3 * 254))
    expected = colorize(cv2.resize(RAMP, (240, 178), interpolation=cv2.INTER_AREA), (0.0, 40.0), "magma")[0, 3:237]
    assert np.abs(ponder_map.astype(int) - expected).max() <= 4
    assert finished[-1].sum() > 1.5 * ponder_map[-1].sum()  # between its own extremes


def test_dots_make_a_sheet_larger_and_a_font_makes_it_roomier():
    plain, dense, large = (sheet_of(RAMP, style) for style in (ON_SCREEN, Style(dpi=200), Style(font_size=20)))
    assert dense.pixels().shape[:2] == (2 * plain.height, 2 * plain.width)
    assert large.width > plain.width and large.height > plain.height
