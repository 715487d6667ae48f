"""What is entered where it is spent: read once, by whoever asked, whatever else runs."""

import gc
import weakref
from threading import Barrier, Thread

import pytest
import torch
from small_networks import images
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sact_det.detection.backbone import SACTBackbone
from sact_det.detection.roi_heads import Block4Head
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.rule import ledger
from sact_det.rule.ponder import PonderRecord

SPEC = ResNetV2Spec(units=(2, 3, 2, 3), base_channels=4)
SIZES = [(64, 80), (40, 96)]


@pytest.fixture
def backbone() -> SACTBackbone:
    """Whose positions halt at different units."""
    torch.manual_seed(0)
    backbone = SACTBackbone(spec=SPEC)
    for name, parameter in backbone.named_parameters():
        if name.endswith("local_conv.weight"):
            nn.init.normal_(parameter, std=0.5)
    return backbone


@pytest.fixture
def batch() -> Tensor:
    """Two images of different size, zero at padding."""
    x = images(2, 64, 96)
    for image, (height, width) in zip(x, SIZES):
        image[:, height:], image[:, :, width:] = 0, 0
    return x


def test_outside_of_any_ledger_nothing_is_kept(backbone: SACTBackbone, batch: Tensor):
    kept = []
    backbone.block3.register_forward_hook(lambda module, inputs, outputs: kept.append(weakref.ref(outputs[1])))
    backbone(batch)
    gc.collect()
    assert kept[0]() is None
    with ledger.open() as spent:
        pass
    backbone(batch)
    assert not spent and list(spent) == []


@torch.no_grad()
def test_an_image_costs_what_it_costs_alone(backbone: SACTBackbone, batch: Tensor):
    backbone.eval()
    with ledger.open(SIZES) as spent:
        features = backbone(batch)
    (record,) = spent["backbone"]
    assert spent.flops("backbone").tolist() == record.flops.tolist()
    costs = []
    for index, (height, width) in enumerate(SIZES):
        with ledger.open([(height, width)]) as own:
            alone = backbone(batch[index : index + 1, :, :height, :width])
        assert own.flops("backbone").tolist() == record.flops[index : index + 1].tolist()
        costs.append(own.cost("backbone"))
        rows, columns = alone["res4"].shape[2:]
        atol = 1e-5 * float(alone["res4"].abs().max())
        together = features["res4"][index : index + 1, :, :rows, :columns]
        torch.testing.assert_close(together, alone["res4"], rtol=1e-5, atol=atol)
    torch.testing.assert_close(spent.cost("backbone"), sum(costs) / 2)
    assert costs[0] != costs[1]


def test_all_geometries_of_a_batch_come_of_one(backbone: SACTBackbone, batch: Tensor):
    with ledger.open(SIZES) as spent:
        backbone(batch)
    geometry = spent.sizes
    assert geometry.behind(4) is spent["backbone"][0].blocks["block1"].sizes
    assert geometry.behind(4).behind(2).behind(2) is spent["backbone"][0].blocks["block3"].sizes


@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (3, 3, 64, 96), (2, 3, 64, 95), (2, 3, 63, 96)])
def test_a_batch_of_other_images_needs_a_ledger_of_its_own(backbone: SACTBackbone, shape: tuple[int, ...]):
    with ledger.open(SIZES) as spent:
        with pytest.raises(ValueError, match=r"open for images of \[\(64, 80\), \(40, 96\)\]; a batch \[") as error:
            backbone(torch.zeros(shape))
        assert str(list(shape)) in str(error.value) and not spent
        with ledger.open() as inner:
            backbone(torch.zeros(shape))
    assert not spent and len(inner["backbone"]) == 1


def test_the_gradient_of_the_cost_is_that_of_the_means_written_out(backbone: SACTBackbone, batch: Tensor):
    with ledger.open(SIZES) as spent:
        backbone(batch)
    parameters = [p for name, p in backbone.named_parameters() if ".halting." in name]
    found = torch.autograd.grad(spent.cost("backbone"), parameters, retain_graph=True)
    expected = 0.0
    for name, block in spent["backbone"][0].blocks.items():
        stride = {"block1": 4, "block2": 8, "block3": 16}[name]
        for cost, (height, width) in zip(block.ponder_cost, SIZES):
            own = [cost[y, x] for y in range(-(-height // stride)) for x in range(-(-width // stride))]
            expected = expected + sum(own) / len(own) / 2
    for actual, wanted in zip(found, torch.autograd.grad(expected, parameters)):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-7)
    assert any(gradient.abs().sum() > 0 for gradient in found)


def test_several_calls_of_one_head_are_kept_in_order_and_summed():
    torch.manual_seed(0)
    head = Block4Head(SPEC).eval()
    x = torch.randn(5, SPEC.out_channels(3), 14, 14)
    with ledger.open([(64, 80), (40, 96), (9, 9)]) as spent:
        head(x, [2, 0, 3])
        head(x[:1], [0, 1, 0])
        head(x[:0], [0, 0, 0])
    first, second, none = spent["box_head"]
    assert [len(record.flops) for record in (first, second, none)] == [5, 1, 0]
    assert torch.equal(second.flops, first.flops[:1])
    assert spent.flops("box_head").tolist() == [
        int(first.flops[:2].sum()),
        int(second.flops.sum()),
        int(first.flops[2:].sum()),
    ]
    mean = first.mean_cost().mean() + second.mean_cost().mean()
    torch.testing.assert_close(spent.cost("box_head"), mean)


def test_regions_belong_to_the_images_of_the_ledger():
    head, x = Block4Head(SPEC).eval(), torch.zeros(3, SPEC.out_channels(3), 14, 14)
    with ledger.open(SIZES) as spent:
        with pytest.raises(ValueError, match=r"`regions`: 'box_head' ran on 3 regions; got \[1, 1\]"):
            head(x, [1, 1])
        for regions in ([1, 1, 1], None):
            with pytest.raises(ValueError, match="open for 2 images; 'box_head' ran on 3"):
                head(x, regions)
    assert not spent


def test_what_nobody_entered_has_no_cost():
    with ledger.open() as spent:
        pass
    with pytest.raises(ValueError, match="what 'backbone' spent; entered: "):
        spent.cost("backbone")


@pytest.mark.parametrize("closed", [True, False])
def test_recomputed_activations_are_counted_once_and_have_the_same_gradients(batch: Tensor, closed: bool):
    gradients = []
    for recomputes in (False, True):
        torch.manual_seed(0)
        backbone = SACTBackbone(spec=SPEC)
        calls = []
        backbone.block3.register_forward_hook(lambda module, inputs, outputs, calls=calls: calls.append(inputs[1]))
        with ledger.open(SIZES) as spent:
            features = checkpoint(backbone, batch, use_reentrant=False) if recomputes else backbone(batch)
            loss = features["res4_relu"].sum() + spent.cost("backbone")
            if not closed:
                loss.backward()
        if closed:
            loss.backward()
        assert len(spent["backbone"]) == 1 and len(calls) == 1 + recomputes
        assert all(sizes == [(8, 10), (5, 12)] for sizes in calls)
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    for direct, recomputed in zip(*gradients):
        assert torch.equal(direct, recomputed)


def test_a_reentrant_recomputation_sees_the_sizes_but_its_cost_is_refused(backbone: SACTBackbone, batch: Tensor):
    calls = []
    backbone.block3.register_forward_hook(lambda module, inputs, outputs: calls.append(inputs[1]))
    batch.requires_grad_()
    with ledger.open(SIZES) as spent:
        feature = checkpoint(lambda x: backbone(x)["res4"], batch, use_reentrant=True)
        with pytest.raises(RuntimeError, match=r"what 'backbone' spent has no gradient: .*use_reentrant"):
            spent.cost("backbone")
    feature.sum().backward()
    assert calls == [[(8, 10), (5, 12)]] * 2 and len(spent["backbone"]) == 1
    with torch.no_grad():
        assert not spent.cost("backbone").requires_grad


def test_a_batch_used_again_outside_fills_its_images(backbone: SACTBackbone, batch: Tensor):
    seen = []
    backbone.block1.register_forward_hook(lambda module, inputs, outputs: seen.append(inputs[1]))
    with ledger.open(SIZES):
        backbone(batch)
    backbone(batch)
    assert seen == [[(16, 20), (10, 24)], None]


def test_a_model_run_within_a_backward_pass_has_its_own_ledger(backbone: SACTBackbone, batch: Tensor):
    found = []

    def run(_: Tensor) -> None:
        with ledger.open(SIZES) as spent:
            backbone(batch)
        found.append(spent.flops("backbone").tolist())

    x = torch.ones(1, requires_grad=True)
    x.register_hook(run)
    with ledger.open() as outer:
        x.sum().backward()
    with ledger.open(SIZES) as spent:
        backbone(batch)
    assert not outer and len(found) == 1 and len(spent["backbone"]) == 1


@torch.no_grad()
def test_every_thread_has_its_own_ledger(backbone: SACTBackbone):
    backbone.eval()
    inputs = [torch.rand(count, 3, 32, 32) for count in (1, 2, 3)]
    together, found = Barrier(len(inputs)), {}

    def work(x: Tensor) -> None:
        with ledger.open() as spent:
            together.wait()
            backbone(x)
            together.wait()
        found[len(x)] = spent

    with ledger.open() as outer:
        threads = [Thread(target=work, args=(x,)) for x in inputs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not outer
    assert {count: [len(record.flops) for record in spent["backbone"]] for count, spent in found.items()} == {
        1: [1],
        2: [2],
        3: [3],
    }


def test_a_batch_is_not_kept_alive_by_its_sizes(backbone: SACTBackbone):
    batch = torch.rand(1, 3, 32, 32)
    storage = weakref.ref(batch.untyped_storage())
    with torch.no_grad(), ledger.open([(32, 30)]):
        backbone.eval()(batch)
    assert storage() is not None
    del batch
    gc.collect()
    assert storage() is None


def test_a_record_is_entered_under_its_part():
    record = PonderRecord({}, torch.tensor([5, 7]))
    ledger.enter("neck", record)
    with ledger.open() as spent:
        ledger.enter("neck", record)
    assert spent["neck"] == [record] and spent.flops("neck").tolist() == [5, 7] and len(spent) == 1
