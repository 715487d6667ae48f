"""The seven metrics of the MIT/Tuebingen protocol: equal to a transcription of pysaliency, and to pysaliency itself."""

import h5py
import numpy as np
import published_metrics
import pytest
from cat2000_folder import REAL
from given_maps import density_of, evaluated, synthetic, tied_map, without, write_given_maps
from scipy.ndimage import gaussian_filter

from sact_det.base.errors import InputError
from saliency.cat2000 import read_cat2000
from saliency.center_bias import CenterBias
from saliency.fixations import Fixations
from saliency.metrics import auc, auc_judd
from saliency.prediction import Prediction
from saliency.scores import TUEBINGEN_METRICS, Reference, score_maps

NAMES = tuple(TUEBINGEN_METRICS)
EPS = 2.2204e-16
SIGMA = 5.0


def bias_of(dataset):
    return CenterBias([image.fixations for image in dataset], bandwidth=0.07, uniform=0.01)


def ours(dataset, index, prediction, sigma=SIGMA):
    truth = Reference(dataset, index, sigma, center_bias=bias_of(dataset))
    return dict(zip(NAMES, score_maps([prediction], truth, NAMES)[0]))


def transcribed(dataset, index, values, log_density, sigma=SIGMA):
    """pysaliency's definitions, step by step; of a log density `values` is its exp."""
    image = dataset[index]
    (height, width), own = image.shape, image.fixations
    positives = values[own.y, own.x]
    negatives, others = [], np.zeros(image.shape)
    for number, other in enumerate(dataset):
        if number != index:
            x = (other.fixations.x * (width / other.shape[1])).astype(int)
            y = (other.fixations.y * (height / other.shape[0])).astype(int)
            negatives += list(values[y, x])
            np.add.at(others, (y, x), 1)
    density = gaussian_filter(others, [0.07 * height, 0.07 * width]) / others.sum()
    center = np.log(0.99 * density + 0.01 / values.size)
    empirical = gaussian_filter(own.counts().astype(float), sigma)
    p, q = values / values.sum(), empirical / empirical.sum()
    return {
        "gain_over_center_bias": np.mean((log_density - center)[own.y, own.x]) / np.log(2),
        "auc": published_metrics.mann_whitney(positives, values.ravel()),
        "shuffled_auc": published_metrics.mann_whitney(positives, negatives),
        "nss": np.mean((positives - values.mean()) / values.std()),
        "cc": np.corrcoef(values.ravel(), empirical.ravel())[0, 1],
        "kld": (q * np.log(EPS + q / (p + EPS))).sum(),
        "sim": np.minimum(p, q).sum(),
    }


@pytest.mark.parametrize("shapes", [((60, 90),), ((60, 90), (30, 90), (60, 45))], ids=["one size", "three sizes"])
@pytest.mark.parametrize("kind", ["map", "density"])
def test_the_seven_metrics_are_their_transcription(kind, shapes):
    dataset = synthetic(shapes=shapes)
    for index, image in enumerate(dataset):
        values = tied_map(index, image.shape)
        prediction, log_density = values, np.log((values + 1e-20) / (values + 1e-20).sum())
        if kind == "density":
            log_density = density_of(values)
            prediction, values = Prediction(log_density, is_log_density=True), np.exp(log_density)
        expected = transcribed(dataset, index, values, log_density)
        assert ours(dataset, index, prediction) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("scale", [1, np.float32(1e-38), 1e30])
def test_the_area_against_all_pixels_counts_ties_half_at_any_scale(scale):
    dataset = synthetic(2)
    values = tied_map(0, (60, 90)) * scale
    positives = values[dataset[0].fixations.y, dataset[0].fixations.x]
    expected = published_metrics.mann_whitney(positives, values.ravel())
    assert ours(dataset, 0, values)["auc"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [3, 40, 3000])
def test_large_maps_of_few_values_score_exactly(dtype, levels):
    rng = np.random.default_rng(levels)
    values = np.sort(rng.normal(size=levels)).astype(dtype)[rng.integers(levels, size=(300, 400))]
    values[:20] += dtype(1e-6)  # near others, and not equal
    fixations = Fixations.from_points(rng.integers(0, 300, (60, 2)), values.shape)
    positives = values[fixations.y, fixations.x]
    everything = np.sort(values, axis=None)
    below, not_above = (np.searchsorted(everything, positives, side=side).sum() for side in ("left", "right"))
    assert auc(values, fixations) == pytest.approx((below + not_above) / (2 * 60 * values.size), abs=1e-15)
    expected = published_metrics.auc_judd_words(values, fixations.counts(), fixations.counts())
    assert auc_judd(values, fixations) == pytest.approx(expected, abs=1e-12)
    values[100, 100] = np.nan
    for metric in (auc, auc_judd):
        with pytest.raises(InputError, match="must be finite"):
            metric(values, fixations)


def test_neighbouring_floats_do_not_tie():
    values = np.full((20, 30), 1.0)
    values[:10] = np.nextafter(1.0, 2)
    fixations = Fixations.from_points([[0, 0], [0, 15]], values.shape)
    assert auc(values, fixations) == 0.5 * (0.5 + 0.25) + 0.5 * 0.25


def test_the_centre_bias_is_the_likeliest_of_those_around_it():
    dataset = synthetic(12)
    fixations = [image.fixations for image in dataset]
    fitted = CenterBias.fit(fixations)

    def likelihood(bandwidth, uniform):
        bias = CenterBias(fixations, bandwidth, uniform)
        return np.mean([bias.log_likelihoods(index).mean() for index in range(len(dataset))])

    best = likelihood(fitted.bandwidth, fitted.uniform)
    for factor in (0.7, 1.4):
        assert likelihood(fitted.bandwidth * factor, fitted.uniform) < best
        assert likelihood(fitted.bandwidth, min(fitted.uniform * factor, 0.99)) < best + 1e-4


def test_the_centre_bias_sums_to_one_and_leaves_the_image_out():
    dataset = synthetic(3)
    bias = bias_of(dataset)
    for index, image in enumerate(dataset):
        density = bias.log_density(index)
        own = image.fixations
        assert np.exp(density).sum() == pytest.approx(1)
        assert density[own.y, own.x] == pytest.approx(bias.log_likelihoods(index))
    alone = CenterBias([dataset[0].fixations, dataset[1].fixations], 0.07, 0.01)
    other = Fixations.from_points([[1, 1]], (60, 90))
    changed = CenterBias([other, dataset[1].fixations], 0.07, 0.01)
    assert alone.log_density(0) == pytest.approx(changed.log_density(0))
    with pytest.raises(InputError, match="needs two images with fixations"):
        CenterBias.fit([dataset[0].fixations])


def pysaliencys(pysaliency, dataset, values, is_density, sigma):
    """Every metric of every image by pysaliency. Fixations lie in the middle of their pixels: x / W * W may be < x."""
    from pysaliency.baseline_utils import CrossvalidatedBaselineModel
    from pysaliency.models import SaliencyMapNormalizingModel
    from pysaliency.saliency_map_models import DensitySaliencyMapModel, FixationMap, LogDensitySaliencyMapModel

    stimuli = pysaliency.Stimuli([image.pixels() for image in dataset])
    n = np.repeat(np.arange(len(dataset)), [len(image.fixations) for image in dataset])
    x, y = (np.concatenate([getattr(image.fixations, axis) for image in dataset]) + 0.5 for axis in "xy")
    fixations = pysaliency.Fixations.create_without_history(x, y, n)
    by_id = dict(zip(stimuli.stimulus_ids, values))

    class Given(pysaliency.Model if is_density else pysaliency.SaliencyMapModel):
        def _saliency_map(self, stimulus):
            return by_id[pysaliency.datasets.get_image_hash(stimulus)]

        _log_density = _saliency_map

    given = Given()
    ranking = LogDensitySaliencyMapModel(given) if is_density else given
    maps = DensitySaliencyMapModel(given) if is_density else given
    densities = given if is_density else SaliencyMapNormalizingModel(given, minimum_value=1e-20)
    gold = FixationMap(stimuli, fixations, kernel_size=sigma)
    gains = []
    for index, stimulus in enumerate(stimuli):
        others = (n != index).sum()
        eps = 0.01 * others / (0.99 + 0.01 * others)  # its weight is of counts, ours of their density
        center = CrossvalidatedBaselineModel(stimuli, fixations, 0.07, eps=eps).log_density(stimulus)
        own = dataset[index].fixations
        gains.append(np.mean((densities.log_density(stimulus) - center)[own.y, own.x]) / np.log(2))
    nss = maps.NSSs(stimuli, fixations)
    found = {
        "gain_over_center_bias": gains,
        "auc": ranking.AUC_per_image(stimuli, fixations, nonfixations="uniform"),
        "shuffled_auc": ranking.AUC_per_image(stimuli, fixations, nonfixations="shuffled"),
        "nss": [nss[n == index].mean() for index in range(len(dataset))],
        "cc": maps.CCs(stimuli, gold),
        "kld": maps.image_based_kl_divergences(
            stimuli, gold, minimum_value=0, log_regularization=EPS, quotient_regularization=EPS
        ),
        "sim": maps.SIMs(stimuli, gold),
    }
    return [{name: found[name][index] for name in NAMES} for index in range(len(dataset))]


def on_osie():
    return read_cat2000(REAL).subset(range(0, 350, 70))


@pytest.mark.parametrize("kind", ["maps", "densities", "densities that are 0 in places"])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(synthetic, id="synthetic"),
        pytest.param(on_osie, id="OSIE", marks=pytest.mark.skipif(not REAL.is_dir(), reason=f"needs {REAL}")),
    ],
)
def test_the_seven_metrics_are_pysaliencys(pysaliency, make, kind):
    dataset, is_density = make(), kind != "maps"
    sigma = 24.0 if make is on_osie else SIGMA
    values = [tied_map(index, image.shape) for index, image in enumerate(dataset)]
    values = [density_of(one) for one in values] if is_density else values
    if kind == "densities that are 0 in places":
        values = [without(one, slice(index, None, 7)) for index, one in enumerate(values)]
    expected = pysaliencys(pysaliency, dataset, values, is_density, sigma)
    for index, one in enumerate(values):
        assert ours(dataset, index, Prediction(one, is_density), sigma) == pytest.approx(expected[index], abs=1e-6)


@pytest.fixture
def folder(tmp_path):
    return write_given_maps(tmp_path)


def given(folder):
    return ["--maps", "maps", str(folder / "maps"), "--densities", "densities", str(folder / "densities.h5")]


def test_maps_and_densities_are_scored_as_they_are_on_all_images(folder):
    found, lines = evaluated(folder, *given(folder), "--protocol", "tuebingen", "--as-is")
    rows = {(row["model"], row["map"]): row for row in found["rows"]}
    assert list(rows)[-2:] == [("maps", "as given"), ("densities", "log density")] and len(rows) == 6
    assert next(iter(rows)) == ("centre baseline", "fitted to the other images")
    assert found["scored_images"] == 8 and found["protocol"] == "tuebingen" and found["scored"] == "fixated pixels"
    assert list(found["metrics"]) == list(NAMES) and rows["maps", "as given"]["chains"] == []
    dataset = read_cat2000(folder / "set")
    bias = CenterBias.fit([image.fixations for image in dataset])
    truth = Reference(dataset, 3, 5.0, center_bias=bias)
    values = tied_map(3, dataset[3].shape)
    both = [values, Prediction(density_of(values).astype(np.float32), is_log_density=True)]
    for name, expected in zip(("maps,as given", "densities,log density"), score_maps(both, truth, NAMES)):
        (line,) = (line for line in lines if line.startswith(f"{name},Action,Action/010,"))
        assert np.array(line.split(",")[4:], float) == pytest.approx(expected, abs=1e-12)
    assert (folder / "out/sheet_densities.png").exists()
    assert abs(rows["centre baseline", "fitted to the other images"]["overall"][NAMES[0]]["mean"]) < 1e-12


def test_maps_are_tuned_for_the_protocols_area_beside_densities_that_are_not(folder):
    grid = ["--sigmas", "0", "2", "--multipliers", "0", "1"]
    found, _ = evaluated(folder, *given(folder), "--protocol", "tuebingen", "--no-sheet", *grid)
    own = [(row["model"], row["map"]) for row in found["rows"]][4:]
    assert own == [("maps", "as given"), ("maps", "blurred"), ("maps", "with centre"), ("densities", "log density")]
    assert found["tuned_for"] == "auc" and found["scored_images"] == 4
    evaluated(
        folder, *given(folder), "--protocol", "tuebingen", "--no-sheet", "--tune-for", "gain_over_center_bias", *grid
    )


def test_what_is_no_log_density_is_named(folder, capsys):
    with h5py.File(folder / "densities.h5", "r+") as file:
        file["Action/001.jpg"][...] = 0
    with pytest.raises(SystemExit):
        evaluated(folder, "--densities", "theirs", str(folder / "densities.h5"), "--as-is")
    assert "Action/001: a log density must sum to 1 after exp; the sum is 2304" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluated(folder, "--center-only", "--tune-for", "auc")
    assert "--tune-for must be a metric of --protocol mit, auc_judd, " in capsys.readouterr().err


def test_maps_of_another_aspect_are_counted(folder, caplog):
    np.save(folder / "maps/Action/001.npy", np.random.default_rng(0).random((40, 40)))
    with caplog.at_level("WARNING"):
        evaluated(folder, "--maps", "theirs", str(folder / "maps"), "--as-is", "--no-sheet")
    assert (
        "theirs: 1 maps have another aspect than their images and are stretched, the first: Action/001" in caplog.text
    )
