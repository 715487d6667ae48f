"""The rows of Table 2 are what tuning, post-processing and metrics give on their own; the report repeats them."""

import csv
import json

import numpy as np
import pytest
from cat2000_folder import write_cat2000_folder

from sact_det.base.errors import InputError
from saliency.cat2000 import read_cat2000
from saliency.center import CenterBaseline
from saliency.evaluation import evaluate
from saliency.intervals import bootstrap_intervals
from saliency.methods import CENTER, STAGES, Model, Settings
from saliency.postprocess import PostProcessing
from saliency.report import as_dict, markdown, write_report
from saliency.scores import METRICS, Reference
from saliency.search import Grid, GridPoint, grid_scores
from saliency.sheet import COLUMNS, draw_sheet, ranked

GRID = Grid((0, 2, 6), (0, 0.5, 2))
SETTINGS = Settings(GRID, CenterBaseline("isotropic"), density_sigma=3)
CHAIN = PostProcessing(longer_edge=16, blur_at="map", interpolation="cubic")


def centred_map(name):
    """A map that depends on the name, somewhat higher in the middle."""
    noise = np.random.default_rng(sum(name.encode())).uniform(8, 40, (9, 16))
    return (noise + 12 * CenterBaseline().map((9, 16))).astype(np.float32)


def flat_map(name):
    return np.full((3, 4), 8, np.float32)


MODELS = [Model("centred", centred_map, CHAIN), Model("flat", flat_map, PostProcessing())]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return read_cat2000(write_cat2000_folder(tmp_path_factory.mktemp("cat2000")))


@pytest.fixture(scope="module")
def found(dataset):
    return evaluate(dataset, MODELS, dataset.halves(), SETTINGS)


def row_of(evaluation, model, stage):
    (row,) = (row for row in evaluation.rows if (row.method.model, row.method.stage) == (model, stage))
    return row


def test_rows_are_centre_baselines_and_three_stages_of_every_model(found):
    named = [(row.method.model, row.method.stage) for row in found.rows]
    centers = [(CENTER, kind) for kind in ("isotropic", "stretched", "mit")]
    assert named == [*centers, *((model.name, stage) for model in MODELS for stage in STAGES)]


def test_the_second_halves_are_scored_in_every_metric(dataset, found):
    assert [dataset[index].name for index in found.indices] == [
        *("Action/004", "Action/010", "Social/004", "Social/010"),
    ]
    row = row_of(found, "centred", "ponder map")
    for scores, index in zip(row.scores, found.indices):
        values = CHAIN(centred_map(dataset[index].name), dataset[index].shape)
        truth = Reference(dataset, index, density_sigma=3, baseline=CenterBaseline("isotropic"))
        assert scores.tolist() == [metric.of(values, truth) for metric in METRICS.values()]


def test_with_centre_is_the_papers_protocol_tuned_on_the_first_halves_and_scored_on_the_second(dataset, found):
    (split,) = dataset.halves()
    halves = dataset.subset(split.tuned_on), dataset.subset(split.scored)
    chain = PostProcessing(blur_at="map", interpolation="cubic", center=CenterBaseline("isotropic"))
    search, validation = (grid_scores(half, centred_map, chain, GRID) for half in halves)
    means = search.values.mean(axis=0)
    row, column = np.unravel_index(means.argmax(), means.shape)
    expected = validation.values[:, row, column]
    mixed = row_of(found, "centred", "with centre")
    (used,) = mixed.method.chains
    assert (used.sigma, used.multiplier) == (GRID.sigmas[row], GRID.multipliers[column])
    assert mixed.scores[:, 0] == pytest.approx(expected, abs=1e-12)
    assert list(mixed.method.notices) == search.edge_notices(GridPoint(used.sigma, used.multiplier, means.max()))
    interval = found.intervals[None][found.rows.index(mixed)]["auc_judd"]
    assert interval.low == pytest.approx(bootstrap_intervals(expected[:, None])[0].low) and interval.images == 4


def test_blurred_is_the_best_blur_without_the_centre(dataset, found):
    alone = Grid(GRID.sigmas, (0,))
    best = grid_scores(dataset.subset(dataset.halves()[0].tuned_on), centred_map, CHAIN, alone).best()
    (chain,) = row_of(found, "centred", "blurred").method.chains
    assert (chain.sigma, chain.multiplier) == (best.sigma, 0)


def test_folds_score_every_image_with_what_the_others_chose(dataset):
    settings = Settings(GRID, CenterBaseline(), tuned_for="nss", metrics=("nss", "auc_judd"))
    found = evaluate(dataset, MODELS[:1], dataset.folds(4), settings)
    scores = grid_scores(dataset, centred_map, CHAIN, GRID, metric="nss").values
    assert found.indices == list(range(8))
    row = row_of(found, "centred", "with centre")
    for split, chain in zip(dataset.folds(4), row.method.chains, strict=True):
        fold = split.scored
        others = [index for index in range(len(dataset)) if index not in fold]
        means = scores[others].mean(axis=0)
        best = np.unravel_index(means.argmax(), means.shape)
        assert (chain.sigma, chain.multiplier) == (GRID.sigmas[best[0]], GRID.multipliers[best[1]])
        assert row.scores[fold, 0] == pytest.approx(scores[fold][:, best[0], best[1]], abs=1e-12)


def test_a_constant_map_scores_as_chance_and_with_the_centre_as_the_centre(found):
    assert row_of(found, "flat", "ponder map").scores[:, 0].tolist() == [0.5] * 4
    centred = row_of(found, "flat", "with centre").scores
    assert centred[:, 0] == pytest.approx(found.rows[0].scores[:, 0], abs=1e-12)


def test_the_difference_to_the_centre_is_of_the_same_images(found):
    row = row_of(found, "centred", "with centre")
    difference = row.scores[:, 0] - found.rows[0].scores[:, 0]
    interval = found.above_center[found.rows.index(row)]["auc_judd"]
    (expected,) = bootstrap_intervals(difference[:, None])
    assert [interval.mean, interval.low, interval.high] == pytest.approx([expected.mean, expected.low, expected.high])
    assert interval.low < interval.high


def test_processes_do_not_change_the_rows(dataset, found):
    settings = Settings(GRID, CenterBaseline("isotropic"), density_sigma=3, processes=2)
    again = evaluate(dataset, MODELS, dataset.halves(), settings)
    assert all((one.scores == two.scores).all() for one, two in zip(found.rows, again.rows))


def nan_map(name):
    return np.full((9, 16), np.nan)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([Model("bad", nan_map, CHAIN)], "Action/001: a map must be finite"),
        ([MODELS[0], MODELS[0]], "models need different names.*; got centred, centred"),
        ([Model(CENTER, centred_map, CHAIN)], "models need different names, other than 'centre baseline'"),
    ],
)
def test_what_cannot_be_scored_is_named(dataset, models, message):
    with pytest.raises(InputError, match=message):
        evaluate(dataset, models, dataset.halves(), SETTINGS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": Grid((0,), (1,))}, "`multipliers` of the grid must hold 0"),
        ({"tuned_for": "emd"}, "`metric` must be one of"),
        ({"metrics": ("nss",)}, "`tuned_for` must be one of the metrics of the rows; got 'auc_judd'"),
        ({"density_sigma": 0}, "`density_sigma` must be positive; got 0"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Settings(**{"grid": GRID, "center": CenterBaseline(), **arguments})


def test_the_files_of_a_report_agree(found, tmp_path):
    text = write_report(tmp_path, found, "Noise", {"command": ["x"]})
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["title"] == "Noise" and content["command"] == ["x"] and content["scored_images"] == 4
    assert content["splits"] == [{"tuned_on": 4, "scored": 4}] and content["grid"]["multipliers"] == [0, 0.5, 2]
    assert [row["map"] for row in content["rows"]][:4] == ["isotropic", "stretched", "mit", "ponder map"]
    assert content["rows"][0]["chains"][0]["multiplier"] == "inf"
    assert content["rows"][3]["chains"][0]["longer_edge"] == 16
    with open(tmp_path / "images.csv", newline="") as file:
        images = list(csv.DictReader(file))
    with open(tmp_path / "table.csv", newline="") as file:
        table = {(row["model"], row["map"], row["category"], row["metric"]): row for row in csv.DictReader(file)}
    assert len(images) == 9 * 4 and len(table) == 9 * 3 * len(METRICS)
    for row in content["rows"]:
        own = [one for one in images if (one["model"], one["map"]) == (row["model"], row["map"])]
        for metric, interval in row["overall"].items():
            assert interval["mean"] == pytest.approx(np.mean([float(one[metric]) for one in own]))
            assert float(table[row["model"], row["map"], "all", metric]["mean"]) == interval["mean"]
            social = [float(one[metric]) for one in own if one["category"] == "Social"]
            assert row["categories"]["Social"][metric]["mean"] == pytest.approx(np.mean(social))
            assert row["categories"]["Social"][metric]["images"] == 2
    assert (tmp_path / "table.md").read_text() == text + "\n"


def test_the_table_says_numbers_counts_and_what_to_be_wary_of(found):
    text = markdown(found, "Noise")
    assert text.startswith("Noise: 4 images; blur and centre tuned for AUC-Judd on 4 others; 0 left out.")
    rows = as_dict(found)["rows"]
    first = rows[0]["overall"]["auc_judd"]
    line = next(line for line in text.splitlines() if line.startswith("| centre baseline | isotropic"))
    assert f"| {first['mean']:.4f} [{first['low']:.4f}, {first['high']:.4f}] | 0 |" in line
    for row in rows:
        assert all(f"- {row['model']}, {row['map']}: {notice}" in text for notice in row["notices"])
    assert "AUC-Judd by category:" in text and "|  | images | 2 | 2 |" in text


@pytest.mark.parametrize(
    ("number", "sizes"), [(1, [1]), (2, [1, 1]), (3, [1, 1, 1]), (7, [2, 2, 2]), (10, [3, 3, 3]), (100, [3, 3, 3])]
)
def test_best_median_and_worst_are_different_images(number, sizes):
    scores = np.random.default_rng(number).permutation(number) / number
    groups = ranked(scores, higher_is_better=True)
    chosen = [index for group in groups.values() for index in group]
    assert [len(group) for group in groups.values()] == sizes and len(set(chosen)) == len(chosen)
    assert list(scores[chosen]) == sorted(scores[chosen], reverse=True) and scores[chosen[0]] == scores.max()
    assert number < 3 or scores[chosen[-1]] == scores.min()
    assert number < 3 or abs(np.median(scores[groups["median"]]) - np.median(scores)) <= 0.5 / number + 1e-9
    if number > 2:
        assert ranked(-scores, higher_is_better=False) == groups


def test_the_sheet_shows_every_column_of_every_image(found):
    sheet = draw_sheet(found, MODELS[0], "Noise")
    assert sheet.dtype == np.uint8 and sheet.shape[1] > len(COLUMNS) * 240
    bright = (sheet < 250).any(axis=2)
    pictures = sum(1 for start in range(14, sheet.shape[1] - 200, 254) if bright[80:, start : start + 240].mean() > 0.5)
    assert pictures == len(COLUMNS)


def test_the_sheet_without_photographs_lacks_them_and_nothing_else(found):
    whole, maps = (draw_sheet(found, MODELS[0], "Noise", photographs=shown) for shown in (True, False))
    assert whole.shape[0] == maps.shape[0] and whole.shape[1] - maps.shape[1] == 254
    assert np.array_equal(whole[80:160, 14 + 254 : 14 + 2 * 254], maps[80:160, 14 : 14 + 254])


def test_the_sheet_shows_the_blurred_map_where_the_centre_alone_is_best(dataset):
    def post_processed(grid):
        settings = Settings(grid, CenterBaseline(), metrics=("auc_judd",))
        sheet = draw_sheet(evaluate(dataset, [flat], dataset.halves(), settings), flat, "")
        return sheet[80:200, 14 + 3 * 254 : 14 + 3 * 254 + 240]

    flat = MODELS[1]
    assert post_processed(Grid((0,), (0, np.inf))).std(axis=(0, 1)).max() == 0
    assert post_processed(Grid((0,), (0, 1))).std(axis=(0, 1)).max() > 10
