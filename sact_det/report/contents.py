"""What a page says of what was found: its sections, in order."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from detectron2.config import CfgNode

from sact_det.experiments.results_file import read_results
from sact_det.report.classifier import Classifier, classifier_gallery
from sact_det.report.detector import Network, detector_gallery
from sact_det.report.gallery import PackedGallery
from sact_det.report.inputs import Inputs, Row
from sact_det.report.page import Page, Part, Section, Table
from sact_det.report.plots import Plot, Series
from sact_det.report.timing import median_milliseconds, timing_parts
from sact_det.report.training import budget_parts, course_parts, histogram_parts, quality_parts, results_part
from sact_det.tasks import load_config


@dataclass(frozen=True)
class Options:
    """What may be chosen: the page's title, images of a gallery, whether photographs are shown, the device."""

    title: Optional[str] = None
    max_images: int = 200
    photographs: bool = True
    device: Optional[str] = None


def make_page(found: Inputs, options: Options, further: Sequence[Section] = ()) -> Page:
    """The page of what was found, with further sections. Raises InputError for what cannot be used."""
    sections: list[Section] = []
    headlines: list[tuple[str, str]] = []
    for dataset in dict.fromkeys(row.dataset for row in found.rows):
        rows = [row for row in found.rows if row.dataset == dataset]
        sections += _of_rows(dataset, rows, found.benchmarks, options)
        headlines += _headlines(rows)
    for file in found.benchmarks:
        parts = timing_parts(file)
        if parts:
            title = "Seconds" if len(found.benchmarks) == 1 else f"Seconds: {file.stem}"
            sections.append(Section(title, "Whole detectors, measured in turns.", parts))
    sections += [_of_sweep(folder) for folder in found.sweeps]
    data = [row.dataset for row in found.rows] + [path.stem for path in (*found.sweeps, *found.saliency)]
    name = options.title or f"What networks compute where: {', '.join(dict.fromkeys(data))}"
    return Page(name, [*sections, *further], headlines[:4], [f"Made by: python {shlex.join(sys.argv)}"])


def _of_rows(dataset: str, rows: Sequence[Row], benchmarks: Sequence[Path], options: Options) -> list[Section]:
    """Results, the gallery and the course of trainings on one data set."""
    gallery, milliseconds = _look(rows, options) if options.max_images else (None, {})
    how = "in one pass, all networks in turns on the machine that made this page; tools/benchmark.py measures with care"
    for file in benchmarks:
        timed = {row.name: median_milliseconds(file, (row.folder / "model_final.pth").resolve()) for row in rows}
        if None not in timed.values():  # numbers of two kinds are not put beside each other
            milliseconds, how = timed, f"by tools/benchmark.py ({file.name})"
    results: list[Part] = [results_part(rows, milliseconds, how), *quality_parts(rows), *budget_parts(rows)]
    sections = [Section(f"Results on {dataset}", "", [*results, *histogram_parts(rows)])]
    if gallery is not None:
        sections.append(Section(f"Images of {dataset}, by what was spent on them", "", [gallery]))
    return [*sections, Section(f"Training for {dataset}", "A line for every run.", course_parts(rows))]


def _look(rows: Sequence[Row], options: Options) -> tuple[PackedGallery, dict[str, Optional[float]]]:
    """The gallery of the first run of every row, and the milliseconds that detectors took."""
    rows = sorted(rows, key=lambda row: row.runs[0]["halting"] == "none")  # adaptive ones are looked at first
    configs = {row.name: _config(row, options.device) for row in rows}
    if next(iter(configs.values())).MODEL.META_ARCHITECTURE == "SACTClassifier":
        classifiers = [Classifier(name, cfg) for name, cfg in configs.items()]
        return classifier_gallery(classifiers, options.max_images, options.photographs), {}
    networks = [Network(name, cfg) for name, cfg in configs.items()]
    gallery = detector_gallery(networks, options.max_images, options.photographs)
    return gallery, {network.name: network.milliseconds for network in networks}


def _config(row: Row, device: Optional[str]) -> CfgNode:
    overrides = ["MODEL.WEIGHTS", str(row.folder / "model_final.pth"), *(["MODEL.DEVICE", device] if device else [])]
    return load_config(str(row.folder / "config.yaml"), overrides)


def _headlines(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The adaptive network with the fewest FLOPs, in numbers that stand out; beside the plain one, if there is one."""
    adaptive = [row for row in rows if row.runs[0]["halting"] != "none" and "bbox" in row.results]
    if not adaptive:
        return []
    best = min(adaptive, key=lambda row: row.results["ponder"]["flops_percent"])
    plain = next((row for row in rows if row.runs[0]["halting"] == "none"), None)
    ponder = best.results["ponder"]
    beside = f", plain network {plain.results['bbox']['AP']:.1f}" if plain else ""
    found = [(f"{best.results['bbox']['AP']:.1f}", f"AP of {best.name}{beside}")]
    found.append((f"{ponder['flops_percent']:.0f}%", "of the plain extractor's FLOPs"))
    if "detector_flops_percent" in ponder:
        found.append((f"{ponder['detector_flops_percent']:.0f}%", "of the whole plain detector's FLOPs"))
    if ponder.get("cost_outside"):
        found.append(
            (
                f"{ponder['cost_inside'] / ponder['cost_outside']:.2f}",
                "is the ponder cost inside boxes, divided by that outside",
            )
        )
    return found


def _of_sweep(folder: Path) -> Section:
    """The paper's figure 7: accuracy against FLOPs at several sizes of the images."""
    results = read_results(folder / "results.json")
    pairs = results["pairs"]
    series = []
    for number, model in enumerate(dict.fromkeys(pair["model"] for pair in pairs)):
        line = sorted((pair for pair in pairs if pair["model"] == model), key=lambda pair: pair["size"])
        x = [pair["summary"]["flops"] / 1e9 for pair in line]
        y = [100 * pair["summary"]["accuracy"] for pair in line]
        names = [f"{pair['size']}" for pair in line]
        series.append(Series(model, x, y, number, dots=True, labels=names, named=True))
    cells = [
        [
            pair["model"],
            f"{pair['size']}",
            f"{100 * own['accuracy']:.2f}",
            f"{own['flops'] / 1e9:.3f} ± {own['flops_std'] / 1e9:.3f}",
            f"{own['images']:.0f}",
        ]
        for pair in pairs
        for own in [pair["summary"]]
    ]
    heads = ["network", "image size", "accuracy (%)", "GFLOPs", "images"]
    plot = Plot("Accuracy against FLOPs; a number is the side of the images", "GFLOPs an image", "accuracy (%)", series)
    return Section(
        f"Image sizes: {folder.name}", f"On {results['dataset']}.", [plot, Table("Every pair", heads, cells)]
    )
