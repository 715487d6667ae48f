import cv2
import numpy as np

from saliency.center import CenterBaseline
from saliency.dataset import FixationDataset, FixationImage
from saliency.evaluation import Model, Settings, evaluate
from saliency.fixations import Fixations
from saliency.postprocess import PostProcessing
from saliency.search import Grid
from saliency.sheet import draw_sheet

SHAPE = (601, 811)  # whose maps shrink on the sheet by no whole number


def columns(ponder_map):
    """What the sheet of such a model shows of its first image: the map, post-processed, its softmax."""
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
    sheet = draw_sheet(evaluate(dataset, [model], dataset.halves(), settings), model, "")
    return [sheet[80:240, 14 + column * 254 : 14 + column * 254 + 240] for column in (2, 3, 4)]


def test_the_rounding_of_a_constant_map_is_no_pattern():
    shrunk = cv2.resize(np.full(SHAPE, 1 / 487411, np.float32), (240, 178), interpolation=cv2.INTER_AREA)
    assert len(np.unique(shrunk)) > 1  # what would be seen if the scale went from the least to the greatest value
    for tile in columns(np.full(SHAPE, 5.0, np.float32)):
        assert np.ptp(tile, axis=(0, 1)).max() <= 1


def test_every_column_of_a_map_with_a_pattern_shows_it():
    for tile in columns(np.tile(np.linspace(2, 20, SHAPE[1], dtype=np.float32), (SHAPE[0], 1))):
        assert np.ptp(tile, axis=(0, 1)).max() > 100  # a softmax has values of millionths
