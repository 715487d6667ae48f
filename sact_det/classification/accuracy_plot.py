"""Accuracy against FLOPs, as in the paper's figure 7."""

from typing import Any, NamedTuple, Sequence

from matplotlib.figure import Figure

from sact_det.pictures.figures import literal_text, logarithmic_where_wide, new_figure, wrapped
from sact_det.pictures.point_labels import PointLabel, label_points


class Point(NamedTuple):
    """A model at a resolution; FLOPs are mean and standard deviation over images, accuracy a share from 0 to 1."""

    model: str
    size: int
    flops: float
    flops_std: float
    accuracy: float


def draw_sweep(results: dict[str, Any]) -> Figure:
    """Models at several resolutions: the results of tools/sweep_resolutions.py."""
    points = [
        Point(pair["model"], pair["size"], *(pair["summary"][key] for key in ("flops", "flops_std", "accuracy")))
        for pair in results["pairs"]
    ]
    return draw_accuracy(points, f"{results['dataset']}, {results['pairs'][0]['summary']['images']:.0f} images")


@literal_text()
def draw_accuracy(points: Sequence[Point], title: str = "") -> Figure:
    """A line for every model through its resolutions, the error bars one standard deviation wide.

    The FLOPs axis is logarithmic where the points lie far apart.
    """
    figure = new_figure(9, 5, dpi=150)
    axes = figure.add_subplot(
        title=wrapped(title, 64),
        xlabel="GFLOPs per image (mean ± standard deviation over images)",
        ylabel="accuracy (%); a number is the side of the images",
    )
    labels = []
    for model in dict.fromkeys(point.model for point in points):
        line = sorted((point for point in points if point.model == model), key=lambda point: point.size)
        flops = [point.flops / 1e9 for point in line]
        deviations = [point.flops_std / 1e9 for point in line]
        accuracy = [100 * point.accuracy for point in line]
        # A bar that reached 0 could not be drawn on a logarithmic axis.
        below = [min(deviation, 0.99 * mean) for deviation, mean in zip(deviations, flops)]
        bars = axes.errorbar(
            flops, accuracy, xerr=(below, deviations), marker="o", markersize=4, capsize=3, label=wrapped(model, 40)
        )
        color = bars.lines[0].get_color()
        labels += [PointLabel(x, y, str(point.size), color) for point, x, y in zip(line, flops, accuracy)]
    logarithmic_where_wide(axes, [point.flops for point in points])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    label_points(figure, axes, labels, "small")
    return figure
