"""A log density may hold -inf, a probability of 0; where somebody looked nonetheless, one line says so."""

import h5py
import numpy as np
import pytest
from given_maps import density_of, evaluated, synthetic, tied_map, without, write_given_maps

from saliency.cat2000 import read_cat2000
from saliency.center_bias import CenterBias
from saliency.page import saliency_section
from saliency.prediction import Prediction
from saliency.scores import PROTOCOLS, TUEBINGEN_METRICS, Reference, score_maps

NAMES = tuple(TUEBINGEN_METRICS)
SIGMA = 5.0


@pytest.fixture
def folder(tmp_path):
    return write_given_maps(tmp_path)


def test_a_probability_of_0_is_the_lowest_rank_and_costs_everything_where_somebody_looked():
    dataset = synthetic()
    image, bias = dataset[0], CenterBias.fit([image.fixations for image in dataset])
    elsewhere = np.setdiff1d(np.arange(image.shape[0] * image.shape[1]), image.fixations.pixels)[::2]
    for pixels, is_possible in ((elsewhere, True), (image.fixations.pixels[:1], False)):
        values = without(density_of(tied_map(0, image.shape)), pixels)
        lowest = np.where(np.isneginf(values), -1e3, values)
        truth = Reference(dataset, 0, SIGMA, center_bias=bias)
        (found,) = score_maps([Prediction(values, is_log_density=True)], truth, NAMES)
        gain = np.mean(values[image.fixations.y, image.fixations.x] - truth.center_log_likelihoods) / np.log(2)
        assert found[0] == pytest.approx(gain) and np.isfinite(gain) == is_possible
        areas = score_maps([lowest], truth, NAMES[1:3])[0]
        assert found[1:3] == pytest.approx(areas, abs=1e-12) and np.isfinite(found[1:]).all()


@pytest.mark.parametrize("kind", ["npy", "h5"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_densities_may_be_0_and_what_is_impossible_under_them_is_said_in_one_line(folder, kind, protocol):
    dataset = read_cat2000(folder / "set")
    path = folder / ("densities.h5" if kind == "h5" else "densities")
    for number, image in enumerate(dataset):
        elsewhere = np.flatnonzero(image.fixations.counts() == 0)
        pixels = image.fixations.pixels[:1] if number in (2, 3) else elsewhere[:9]
        values = without(density_of(tied_map(number, image.shape)), pixels).astype(np.float32)
        if kind == "h5":
            with h5py.File(path, "r+") as file:
                file[f"{image.name}.jpg"][...] = values
        else:
            (path / image.category).mkdir(parents=True, exist_ok=True)
            np.save(path / f"{image.name}.npy", values)
    options = ["--protocol", protocol, "--as-is", "--tune-for", PROTOCOLS[protocol].metrics[-1 if kind == "h5" else 0]]
    found, _ = evaluated(folder, "--densities", "theirs", str(path), *options)
    row, table = found["rows"][-1], (folder / "out/table.md").read_text()
    gain = row["overall"].pop("gain_over_center_bias", None)
    assert all(isinstance(value, float) for one in row["overall"].values() for value in (one["mean"], one["low"]))
    if protocol == "mit":
        assert row["notices"] == []
        return
    assert gain == {"mean": "-inf", "low": "-inf", "high": "-inf", "images": 8}
    assert row["categories"]["Social"]["gain_over_center_bias"]["low"] > -10
    says = "p = 0 where somebody looked, in 2 of 8 images, the first: Action/004; IG is -inf"
    assert row["notices"] == [says] and f"- theirs, log density: {says}" in table
    page = saliency_section(folder / "out")
    assert (page.parts[0].rows[-1][0], "-inf" in " ".join(page.parts[0].rows[-1])) == ("theirs, log density", True)
    bars = next(part for part in page.parts if part.kind == "bars" and part.title == "IG by category")
    assert bars.series["theirs, log density"][0] is None and bars.series["theirs, log density"][1] > -10
    for gallery in (folder / "out").glob("gallery_*.json"):
        assert "Infinity" not in gallery.read_text()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["npy", "h5"])
@pytest.mark.parametrize("option", ["--densities", "--maps"])
def test_other_values_that_are_not_finite_are_refused_by_name(folder, capsys, kind, option, bad):
    values = np.full((36, 64), -np.log(36 * 64))
    values[0, 0] = bad
    if kind == "npy":
        np.save(folder / "maps/Action/001.npy", values)
    else:
        with h5py.File(folder / "densities.h5", "r+") as file:
            file["Action/001.jpg"][...] = values
    with pytest.raises(SystemExit):
        evaluated(folder, option, "theirs", str(folder / ("maps" if kind == "npy" else "densities.h5")), "--as-is")
    said = capsys.readouterr().err
    assert "Action/001" in said and ("below +inf" if option == "--densities" else "finite") in said
