"""What counts as 100%, against the closed form, a plain network's own account, and its convolutions as they run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from closed_form import extractor_flops
from torch import Tensor, nn

from sact_det import build_classifier
from sact_det.engine.reference import Reference
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.rule.flops import conv_flops
from sact_det.tasks import load_config

TINY = Path(__file__).parents[2] / "configs/tests/tiny.yaml"
SIZES = [(48, 48), (33, 57), (32, 32), (1, 1), (600, 1000)]


@pytest.mark.parametrize("size", SIZES[:4])
@pytest.mark.parametrize("family", ["imagenet", "cifar"])
def test_100_percent_is_what_a_plain_classifier_reports(family: str, size: tuple[int, int]):
    sact = build_classifier((1, 2, 3), halting="sact", num_classes=7, base_channels=4, tile=2, family=family)
    units = (3, 1, 2)
    plain = build_classifier(units, halting="none", num_classes=7, base_channels=4, family=family).eval()
    reported = plain(torch.zeros(1, 3, *size)).ponder.flops.item()
    assert Reference.of(sact.spec, units, 7).flops(size) == reported


def test_100_percent_of_the_imagenet_family_is_the_closed_form():
    reference = Reference.of(ResNetV2Spec(units=(1, 1, 1, 1), halting="act"), (3, 4, 23, 3), 1001)
    logits = build_classifier((1, 1, 1, 1), base_channels=64, num_classes=1001).logits
    expected = extractor_flops((3, 4, 23, 3), 64, 224, 224) + conv_flops(logits)
    assert reference.flops((224, 224)) == expected == 15_602_814_976


@pytest.mark.parametrize("units", [(3, 4, 6), (3, 4, 23), (1, 2, 3, 2)])
@pytest.mark.parametrize("size", SIZES)
def test_an_extractor_s_is_the_closed_form_at_any_size(units: tuple[int, ...], size: tuple[int, int]):
    for pool in ("same", "symmetric"):
        reference = Reference.of(ResNetV2Spec(base_channels=16, stem_pool=pool, tile=3), units)
        assert reference.flops(size) == extractor_flops(units, 16, *size)


@pytest.mark.parametrize("size", SIZES[:4])
@pytest.mark.parametrize("family", ["imagenet", "cifar"])
def test_it_is_the_sum_over_the_convolutions_that_run_at_that_size(family: str, size: tuple[int, int]):
    network = build_classifier((2, 1, 2), halting="none", num_classes=5, base_channels=4, family=family).eval()
    total = 0

    def count(conv: nn.Conv2d, inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += conv_flops(conv) * output.shape[2] * output.shape[3]

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, *size))
    assert Reference(network.spec, 5).flops(size) == total


def test_a_config_describes_the_reference_of_its_own_width():
    cfg = load_config(str(TINY), ["MODEL.SACT.REFERENCE_UNITS", "(2, 1, 3)"])
    assert Reference.from_config(cfg).flops((97, 131)) == extractor_flops((2, 1, 3), 8, 97, 131)
    assert Reference.from_config(cfg) == Reference.from_config(cfg.clone())


def test_the_rule_of_the_network_at_hand_does_not_matter():
    spec = ResNetV2Spec(units=(1, 2, 3, 1), base_channels=8)
    others = [replace(spec, halting=halting, norm="MovingBN") for halting in ("none", "act", "sact")]
    assert len({Reference.of(other, (1, 2, 3)).flops((64, 80)) for other in others}) == 1
