"""What numbers of proposals are worth: AP and recall against the regions of an image."""

import itertools
from typing import Any

from matplotlib.figure import Figure

from sact_det.pictures.figures import literal_text, new_figure, wrapped
from sact_det.pictures.point_labels import PointLabel, label_points

_CURVES = {"most": "the first k of every image", "mass": "up to a share of the objectness"}
_PANELS = {"AP": "AP", "recall": "recall of the proposals at IoU 0.5 (%)"}


@literal_text()
def draw_proposals(content: dict[str, Any]) -> Figure:
    """The results of tools/sweep_proposals.py: a curve for the numbers k, one for the shares; more for more positions.

    A share that is worth its computation lies above the other curve: at as many regions it finds more.
    """
    figure = new_figure(10, 4.5, dpi=150)
    every: list[tuple[Any, list[PointLabel]]] = []
    where = list(dict.fromkeys(setting["positions"] for setting in content["settings"]))
    figure.suptitle(wrapped(f"{content['dataset']}, {content['images']} images", 90))
    for number, (key, title) in enumerate(_PANELS.items(), 1):
        axes = figure.add_subplot(1, 2, number, xlabel="regions per image (mean)", ylabel=title)
        labels = []
        for (kind, label), positions in itertools.product(_CURVES.items(), where):
            own = [s for s in content["settings"] if s[kind] is not None and s["positions"] == positions]
            own.sort(key=lambda setting: setting["regions"])
            x, y = [setting["regions"] for setting in own], [setting[key] for setting in own]
            label = f"{label}, {positions} positions" if positions else label
            (line,) = axes.plot(x, y, marker="o", markersize=4, label=label)
            color = line.get_color()
            labels += [PointLabel(setting["regions"], setting[key], f"{setting[kind]:g}", color) for setting in own]
        axes.grid(alpha=0.3)
        if number == 1:
            axes.legend(loc="lower right")
        every.append((axes, labels))
    for axes, labels in every:
        label_points(figure, axes, labels, "small")
    return figure
