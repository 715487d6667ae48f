import pytest
import torch
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.weights.matched_units import first_units, matched_units


def test_means_are_rounded_and_halves_go_up():
    assert matched_units([1.0, 2.49, 2.5, 3.5, 22.51]) == (1, 2, 3, 4, 23)


@pytest.mark.parametrize("mean", [0.99, float("nan")])
def test_a_mean_below_one_unit_is_refused(mean: float):
    with pytest.raises(ValueError, match="`mean_units` must be 1 or more"):
        matched_units([2.0, mean])


@pytest.mark.parametrize("family", ["imagenet", "cifar"])
def test_the_plain_network_computes_what_the_first_units_of_the_adaptive_one_do(family: str):
    x = images(2, 32, 32)
    full, units = (3, 2, 4), (2, 1, 4)
    adaptive = randomize(build_classifier(full, halting="sact", family=family, base_channels=4, num_classes=5), x)
    plain = build_classifier(units, halting="none", family=family, base_channels=4, num_classes=5).eval()
    plain.load_state_dict(first_units(adaptive.state_dict(), units))  # strict: neither missing nor unexpected
    with torch.no_grad():
        features = adaptive.stem(x)
        for name, count in zip(adaptive.block_names, units):
            for unit in adaptive.get_submodule(name).units[:count]:
                features = unit(features)
        expected = adaptive.logits(adaptive.spec.pool(features, adaptive.postnorm)).flatten(1)
        torch.testing.assert_close(plain(x).logits, expected, rtol=1e-5, atol=1e-5)


def test_the_names_of_a_detector_are_understood():
    names = ["backbone.block1.units.0.conv1.weight", "backbone.block1.units.1.conv1.weight",
             "backbone.block1.units.0.halting.local_conv.weight", "roi_heads.res5.block4.units.1.conv1.weight",
             "roi_heads.res5.block4.units.0.conv1.weight", "proposal_generator.x.weight"]  # fmt: skip
    blocks = {f"backbone.block{b}.units.0.conv1.weight": torch.zeros(1) for b in (2, 3)}
    kept = first_units({**dict.fromkeys(names, torch.zeros(1)), **blocks}, (1, 1, 1, 2))
    assert set(kept) == {names[0], names[3], names[4], names[5], *blocks}


def test_more_units_than_there_are_is_an_error():
    state_dict = build_classifier((1, 2), base_channels=4).state_dict()
    with pytest.raises(ValueError, match="`units` asks for 3 units of block 2; there are 2"):
        first_units(state_dict, (1, 3))
