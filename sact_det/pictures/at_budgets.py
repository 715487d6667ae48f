"""Pictures of what several budgets make of an image: the maps side by side under one colour scale."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Protocol, Sequence

import numpy as np
from tqdm import tqdm

from sact_det.pictures.boxes import Mark
from sact_det.pictures.folder import PictureFolder
from sact_det.pictures.panels import maps_panel


@dataclass(frozen=True)
class AtBudget:
    """What a model makes of an image at a budget.

    Attributes:
        shown: uint8 RGB, with what was found in it, in the dots of the folder's style.
        image: uint8 RGB [H, W, 3], without.
        block_costs: name -> rho of a block, float32 [h, w].
        title: above the image.
        numbers: for ponder.json; `mean_ponder_cost` is one of them.
        marks: what was found, for the contact sheet.
    """

    shown: np.ndarray
    image: np.ndarray
    block_costs: Mapping[str, np.ndarray]
    title: str
    numbers: dict[str, Any]
    marks: Sequence[Mark] = ()


class _Budgeted(Protocol):
    def set_budget(self, budget: float) -> object: ...


def draw_at_budgets(
    model: _Budgeted,
    look: Callable[[Path], AtBudget],
    budgets: Sequence[float],
    paths: Sequence[Path],
    stems: Sequence[str],
    folder: PictureFolder,
    *,
    photographs: bool = True,
) -> list[dict[str, Any]]:
    """Draws every file as it is at the last of the budgets, beside the maps at all of them.

    Args:
        model: takes the budgets.
        look: what it makes of a file at the budget it has.
        budgets: shares of the plain network's FLOPs.
        paths: of the files.
        stems: names of the pictures, without suffix and cost.
        folder: where they go.
        photographs: whether the images are shown, or only their maps.

    Returns:
        A row for every picture: file, picture, and under "budgets" the numbers at each.
    """
    style = folder.style
    rows: list[dict[str, Any]] = []
    for path, stem in zip(tqdm(paths, unit="image", disable=None), stems):  # silent where stderr is no terminal
        maps, numbers = {}, []
        for budget in budgets:
            model.set_budget(budget)
            seen = look(path)
            numbers.append({"budget": budget, **seen.numbers})
            size = (round(seen.shown.shape[0] / style.density), round(seen.shown.shape[1] / style.density))
            title = f"budget {budget:.0%}: {seen.numbers['flops_percent']:.0f}% of the FLOPs"
            maps[title] = style.spread(seen.block_costs.values(), size)
        picture = maps_panel(seen.shown if photographs else None, maps, image_title=seen.title, style=style)
        image, cost = seen.image if photographs else None, numbers[-1]["mean_ponder_cost"]
        ponder_map = style.spread(seen.block_costs.values(), seen.image.shape[:2])
        file = folder.save(stem, cost, picture, path.name, image, ponder_map, seen.marks)
        rows.append({"file": str(path), "picture": file, "budgets": numbers})
    return rows
