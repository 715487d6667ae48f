import pytest
import torch
from small_networks import images, randomize
from torch import Tensor, nn

from sact_det.benchmark.gpu.waits import HostReads
from sact_det.network.resnet_v2 import STEM_POOLS, ResNetV2Spec, Stem
from sact_det.rule.padding import Geometry, Sizes, own_sizes, positions, strided_sizes, valid_mask
from sact_det.rule.ponder import PonderRecord

SIZES = [(61, 90), (64, 33), (40, 96), (57, 41)]  # every combination of even and odd
CPU = torch.device("cpu")
RULES = [("none", 1), ("act", 1), ("sact", 1), ("sact", 3)]


class Extractor(nn.Module):
    """Stem and blocks 1-3 on images of different size."""

    def __init__(self, halting: str, tile: int = 1, dilation: int = 1):
        super().__init__()
        spec = ResNetV2Spec((2, 3, 3), 8, halting, tile=tile, dilation=(1, dilation, dilation))
        self.stem = Stem()
        self.blocks = nn.ModuleList(spec.build_block(i) for i in (1, 2, 3))

    def forward(self, x: Tensor, sizes: Sizes | None = None) -> tuple[list[Tensor], PonderRecord]:
        features = [self.stem(x, sizes)]
        dense = self.stem.flops(sizes, (x.shape[2], x.shape[3]), len(x), x.device)
        record = PonderRecord({}, dense)
        for i, block in enumerate(self.blocks, 1):
            y, record.blocks[f"block{i}"] = block(features[-1], strided_sizes(sizes, 2 ** (i if i > 1 else 2)))
            features.append(y)
        return features, record


def batch(sizes: Sizes) -> Tensor:
    """Noise in each image's own part, zero at padding."""
    return images(len(sizes), 64, 96) * valid_mask(sizes, (64, 96), CPU)


def test_valid_mask_marks_the_top_left_part_of_each_image():
    mask = valid_mask([(1, 2), (2, 3)], (2, 3), CPU)
    assert mask.tolist() == [[[[True, True, False], [False] * 3]], [[[True] * 3] * 2]]
    assert valid_mask(None, (2, 3), CPU) is None


def test_sizes_of_images_that_fill_the_map_are_none():
    assert own_sizes([(4, 5), (4, 5)], (4, 5)) is None
    assert own_sizes(None, (4, 5)) is None
    assert own_sizes([(4, 5), (3, 5)], (4, 5)) == [(4, 5), (3, 5)]


@pytest.mark.parametrize("size", [(5, 5), (4, 6), (0, 5)])
def test_sizes_must_fit_the_map(size: tuple[int, int]):
    with pytest.raises(ValueError, match=f"`sizes`: an image of {size[0]}x{size[1]} does not fit a map of 4x5"):
        own_sizes([(4, 5), size], (4, 5))


def test_what_is_made_of_the_sizes_is_made_once_for_all_blocks_and_read_by_nobody():
    geometry = Geometry.of([(7, 8), (1, 9)])
    with HostReads() as reads:
        behind = geometry.behind(2).behind(2)
        mask, counts = behind.mask((2, 3), CPU), behind.counts(CPU)
    assert not reads.counts
    assert Geometry.of(geometry) is geometry is geometry.behind(1) and geometry.behind(2).behind(2) is behind
    assert behind.counts(CPU) is counts
    assert behind.mask((2, 3), CPU) is mask and valid_mask(behind, (2, 3), CPU) is mask
    assert behind == [(2, 2), (1, 3)] and counts.tolist() == [4, 3] == mask.sum((1, 2, 3)).tolist()
    assert behind.tensor(CPU).tolist() == [[2, 2], [1, 3]]


def test_a_batch_of_no_images_has_a_geometry():
    assert Geometry([]).mask((2, 3), CPU).shape == (0, 1, 2, 3) and Geometry([]).behind(2).counts(CPU).tolist() == []


def test_sizes_behind_a_stride_are_rounded_up():
    assert strided_sizes([(7, 8), (1, 9)], 2) == [(4, 4), (1, 5)]
    assert strided_sizes(None, 2) is None


def test_positions_count_each_image_s_own():
    assert positions([(2, 3), (1, 1)], (4, 5), 2, CPU).tolist() == [6, 1]
    assert positions(None, (4, 5), 2, CPU).tolist() == [20, 20]


@pytest.mark.parametrize("pool", STEM_POOLS)
def test_the_stem_pools_an_image_alike_alone_and_in_a_batch_of_larger_images(pool: str):
    stem, x = Stem(pool=pool), batch(SIZES)
    for y, image, (height, width) in zip(stem(x, SIZES), x, SIZES):
        alone = stem(image[None, :, :height, :width])[0]
        torch.testing.assert_close(y[:, : alone.shape[1], : alone.shape[2]], alone)
        assert not y[:, alone.shape[1] :].any() and not y[:, :, alone.shape[2] :].any()


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("halting", "tile"), RULES)
def test_an_image_is_computed_alike_alone_and_in_a_batch_of_larger_images(halting: str, tile: int, dilation: int):
    model = randomize(Extractor(halting, tile, dilation), images(4, 64, 96))
    x = batch(SIZES)
    features, record = model(x, SIZES)
    for n, (height, width) in enumerate(SIZES):
        features_alone, record_alone = model(x[n : n + 1, :, :height, :width])
        for y, y_alone in zip(features, features_alone):
            rows, columns = y_alone.shape[2:]
            torch.testing.assert_close(y[n, :, :rows, :columns], y_alone[0], atol=1e-4, rtol=1e-4)
            assert not y[n, :, rows:].any()
            assert not y[n, :, :, columns:].any()
        own = record.image(n)
        assert own.flops.item() == record_alone.flops.item()
        for name, block in own.blocks.items():
            assert torch.equal(block.num_units, record_alone.blocks[name].num_units)
            assert torch.equal(block.flops, record_alone.blocks[name].flops)
        torch.testing.assert_close(own.map((height, width)), record_alone.map((height, width)), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(record.mean_cost()[n : n + 1], record_alone.mean_cost(), atol=1e-4, rtol=1e-4)
    if halting == "sact":
        assert all(block.num_units[block.num_units > 0].unique().numel() > 1 for block in record.blocks.values())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("halting", "tile"), RULES)
@pytest.mark.parametrize("index", [1, 2])
def test_neither_content_nor_amount_of_padding_matters(index: int, halting: str, tile: int, training: bool):
    """Not to the features, the halting, the gradients, or the statistics of the norms."""
    spec = ResNetV2Spec((3, 3), 8, halting, tile=tile)
    sizes = [(9, 12), (10, 7), (3, 4), (1, 1)]
    tight = images(4, 10, 12, spec.out_channels(index - 1))
    roomy = 1e3 * images(4, 14, 15, tight.shape[1], seed=1)
    roomy[:, :, :10, :12] = torch.where(valid_mask(sizes, (10, 12), CPU), tight, roomy[:, :, :10, :12])
    outcomes = []
    for x in (tight, roomy):
        block = randomize(spec.build_block(index), tight).train(training)
        x.requires_grad_()
        features, ponder = block(x, sizes)
        (features.square().sum() + ponder.mean_cost().sum()).backward()
        valid = valid_mask(sizes, (x.shape[2], x.shape[3]), CPU)
        assert not x.grad[~valid.expand_as(x)].any()
        features = [y[:, :h, :w] for y, (h, w) in zip(features, strided_sizes(sizes, index))]
        records = [ponder.image(n) for n in range(len(sizes))]
        costs, units = [record.ponder_cost for record in records], [record.num_units for record in records]
        outcomes.append((features, costs, units, ponder.flops, x.grad[:, :, :10, :12], block.state_dict()))
    for of_tight, of_roomy in zip(*outcomes):
        torch.testing.assert_close(of_tight, of_roomy, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("halting", ["none", "act", "sact"])
def test_sizes_that_fill_the_map_change_nothing(halting: str):
    x = images(2, 9, 7, 64)
    block = randomize(ResNetV2Spec((3,), 8, halting).build_block(1), x)
    (y, ponder), (y_, ponder_) = block(x), block(x, [(9, 7), (9, 7)])
    assert torch.equal(y, y_)
    assert torch.equal(ponder.ponder_cost, ponder_.ponder_cost)
    assert ponder_.sizes is None
