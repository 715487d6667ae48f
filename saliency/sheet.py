"""A picture sheet: where a model agrees with people and where it does not, as in the paper's figure 11.

Best, median and worst images, each as a row: the image, the fixation density, the ponder map, what
post-processing makes of it, and the softmax of that (scaled to [0, 1]) with temperature 1/5. Every map is drawn between
its own extremes, ponder maps between the limits of a style that has them.
"""

from typing import NamedTuple, Optional, Sequence

import cv2
import numpy as np

from sact_det.pictures.canvas import Canvas, printable, shortened, text_width
from sact_det.pictures.colors import colorize
from sact_det.pictures.style import ON_SCREEN, Limits, Style
from saliency.evaluation import Evaluation, Row
from saliency.methods import PONDER_MAP, Model, as_it_is, saliency_map
from saliency.postprocess import PostProcessing, min_max, resize, softmax
from saliency.scores import get_metric

PER_GROUP = 3  # images, of the best, the median and the worst
COLUMNS = ("image", "fixation density", "ponder map", "post-processed", "softmax, T = 1/5")

_SIZE = 14  # pixels of the font, where the style says none
_WIDTH = 240  # pixels of a picture on the page


def ranked(scores: np.ndarray, higher_is_better: bool) -> dict[str, list[int]]:
    """Indices of the best, the median and the worst, best first; no image twice, fewer of each if there are few."""
    order = np.argsort(-scores if higher_is_better else scores, kind="stable")
    size = min(PER_GROUP, max(len(order) // 3, 1))
    middle, last = max((len(order) - size) // 2, size), max(2 * size, len(order) - size)
    groups = {"best": order[:size], "median": order[middle : middle + size], "worst": order[last:]}
    return {name: group.tolist() for name, group in groups.items() if len(group)}


def sheet(
    evaluation: Evaluation, model: Model, title: str, photographs: bool = True, style: Style = ON_SCREEN
) -> Canvas:
    """The sheet of a model, ranked by the metric tuned for.

    The maps with centre are ranked and shown as post-processed, or the blurred ones where nothing of the map is left
    in the best mixture. Those that are scored as they are are shown so.

    Args:
        evaluation: of that model, among others.
        model: as it was given to `evaluate`.
        title: of the sheet.
        photographs: whether the images themselves are shown; their licence may forbid it.
        style: how it is drawn. Maps have lost their cells here: `smooth` changes nothing.

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
        tiles.append(_tiles(evaluation, model, index, _chain(row, fold_of[index]), photographs, style))
        values = ", ".join(f"{one.method.stage} {one.scores[number, column]:.3f}" for one in own)
        center = evaluation.rows[0].scores[number, column]
        name = printable(evaluation.dataset[index].name)
        captions.append(f"{group}: {name}   {get_metric(metric).title}: centre {center:.3f}, {values}")
    ranking = f"by {get_metric(metric).title} of {row.method.stage!r}, {len(evaluation.indices)} images"
    heading = f"{printable(title)}: {model.name}, {ranking}"
    columns = [model.kind if column == PONDER_MAP else column for column in COLUMNS[not photographs :]]
    return _page(heading, columns, tiles, captions, style)


def draw_sheet(evaluation: Evaluation, model: Model, title: str, photographs: bool = True) -> np.ndarray:
    """The page of `sheet`, which has the arguments, as uint8 RGB."""
    return sheet(evaluation, model, title, photographs).pixels()


class _Tile(NamedTuple):
    """A picture, uint8 RGB, and its height on the page; its width there is _WIDTH."""

    pixels: np.ndarray
    height: int


def _chain(row: Row, fold: int) -> Optional[PostProcessing]:
    return row.method.chains[fold] if row.method.chains else None


def _tiles(
    evaluation: Evaluation,
    model: Model,
    index: int,
    chain: Optional[PostProcessing],
    photographs: bool,
    style: Style,
) -> list[_Tile]:
    image = evaluation.dataset[index]
    made = model.maps(image.name)
    finished = as_it_is(model, made, image.shape).map if chain is None else saliency_map(chain, made, image.shape)
    made = finished if chain is None else made
    limits = style.limits if model.kind == PONDER_MAP else None
    density = image.fixations.density(evaluation.settings.density_sigma)
    maps = ((density, None), (made, limits), (finished, None), (softmax(min_max(finished)), None))
    height = max(1, round(_WIDTH * image.shape[0] / image.shape[1]))
    shape = (max(1, round(style.density * height)), round(style.density * _WIDTH))
    pictures = [_colored(values, shape, own, style) for values, own in maps]
    if photographs:
        pixels = np.ascontiguousarray(image.pixels())
        pictures.insert(0, cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_AREA))
    return [_Tile(picture, height) for picture in pictures]


def _colored(values: np.ndarray, shape: tuple[int, int], limits: Optional[Limits], style: Style) -> np.ndarray:
    # Area averaging where it shrinks, cells where it grows.
    shrinks = values.shape[0] > shape[0]
    if shrinks:
        small = cv2.resize(values.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    else:
        small = resize(values, shape, "nearest")
    return colorize(small, limits, style.colormap)


def _page(
    heading: str, columns: Sequence[str], rows: Sequence[Sequence[_Tile]], captions: Sequence[str], style: Style
) -> Canvas:
    size = style.font_pixels or _SIZE
    line, gap, large = 2 * size, size, round(1.2 * size)
    column = max(_WIDTH, *(text_width(name, size) for name in columns))
    width = gap + len(columns) * (column + gap)
    page = Canvas(width, gap + 2 * line + sum(row[0].height + line + gap // 2 for row in rows) + gap, style)
    page.text(gap, gap + line / 2, shortened(heading, large, width - 2 * gap), large)
    lefts = [gap + number * (column + gap) + (column - _WIDTH) // 2 for number in range(len(columns))]
    for left, name in zip(lefts, columns):
        page.text(left + _WIDTH / 2, gap + 1.5 * line, name, size, "center")
    y = gap + 2 * line
    for row, caption in zip(rows, captions):
        for left, tile in zip(lefts, row):
            page.image(left, y, tile.pixels, (tile.height, _WIDTH))
        y += row[0].height
        page.text(gap, y + line / 2, shortened(caption, size, width - 2 * gap), size)
        y += line + gap // 2
    return page
