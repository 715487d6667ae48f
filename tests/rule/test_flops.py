import numpy as np
import pytest
import torch
from closed_form import extractor_flops
from fvcore.nn import FlopCountAnalysis
from scipy.ndimage import binary_dilation
from small_networks import images, randomize
from torch import Tensor, nn

from sact_det import build_classifier
from sact_det.network.norm import freeze_norms
from sact_det.rule.flops import active_positions, conv_flops, count, dilate
from sact_det.rule.ponder import PonderRecord

UNITS = (2, 3, 4, 2)
NEIGHBOURS = np.ones((3, 3))


def test_a_multiply_add_counts_as_two():
    assert conv_flops(nn.Conv2d(4, 8, 3)) == 2 * 3 * 3 * 4 * 8
    assert conv_flops(nn.Conv2d(4, 8, 1, bias=False)) == 2 * 4 * 8


def test_dilation_and_counts_agree_with_scipy():
    active = torch.rand(5, 9, 11, generator=torch.Generator().manual_seed(0)) < torch.arange(5)[:, None, None] / 8
    exists = torch.ones_like(active)
    exists[1:, 7:] = exists[3:, :, 6:] = False
    own = (active & exists).numpy()
    reach = np.stack([binary_dilation(mask, NEIGHBOURS) for mask in own])
    np.testing.assert_array_equal(dilate(active & exists).numpy(), reach)
    evaluated, dilated = active_positions(active, exists)
    assert evaluated.tolist() == own.sum((1, 2)).tolist() == count(active & exists).tolist()
    assert dilated.tolist() == (reach & exists.numpy()).sum((1, 2)).tolist()


def test_resnet_101_at_224_pixels_takes_the_published_number_of_flops():
    model = build_classifier(depth=101, halting="none").eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 224, 224)).ponder.flops.tolist() == [15_602_814_976]
    assert extractor_flops((3, 4, 23, 3), 64, 224, 224) + 2 * 2048 * 1001 == 15_602_814_976


@pytest.mark.parametrize(
    ("height", "width", "published"), [(224, 224, 1.3980e10), (600, 800, 1.3503e11), (600, 1000, 1.6978e11)]
)
def test_extractor_of_resnet_101_takes_the_published_number_of_flops(height: int, width: int, published: float):
    assert extractor_flops((3, 4, 23), 64, height, width) == pytest.approx(published, rel=5e-5)


def test_resnet_50_takes_0_466_of_resnet_101():
    """Table 1 of the paper, at its example of a resolution in detection, 1000 x 600."""
    ratio = extractor_flops((3, 4, 6), 64, 600, 1000) / extractor_flops((3, 4, 23), 64, 600, 1000)
    assert round(100 * ratio, 1) == 46.6


@pytest.mark.parametrize("base_channels", [4, 16, 24])  # at 16 the first shortcut is the identity
@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 50), (1, 1), (61, 95)])
def test_closed_form_equals_what_a_plain_network_records(base_channels: int, height: int, width: int):
    model = build_classifier(UNITS, halting="none", num_classes=5, base_channels=base_channels).eval()
    record = model(images(2, height, width)).ponder
    logits = 2 * 5 * base_channels * 32
    for last in range(1, 5):
        blocks = {f"block{i}": record.blocks[f"block{i}"] for i in range(1, last + 1)}
        flops = PonderRecord(blocks, record.dense_flops).flops - logits
        assert flops.tolist() == [extractor_flops(UNITS[:last], base_channels, height, width)] * 2


class LogitsOnly(nn.Module):
    """A classifier as fvcore can trace it."""

    def __init__(self, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x).logits


@pytest.mark.parametrize(("height", "width"), [(64, 64), (61, 95)])
@pytest.mark.filterwarnings("ignore")  # tracing warns about every shape that the network reads
def test_plain_networks_take_twice_the_multiply_adds_that_fvcore_counts(height: int, width: int):
    model = build_classifier(UNITS, halting="none", num_classes=5, base_channels=8).eval()
    image = images(1, height, width)
    analysis = FlopCountAnalysis(LogitsOnly(model), image).unsupported_ops_warnings(False)
    assert model(image).ponder.flops.item() == 2 * analysis.by_operator()["conv"]


def masked_flops(block: int, num_units: np.ndarray, in_size: int, channels_in: int, width: int, rule: str) -> int:
    """FLOPs of one image in one block of UNITS[block - 1] units, from N [h, w] alone."""
    L, out, dense = UNITS[block - 1], 4 * width, num_units.size
    multiply_adds = channels_in * width * in_size + (9 * width * width + width * out + channels_in * out) * dense
    for i in range(L):
        mask = num_units > i
        if i > 0:
            dilated = binary_dilation(mask, NEIGHBOURS).sum()
            multiply_adds += out * width * dilated + (9 * width * width + width * out) * mask.sum()
        if i < L - 1:
            multiply_adds += 9 * out * mask.sum() + out if rule == "sact" else out * mask.any()
    return 2 * int(multiply_adds)


@pytest.mark.parametrize("rule", ["sact", "act"])
@pytest.mark.parametrize("seed", range(3))
def test_adaptive_networks_count_active_positions_only(rule: str, seed: int):
    x = images(3, 61, 90, seed=seed)
    model = randomize(build_classifier(UNITS, halting=rule, num_classes=5, base_channels=8), x, seed)
    record = model(x).ponder
    sides = [(-(-61 // stride), -(-90 // stride)) for stride in (4, 4, 8, 16, 32)]
    assert record.dense_flops.tolist() == [2 * (7 * 7 * 3 * 64 * 31 * 45 + 256 * 5)] * 3
    for block, outcome in enumerate(record.blocks.values(), 1):
        channels_in, width = (64, 8) if block == 1 else (4 * 8 * 2 ** (block - 2), 8 * 2 ** (block - 1))
        expected = [
            masked_flops(
                block, np.broadcast_to(N, sides[block]), int(np.prod(sides[block - 1])), channels_in, width, rule
            )
            for N in outcome.num_units.numpy()
        ]
        assert outcome.flops.tolist() == expected
    assert len(set(record.flops.tolist())) > 1


@pytest.mark.parametrize("rule", ["sact", "act"])
def test_flops_of_an_image_depend_neither_on_its_batch_nor_on_stopping_early(rule: str):
    x = images(4, 64, 64)
    model = build_classifier(UNITS, halting=rule, num_classes=5, base_channels=8)
    randomize(model, x, halting_bias=4)
    together, alone = model(x).ponder, [model(image[None]).ponder for image in x]
    for name, block in together.blocks.items():  # where an image halts early, its own run of the block stops early
        assert block.flops.tolist() == [record.blocks[name].flops.item() for record in alone]
    assert together.blocks["block3"].num_units.flatten(1).amax(1).min() < 3
    freeze_norms(model)
    assert torch.equal(model.train()(x).ponder.flops, together.flops)  # in training, every unit runs
