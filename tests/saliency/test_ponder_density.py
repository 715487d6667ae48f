"""A fitted ponder density finds what fixations were drawn from, sums to 1, and predicts images it was not fitted on."""

import json

import numpy as np
import pytest
from cat2000_folder import write_cat2000_folder
from command_lines import load_tool
from random_weights import write_random_weights
from scipy.ndimage import gaussian_filter

from sact_det.base.errors import InputError
from sact_det.tasks import load_config
from saliency.cat2000 import read_cat2000
from saliency.extraction import PonderModel, extract_maps
from saliency.fixations import Fixations
from saliency.ponder_density import PonderDensity, best_maps, fit_ponder_density
from saliency.postprocess import min_max, resize

SHAPE = (48, 64)
TRUE = PonderDensity((0.7, 0.3), (0.03, 0.06), 6.0, 1.5, 0.4, 0.05)
CLASSIFIER = "configs/tests/tiny_classifier.yaml"

tool = load_tool("fit_ponder_density")


def drawn(number, seed, fixations=400):
    """Maps of two blocks, and fixations drawn from their density."""
    rng = np.random.default_rng(seed)
    blocks, found = [], []
    for _ in range(number):
        maps = gaussian_filter(rng.random((2, *SHAPE)), (0, 4, 4))
        density = np.exp(TRUE.log_density(maps, SHAPE)).ravel()
        y, x = np.divmod(rng.choice(density.size, fixations, p=density / density.sum()), SHAPE[1])
        blocks.append(maps)
        found.append(Fixations(x, y, SHAPE))
    return blocks, found


def likelihood(density, blocks, fixations):
    return np.mean([density.log_density(b, SHAPE)[f.y, f.x].mean() for b, f in zip(blocks, fixations)])


def test_the_density_is_its_formula():
    maps = np.random.default_rng(0).random((2, *SHAPE))
    s = sum(w * gaussian_filter(min_max(m), g * 64) for w, g, m in zip(TRUE.weights, TRUE.sigmas, maps))
    y, x = np.mgrid[:48, :64]
    distance = ((y + 0.5) / 48 - 0.5) ** 2 + ((x + 0.5) / 64 - 0.5) ** 2
    powers = np.exp(6.0 * s**1.5 - distance / (2 * 0.4**2))
    expected = np.log(0.95 * powers / powers.sum() + 0.05 / powers.size)
    assert TRUE.log_density(maps, SHAPE) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", [SHAPE, (96, 128), (31, 200)])
def test_it_sums_to_one_at_any_size(shape):
    maps = np.random.default_rng(0).random((2, 12, 16)).astype(np.float32)
    assert np.exp(TRUE.log_density(maps, shape)).sum() == pytest.approx(1)


def test_a_fit_predicts_other_images_almost_as_well_as_what_they_were_drawn_from():
    fitted, scored = drawn(8, 0), drawn(6, 1)
    found = fit_ponder_density(*fitted)
    uniform = -np.log(SHAPE[0] * SHAPE[1])
    best = likelihood(TRUE, *scored) - uniform
    assert best > 0.1
    assert likelihood(found, *scored) - uniform == pytest.approx(best, abs=0.03)
    assert likelihood(found, *fitted) >= likelihood(TRUE, *fitted) - 1e-3
    assert sum(found.weights) == pytest.approx(1) and found.weights[0] > found.weights[1]


def test_maps_for_metrics_are_derived_from_the_density():
    density = TRUE.log_density(np.random.default_rng(0).random((2, *SHAPE)), SHAPE)
    center = np.full(SHAPE, -np.log(density.size))
    maps = {name: make() for name, make in best_maps(density, center, 2.0).items()}
    assert maps["auc"].is_log_density and (maps["shuffled_auc"].map == density - center).all()
    assert (maps["nss"].map == np.exp(density)).all() and not maps["shuffled_auc"].is_log_density
    assert maps["cc"].map == pytest.approx(gaussian_filter(np.exp(density), 2.0, mode="reflect"), abs=1e-12)


def test_a_density_is_that_of_every_block_blurred_by_itself():
    blocks = np.random.default_rng(1).random((2, 12, 16))
    density = TRUE.log_density(blocks, SHAPE)
    parts = zip(TRUE.weights, TRUE.sigmas, blocks)
    saliency = sum(w * gaussian_filter(resize(min_max(m), SHAPE), s * 64, mode="reflect") for w, s, m in parts)
    y, x = (((np.arange(side) + 0.5) / side - 0.5) ** 2 for side in SHAPE)
    powers = np.exp(TRUE.scale * saliency**TRUE.gamma - (y[:, None] + x) / (2 * TRUE.width**2))
    expected = (1 - TRUE.uniform) * powers / powers.sum() + TRUE.uniform / powers.size
    assert np.exp(density) == pytest.approx(expected, rel=1e-9)


def test_what_cannot_be_fitted_is_refused():
    blocks, fixations = drawn(2, 0)
    with pytest.raises(InputError, match="one image or more"):
        fit_ponder_density([], [])
    with pytest.raises(InputError, match=r"maps by block must be \[2, h, w\]; got \[1, 48, 64\]"):
        fit_ponder_density([blocks[0], blocks[1][:1]], fixations)


@pytest.fixture
def weights(tmp_path):
    write_random_weights(tmp_path / "weights.pth", load_config(CLASSIFIER))
    return str(tmp_path / "weights.pth")


def test_maps_by_block_are_kept_and_sum_to_the_ponder_map(tmp_path, weights, monkeypatch):
    dataset = read_cat2000(write_cat2000_folder(tmp_path / "set", categories=("Action",), numbers=(1, 2)))
    cfg = load_config(CLASSIFIER, ["MODEL.WEIGHTS", weights])
    whole, parts = (extract_maps(cfg, dataset, tmp_path / "maps", 64, by_block=kind) for kind in (False, True))
    for image in dataset:
        assert parts(image.name).ndim == 3 and len(parts(image.name)) > 1
        assert parts(image.name).sum(0) == pytest.approx(whole(image.name), rel=1e-6)
        assert (PonderModel(cfg, 64)(image.pixels()) == whole(image.name)).all()
    monkeypatch.setattr(PonderModel, "__init__", lambda *arguments: pytest.fail("a model was made"))
    again, summed = (extract_maps(cfg, dataset, tmp_path / "maps", 64, by_block=kind) for kind in (True, False))
    assert (again("Action/001") == parts("Action/001")).all()
    assert (summed("Action/001") == whole("Action/001")).all()


def test_the_command_fits_scores_and_carries_over(tmp_path, weights):
    paths = [str(write_cat2000_folder(tmp_path / name, seed=seed)) for seed, name in enumerate(("one", "two"))]
    data = [part for name, path in zip(("one", "two"), paths) for part in ("--dataset", name, path, "4")]
    models = [part for name in ("a", "b") for part in ("--model", name, CLASSIFIER, weights)]
    output = tmp_path / "out"
    tool.main([*data, *models, "--output", str(output), "--image-size", "64", "--images", "2", "--processes", "1"])
    found = json.loads((output / "results.json").read_text())
    rows = [(row["model"], row["fitted_on"], row["images"], row["scored_on"]) for row in found["rows"]]
    of_model = [
        ("one", 2, "one"),
        ("one", 4, "one"),
        ("one", 4, "two"),
        ("two", 2, "two"),
        ("two", 4, "two"),
        ("two", 4, "one"),
    ]
    assert rows[:2] == [("centre bias", name, 7, name) for name in ("one", "two")]
    assert rows[2:] == [(model, *row) for model in ("a", "b") for row in of_model]
    assert len(found["differences"]) == 4 and all(
        line[-1] == "+0.0000 [+0.0000, +0.0000]" for line in found["differences"]
    )
    assert "| a | one | 4 | two |" in (output / "table.md").read_text()


def test_a_blur_that_is_none_is_named(tmp_path, weights, capsys):
    root = str(write_cat2000_folder(tmp_path / "set"))
    for blur, problem in (("wide", "must be a number; got 'wide'"), ("0", "must be positive; got 0")):
        with pytest.raises(SystemExit):
            tool.main(
                [
                    "--images",
                    "--dataset",
                    "x",
                    root,
                    blur,
                    "--model",
                    "a",
                    CLASSIFIER,
                    weights,
                    "--output",
                    str(tmp_path / "o"),
                ]
            )
        assert problem in capsys.readouterr().err
