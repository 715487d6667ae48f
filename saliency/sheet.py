"""A picture sheet: where a model agrees with people and where it does not, as in the paper's figure 11.

Best, median and worst images, each as a row: the image, the fixation density, the ponder map, what
post-processing makes of it, and the softmax of that (scaled to [0, 1]) with temperature 1/5. Every map is drawn between
its own extremes.
"""

from typing import Optional, Sequence

import cv2
import matplotlib
import numpy as np

from sact_det.pictures.canvas import Canvas, printable, shortened
from sact_det.pictures.scales import map_limits
from sact_det.pictures.style import COLORMAP
from saliency.evaluation import PONDER_MAP, Evaluation, Model, Row, as_it_is, saliency_map
from saliency.postprocess import PostProcessing, min_max, resize, softmax
from saliency.scores import get_metric

PER_GROUP = 3  # images, of the best, the median and the worst
COLUMNS = ("image", "fixation density", "ponder map", "post-processed", "softmax, T = 1/5")

_SIZE = 14  # pixels of the font
_WIDTH = 240  # pixels of a picture


def ranked(scores: np.ndarray, higher_is_better: bool) -> dict[str, list[int]]:
    """Indices of the best, the median and the worst, best first; no image twice, fewer of each if there are few."""
    order = np.argsort(-scores if higher_is_better else scores, kind="stable")
    size = min(PER_GROUP, max(len(order) // 3, 1))
    middle, last = max((len(order) - size) // 2, size), max(2 * size, len(order) - size)
    groups = {"best": order[:size], "median": order[middle : middle + size], "worst": order[last:]}
    return {name: group.tolist() for name, group in groups.items() if len(group)}


def draw_sheet(evaluation: Evaluation, model: Model, title: str, photographs: bool = True) -> np.ndarray:
    """The sheet of a model, uint8 RGB, ranked by the metric tuned for.

    The maps with centre are ranked and shown as post-processed, or the blurred ones where nothing of the map is left
    in the best mixture. Those that are scored as they are are shown so.

    Args:
        evaluation: of that model, among others.
        model: as it was given to `evaluate`.
        title: of the sheet.
        photographs: whether the images themselves are shown; their licence may forbid it.

    Raises:
        InputError: an image or a map can no longer be read.
    """
    metric = evaluation.settings.tuned_for
    own = [row for row in evaluation.rows if row.method.model == model.name]
    row = own[-1]
    if any(np.isinf(chain.multiplier) for chain in row.method.chains):
        row = own[-2]
    column = list(evaluation.settings.metrics).index(metric)
    groups = ranked(row.scores[:, column], get_metric(metric).higher_is_better)
    shown = [(group, number) for group, numbers in groups.items() for number in numbers]
    fold_of = {index: fold for fold, split in enumerate(evaluation.splits) for index in split.scored}
    tiles, captions = [], []
    for group, number in shown:
        index = evaluation.indices[number]
        tiles.append(_tiles(evaluation, model, index, _chain(row, fold_of[index]), photographs))
        values = ", ".join(f"{one.method.stage} {one.scores[number, column]:.3f}" for one in own)
        center = evaluation.rows[0].scores[number, column]
        name = printable(evaluation.dataset[index].name)
        captions.append(f"{group}: {name}   {get_metric(metric).title}: centre {center:.3f}, {values}")
    ranking = f"by {get_metric(metric).title} of {row.method.stage!r}, {len(evaluation.indices)} images"
    heading = f"{printable(title)}: {model.name}, {ranking}"
    columns = [model.kind if column == PONDER_MAP else column for column in COLUMNS[not photographs :]]
    return _page(heading, columns, tiles, captions)


def _chain(row: Row, fold: int) -> Optional[PostProcessing]:
    return row.method.chains[fold] if row.method.chains else None


def _tiles(
    evaluation: Evaluation, model: Model, index: int, chain: Optional[PostProcessing], photographs: bool
) -> list[np.ndarray]:
    image = evaluation.dataset[index]
    made = model.maps(image.name)
    finished = as_it_is(model, made, image.shape).map if chain is None else saliency_map(chain, made, image.shape)
    made = finished if chain is None else made
    maps = (image.fixations.density(evaluation.settings.density_sigma), made, finished, softmax(min_max(finished)))
    size = (_WIDTH, max(1, round(_WIDTH * image.shape[0] / image.shape[1])))
    tiles = [_colored(values, size[::-1]) for values in maps]
    if photographs:
        tiles.insert(0, cv2.resize(np.ascontiguousarray(image.pixels()), size, interpolation=cv2.INTER_AREA))
    return tiles


def _colored(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    # Area averaging where it shrinks, cells where it grows.
    shrinks = values.shape[0] > shape[0]
    if shrinks:
        small = cv2.resize(values.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    else:
        small = resize(values, shape, "nearest")
    low, high = map_limits(small)  # of a constant map, whose rounding would look like a pattern, farther apart
    return matplotlib.colormaps[COLORMAP]((small - low) / (high - low), bytes=True)[..., :3]


def _page(
    heading: str, columns: Sequence[str], rows: Sequence[Sequence[np.ndarray]], captions: Sequence[str]
) -> np.ndarray:
    line, gap = 2 * _SIZE, _SIZE
    heights = [len(row[0]) for row in rows]
    width = gap + len(columns) * (_WIDTH + gap)
    page = Canvas(width, gap + 2 * line + sum(height + line + gap // 2 for height in heights) + gap)
    page.text(gap, gap + line / 2, shortened(heading, round(1.2 * _SIZE), width - 2 * gap), round(1.2 * _SIZE))
    for column, name in enumerate(columns):
        page.text(gap + column * (_WIDTH + gap) + _WIDTH / 2, gap + 1.5 * line, name, _SIZE, "center")
    y = gap + 2 * line
    for row, height, caption in zip(rows, heights, captions):
        for column, pixels in enumerate(row):
            page.image(gap + column * (_WIDTH + gap), y, pixels)
        page.text(gap, y + height + line / 2, shortened(caption, _SIZE, width - 2 * gap), _SIZE)
        y += height + line + gap // 2
    return page.pixels()
