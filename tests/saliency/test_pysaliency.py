"""Agreement with pysaliency, and the bridge to it. Skipped where pysaliency is not installed."""

import sys
from itertools import pairwise

import numpy as np
import pytest
from cat2000_folder import write_cat2000_folder

from sact_det.base.errors import InputError
from saliency.cat2000 import read_cat2000
from saliency.center import CenterBaseline
from saliency.fixations import Fixations
from saliency.metrics import auc_judd, cc, kld, nss, shuffled_auc, sim
from saliency.pysaliency_bridge import as_saliency_map_model, from_pysaliency, to_pysaliency
from saliency.scores import Reference

SHAPE = (270, 480)


def stimuli_and_fixations(pysaliency, number=3, levels=None):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8) for _ in range(number)]
    n = np.repeat(np.arange(number), 80)
    x, y = rng.uniform(0, SHAPE[1], len(n)), rng.uniform(0, SHAPE[0], len(n))
    x[:5], y[:5] = 7.5, 9.5  # several on one pixel
    return pysaliency.Stimuli(images), pysaliency.Fixations.create_without_history(x, y, n)


def map_of(image):
    """Smooth and depending on the image, with ties."""
    return np.round(CenterBaseline().map(SHAPE) + image[:, :, 0] / 512, 2)


def test_aucs_and_nss_are_pysaliencys(pysaliency):
    stimuli, fixations = stimuli_and_fixations(pysaliency)
    model = as_saliency_map_model(map_of)
    dataset = from_pysaliency(stimuli, fixations)
    maps = [map_of(image.pixels()) for image in dataset]
    found = {
        "judd": [auc_judd(values, image.fixations) for values, image in zip(maps, dataset)],
        "shuffled": [
            shuffled_auc(values, image.fixations, Reference(dataset, index).other_fixations)
            for index, (values, image) in enumerate(zip(maps, dataset))
        ],
        "nss": [nss(values, image.fixations) for values, image in zip(maps, dataset)],
    }
    expected = {
        "judd": model.AUC_per_image(stimuli, fixations, nonfixations="unfixated", thresholds="fixations"),
        "shuffled": model.AUC_per_image(stimuli, fixations, nonfixations="shuffled"),
        "nss": model.NSSs(stimuli, fixations).reshape(3, -1).mean(axis=1),
    }
    for name, values in found.items():
        assert values == pytest.approx(list(expected[name]), abs=1e-9), name
    assert np.mean(found["judd"]) == pytest.approx(model.AUC_Judd(stimuli, fixations, jitter=False), abs=1e-9)


def test_cc_sim_and_kl_are_pysaliencys(pysaliency):
    from pysaliency.metrics import CC, SIM, MIT_KLDiv

    rng = np.random.default_rng(1)
    for density in (Fixations.from_points(rng.integers(0, 270, (50, 2)), SHAPE).density(10), rng.random(SHAPE)):
        for values in (rng.random(SHAPE), rng.normal(size=SHAPE), np.zeros(SHAPE)):
            assert cc(values, density) == pytest.approx(CC(values, density), abs=1e-9)
            assert sim(values, density) == pytest.approx(SIM(values, density), abs=1e-9)
            assert kld(values, density) == pytest.approx(MIT_KLDiv(values, density), abs=1e-9)


def test_a_data_set_goes_there_and_back(pysaliency, tmp_path):
    dataset = read_cat2000(write_cat2000_folder(tmp_path))
    stimuli, fixations = to_pysaliency(dataset)
    back = from_pysaliency(stimuli, fixations)
    assert [image.category for image in back] == [image.category for image in dataset]
    for one, two in zip(dataset, back):
        assert (one.fixations.pixels == two.fixations.pixels).all() and one.source == two.source
        assert (one.pixels() == two.pixels()).all()
    arrays, fixations = to_pysaliency(from_pysaliency(*stimuli_and_fixations(pysaliency)))
    assert type(arrays).__name__ == "Stimuli" and len(fixations.x) == 240


def test_stimuli_without_fixations_are_listed(pysaliency):
    stimuli, fixations = stimuli_and_fixations(pysaliency)
    dataset = from_pysaliency(stimuli, fixations[fixations.n != 1])
    assert [image.name for image in dataset] == ["0", "2"] and dataset.skipped == ["pysaliency: 1: no fixations"]
    assert all(first.name < second.name for first, second in pairwise(dataset))


def test_without_pysaliency_the_model_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pysaliency", None)
    with pytest.raises(InputError, match=r"this needs pysaliency \(pip install pysaliency\)"):
        as_saliency_map_model(map_of)
