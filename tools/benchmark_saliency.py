#!/usr/bin/env python
"""Times AUC-Judd and the seven metrics of the Tuebingen protocol beside
pysaliency's, and the grid search.

    python tools/benchmark_saliency.py auc
    python tools/benchmark_saliency.py seven --map blocks
    python tools/benchmark_saliency.py grid --processes 2

pysaliency is compared with where it is installed.

Times are medians, and the least, in milliseconds; the methods take turns, so
that other load meets all of them. Images, maps and fixations are synthetic:
they have the size and number of CAT2000's and say nothing about people.
"""

import argparse
import os
import platform
import sys
import time
from types import ModuleType
from typing import Any, Callable, Optional, Sequence

import cv2
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from sact_det.base.command_line import check_positive
from sact_det.base.errors import InputError
from sact_det.base.files import writable_file, write_json
from sact_det.base.processes import command_line
from sact_det.benchmark.timing import Candidate, Spread, interleaved_times
from saliency.blur import gaussian_blur
from saliency.center_bias import CenterBias
from saliency.dataset import FixationDataset, FixationImage
from saliency.fixations import Fixations
from saliency.metrics import auc_judd
from saliency.postprocess import PostProcessing
from saliency.pysaliency_bridge import as_saliency_map_model, to_pysaliency
from saliency.scores import TUEBINGEN_METRICS, Reference, score_maps
from saliency.search import Grid, grid_scores

CAT2000_FIXATIONS = 350  # about, of an image
IMAGES_OF_SEVEN = 20  # whose fixations are the negatives of sAUC, and the centre bias
FULL_IMAGES = 1000  # the first halves of CAT2000's training set


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", metavar="FILE.json", help="writes the numbers there as well")
    parser.add_argument("--size", type=int, nargs=2, default=(1920, 1080), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--fixations", type=int, default=CAT2000_FIXATIONS, metavar="N", help="of an image")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parts = parser.add_subparsers(dest="part", required=True)
    auc = parts.add_parser("auc", help="one map and its fixations")
    seven = parts.add_parser("seven", help="one map, all metrics of the Tuebingen protocol; densities are made before")
    for part in (auc, seven):
        part.add_argument("--repeats", type=int, default=31, metavar="N")
        part.add_argument("--threads", type=int, default=1, metavar="N", help="that OpenCV and AUC may use; default: 1")
        part.add_argument("--map", choices=MAPS, default="smooth", help="default: smooth")
    grid = parts.add_parser("grid", help="a slice of the search, and what all of it would take")
    grid.add_argument("--images", type=int, default=8, metavar="N")
    grid.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    grid.add_argument("--map-size", type=int, nargs=2, default=(320, 180), metavar=("WIDTH", "HEIGHT"))
    grid.add_argument("--blur-at", choices=("map", "image"), default="image", help="default: image")
    return parser.parse_args(argv)


MAPS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "smooth": lambda rng, shape: gaussian_blur(rng.random(shape), 20),
    "noise": lambda rng, shape: rng.random(shape),
    "blocks": lambda rng, shape: cv2.resize(
        rng.uniform(8, 40, (shape[0] // 32 + 1, shape[1] // 32 + 1)), shape[::-1], interpolation=cv2.INTER_NEAREST
    ),
}


def random_fixations(rng: np.random.Generator, shape: tuple[int, int], number: int) -> Fixations:
    """So many fixations of an image of `shape` (H, W), around its middle, no two on one pixel."""
    middle = np.array(shape) / 2
    points = np.clip(rng.normal(middle, middle / 2.5, (2 * number + 50, 2)), 0, np.array(shape) - 1)
    points = np.unique(points.astype(np.int64), axis=0)
    y, x = rng.permutation(points)[:number].T
    return Fixations(x, y, shape)


def supply_pysaliency() -> None:
    """The two names that pysaliency 0.2.22 misses in current numpy and setuptools."""
    if not hasattr(np, "trapz"):
        setattr(np, "trapz", np.trapezoid)  # noqa: B010
    try:
        import pkg_resources  # noqa: F401
    except ImportError:
        stand_in: Any = ModuleType("pkg_resources")
        stand_in.resource_string = stand_in.resource_listdir = lambda *arguments: b""
        sys.modules["pkg_resources"] = stand_in


def pysaliency_judd(values: np.ndarray, fixations: Fixations) -> Optional[Callable[..., float]]:
    """pysaliency's AUC_Judd without jitter, or None where it is not installed."""
    supply_pysaliency()
    image = FixationImage("map", "", fixations, np.zeros((*values.shape, 3), np.uint8))
    try:
        model = as_saliency_map_model(lambda _: values, caching=False)
        stimuli, points = to_pysaliency(FixationDataset("one map", [image]))
    except InputError:
        return None
    return lambda *_: float(model.AUC_Judd(stimuli, points, jitter=False))


def benchmark_auc(args: argparse.Namespace) -> dict[str, Any]:
    """Median and least time of each method, and the values."""
    cv2.setNumThreads(args.threads)
    rng = np.random.default_rng(args.seed)
    shape = (args.size[1], args.size[0])
    values = MAPS[args.map](rng, shape)
    fixations = random_fixations(rng, shape, args.fixations)
    single = values.astype(np.float32)
    methods: dict[str, Callable[..., Any]] = {
        "auc_judd, float64": lambda *_: auc_judd(values, fixations),
        "auc_judd, float32": lambda *_: auc_judd(single, fixations),
        "np.sort of the map, float64": lambda *_: np.sort(values, axis=None)[0],  # its value: the least
    }
    theirs = pysaliency_judd(values, fixations)
    if theirs is not None:
        methods = {"pysaliency AUC_Judd": theirs, **methods}
    results = {name: method() for name, method in methods.items()}  # warms up as well
    candidates = [Candidate(name, method) for name, method in methods.items()]
    with tqdm(total=args.repeats * len(candidates), unit="run", disable=None, leave=False) as bar:
        times = interleaved_times(candidates, args.repeats, warmup=0, tick=bar.update)
    wall_ms = {name: 1e3 * Spread.of(own).median for name, own in times.items()}
    least_ms = {name: 1e3 * min(own) for name, own in times.items()}
    print(f"one map of {args.size[0]}x{args.size[1]} ({args.map}), {len(fixations)} fixations, {args.threads} threads")
    rows = [(name, wall_ms[name], least_ms[name], value) for name, value in results.items()]
    print(tabulate(rows, ("", "wall ms", "least", "value"), floatfmt=("", ".2f", ".2f", ".12f")))
    numbers: dict[str, Any] = {"wall_ms": wall_ms, "least_ms": least_ms, "repeats": args.repeats, "map": args.map}
    if theirs is None:
        print("pysaliency is not installed: not compared")
        return numbers
    ours, other = "auc_judd, float64", "pysaliency AUC_Judd"
    numbers["speedup"] = {kind: own[other] / own[ours] for kind, own in (("wall", wall_ms), ("least", least_ms))}
    numbers["difference"] = abs(results[ours] - results[other])
    print("speedup: " + ", ".join(f"{kind} {ratio:.1f}x" for kind, ratio in numbers["speedup"].items()), end="; ")
    print(f"difference of the values {numbers['difference']:.1e}")
    return numbers


def benchmark_seven(args: argparse.Namespace) -> dict[str, Any]:
    """Median time of each metric of the protocol, ours and pysaliency's, and how far the values are apart."""
    cv2.setNumThreads(args.threads)
    rng = np.random.default_rng(args.seed)
    shape = (args.size[1], args.size[0])
    values = MAPS[args.map](rng, shape)
    images = [
        FixationImage(
            str(number), "", random_fixations(rng, shape, args.fixations), np.full((*shape, 3), number, np.uint8)
        )
        for number in range(IMAGES_OF_SEVEN)
    ]
    dataset = FixationDataset("synthetic", images)
    bias = CenterBias([image.fixations for image in images], 0.05, 0.01)
    truth = Reference(dataset, 0, center_bias=bias)
    ours = {name: (lambda *_, m=metric: m.of(values, truth)) for name, metric in TUEBINGEN_METRICS.items()}
    theirs = pysaliency_seven(values, dataset, truth.density, bias.log_density(0))
    methods = {("ours", name): method for name, method in ours.items()}
    methods.update({("pysaliency", name): method for name, method in theirs.items()})
    methods["ours", "together"] = lambda *_: score_maps([values], truth, tuple(ours))  # a distribution is made once
    results = {key: method() for key, method in methods.items()}  # warms up as well
    candidates = [Candidate(f"{who} {name}", method) for (who, name), method in methods.items()]
    with tqdm(total=args.repeats * len(candidates), unit="run", disable=None, leave=False) as bar:
        times = interleaved_times(candidates, args.repeats, warmup=0, tick=bar.update)
    wall_ms = {"ours": {name: 1e3 * Spread.of(times[f"ours {name}"]).median for name in ours}}
    print(f"one map of {args.size[0]}x{args.size[1]} ({args.map}), {args.fixations} fixations, {args.threads} threads")
    numbers: dict[str, Any] = {"wall_ms": wall_ms, "repeats": args.repeats, "map": args.map}
    if not theirs:
        print(tabulate(wall_ms["ours"].items(), ("", "wall ms"), floatfmt=".2f"))
        print("pysaliency is not installed: not compared")
        return numbers
    wall_ms["pysaliency"] = {name: 1e3 * Spread.of(times[f"pysaliency {name}"]).median for name in ours}
    apart = {name: abs(results["ours", name] - results["pysaliency", name]) for name in ours}
    together = 1e3 * Spread.of(times["ours together"]).median
    total = {"pysaliency": sum(wall_ms["pysaliency"].values()), "ours": together}
    rows = [(name, wall_ms["pysaliency"][name], wall_ms["ours"][name], apart[name]) for name in ours]
    rows.append(("all seven together", total["pysaliency"], total["ours"], max(apart.values())))
    print(tabulate(rows, ("", "pysaliency, ms", "ours, ms", "values apart"), floatfmt=("", ".2f", ".2f", ".1e")))
    print(f"speedup of all seven: {total['pysaliency'] / total['ours']:.1f}x")
    return {**numbers, "total_ms": total, "apart": apart, "speedup": total["pysaliency"] / total["ours"]}


def pysaliency_seven(
    values: np.ndarray, dataset: FixationDataset, density: np.ndarray, center: np.ndarray
) -> dict[str, Callable[..., float]]:
    """pysaliency's own functions on the map of the first image; none where it is not installed."""
    supply_pysaliency()
    try:
        from pysaliency.metrics import CC, NSS, SIM, MIT_KLDiv, convert_saliency_map_to_density

        stimuli, fixations = to_pysaliency(dataset)
    except (ImportError, InputError):
        return {}
    first = fixations.n == 0
    x, y = fixations.x_int[first], fixations.y_int[first]
    model = as_saliency_map_model(lambda _: values, caching=False)

    def of_first(nonfixations: str) -> Callable[..., float]:
        if nonfixations == "uniform":  # of one image alone, so that no other one is timed
            return lambda *_: model.AUC_per_image(stimuli[:1], fixations[first], nonfixations="uniform")[0]
        others = (fixations.y_int[~first], fixations.x_int[~first])
        from pysaliency.roc import general_roc

        return lambda *_: general_roc(values[y, x].astype(float), values[others].astype(float))[0]

    return {
        "gain_over_center_bias": lambda *_: float(
            np.mean(np.log(convert_saliency_map_to_density(values, 1e-20))[y, x] - center[y, x]) / np.log(2)
        ),
        "auc": of_first("uniform"),
        "shuffled_auc": of_first("shuffled"),
        "nss": lambda *_: float(NSS(values, x, y).mean()),
        "cc": lambda *_: float(CC(values, density)),
        "kld": lambda *_: float(MIT_KLDiv(values, density)),
        "sim": lambda *_: float(SIM(values, density)),
    }


class NoiseMaps:
    """Maps of noise, float32 [h, w] of `shape`, a different one for each name (a number)."""

    def __init__(self, shape: tuple[int, int]):
        self._shape = shape

    def __call__(self, name: str) -> np.ndarray:
        """The map of a name, a number in digits: float32 [h, w]."""
        return np.random.default_rng(int(name)).uniform(8, 40, self._shape).astype(np.float32)


def benchmark_grid(args: argparse.Namespace) -> dict[str, Any]:
    """Time per image and point, and that of the whole search at this rate."""
    rng = np.random.default_rng(args.seed)
    shape = (args.size[1], args.size[0])
    images = [
        FixationImage(str(number), "", random_fixations(rng, shape, args.fixations), np.zeros(0, np.uint8))
        for number in range(args.images)
    ]
    grid, maps = Grid.mit(), NoiseMaps((args.map_size[1], args.map_size[0]))
    chain = PostProcessing(blur_at=args.blur_at)
    warm_up = FixationDataset("synthetic", images[: args.processes])
    grid_scores(warm_up, maps, chain, Grid((0,), (0,)), processes=args.processes)
    start = time.perf_counter()
    grid_scores(FixationDataset("synthetic", images), maps, chain, grid, processes=args.processes)
    wall = time.perf_counter() - start
    points = len(grid.sigmas) * len(grid.multipliers)
    per_point = 1e3 * wall / (args.images * points)
    minutes = per_point * FULL_IMAGES * points / 60e3
    print(
        f"{args.images} images of {args.size[0]}x{args.size[1]}, {points} points, {args.processes} processes, "
        f"blur at the {args.blur_at}: {wall:.1f} s, {per_point:.2f} ms per image and point"
    )
    print(f"at this rate {FULL_IMAGES} images take {minutes:.1f} minutes")
    return {"wall_s": wall, "ms_per_image_and_point": per_point, "minutes_for_1000_images": minutes, "points": points}


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    of_part = ("--images", "--processes", "--map-size") if args.part == "grid" else ("--repeats", "--threads")
    check_positive(args, *of_part, "--fixations", "--size")
    if args.output:
        writable_file(args.output)
    numbers = {"auc": benchmark_auc, "seven": benchmark_seven, "grid": benchmark_grid}[args.part](args)
    if args.output:
        versions = {"python": platform.python_version(), "numpy": np.__version__, "opencv": cv2.__version__}
        described = {key: value for key, value in vars(args).items() if key != "output"}
        write_json(args.output, {"arguments": described, **numbers, **versions, "machine": platform.platform()})


if __name__ == "__main__":
    main()
