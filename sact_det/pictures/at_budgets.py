"""Pictures of what several budgets make of an image: the maps side by side under one colour scale."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Protocol, Sequence

import numpy as np
from tqdm import tqdm

from sact_det.pictures.folder import PictureFolder
from sact_det.pictures.image_sets import without_photograph
from sact_det.pictures.panels import draw_maps


@dataclass(frozen=True)
class AtBudget:
    """What a model makes of an image at a budget.

    Attributes:
        image: uint8 RGB [H, W, 3], with what was found in it.
        title: above the image.
        ponder_map: float [H, W].
        numbers: for ponder.json; `mean_ponder_cost` is one of them.
    """

    image: np.ndarray
    title: str
    ponder_map: np.ndarray
    numbers: dict[str, Any]


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
        photographs: whether the images are shown, or white in their place.

    Returns:
        A row for every picture: file, picture, and under "budgets" the numbers at each.
    """
    rows: list[dict[str, Any]] = []
    for path, stem in zip(tqdm(paths, unit="image", disable=None), stems):  # silent where stderr is no terminal
        maps, numbers = {}, []
        for budget in budgets:
            model.set_budget(budget)
            seen = look(path)
            numbers.append({"budget": budget, **seen.numbers})
            maps[f"budget {budget:g}, mean {seen.numbers['mean_ponder_cost']:.2f}"] = seen.ponder_map
        image = seen.image if photographs else without_photograph(seen.image)
        picture = draw_maps(image, maps, image_title=seen.title)
        file = folder.save(stem, numbers[-1]["mean_ponder_cost"], picture, path.name, image, seen.ponder_map)
        rows.append({"file": str(path), "picture": file, "budgets": numbers})
    return rows
