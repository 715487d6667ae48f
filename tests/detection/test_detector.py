"""The detector around the extractor: losses, gradients, padding, precision, freezing."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from feature_extraction import extract

import sact_det.detection  # noqa: F401
from sact_det.network.norm import NORMS, FrozenBatchNorm2d
from sact_det.network.resnet_v2 import Stem
from sact_det.rule import ledger
from sact_det.tasks import load_config

CONFIGS = Path(__file__).parents[2] / "configs"


def make_model(*overrides, seed=0):
    torch.manual_seed(seed)
    model = build_model(load_config(str(CONFIGS / "tests/tiny.yaml"), overrides))
    with torch.no_grad():  # so that positions halt at different units
        for name, parameter in model.named_parameters():
            if name.endswith("local_conv.bias"):
                parameter.fill_(-0.5)
    return model


def example(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.tensor([[10.0, 10, 60, 60], [20, 30, 80, 90]]))
    instances.gt_classes = torch.tensor([0, 2])
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": image, "instances": instances, "image_id": seed, "height": height, "width": width}


def losses_of(model, batch):
    with EventStorage() as storage:
        return model.train()(batch), storage


def test_loss_ponder_is_tau_times_the_summed_mean_cost_of_blocks_1_to_3():
    model = make_model("MODEL.SACT.TAU", "0.3").train()
    batch = [example(97, 131), example(120, 100, seed=1)]
    images = model.preprocess_image(batch)
    _, record = extract(model.backbone, images.tensor, images.image_sizes)
    expected = 0.0
    for block in record.blocks.values():
        per_image = [
            cost[:h, :w].mean()
            for cost, (h, w) in zip(block.ponder_cost, block.sizes or [block.ponder_cost.shape[1:]] * 2)
        ]
        expected += sum(per_image) / len(per_image)
    # A fresh model: the moving statistics of the halting norms were updated by the pass above.
    losses, _ = losses_of(make_model("MODEL.SACT.TAU", "0.3"), batch)
    torch.testing.assert_close(losses["loss_ponder"], 0.3 * expected)


@pytest.mark.parametrize("max_pool", ["False", "True"])
def test_a_step_has_the_same_losses_and_gradients_under_every_execution(max_pool):
    """Kernels, RoIAlign included, against PyTorch's dense computation; images of different size."""
    batch, found = [example(97, 131), example(120, 100, seed=1)], []
    for execution in ("dense", "auto"):
        keys = ("EXECUTION", execution, "BOX_HEAD_MAX_POOL", max_pool, "NORM", "FrozenBN", "TAU_BOX_HEAD", "0.1")
        model = make_model(*(key if index % 2 else f"MODEL.SACT.{key}" for index, key in enumerate(keys)))
        torch.manual_seed(1)  # which regions are drawn
        losses, _ = losses_of(model, batch)
        sum(losses.values()).backward()
        found.append((losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (losses, gradients), (own_losses, own_gradients) = found
    assert set(losses) == set(own_losses) and set(gradients) == set(own_gradients)
    for name, loss in losses.items():
        torch.testing.assert_close(own_losses[name], loss, rtol=1e-4, atol=1e-6, msg=name)
    for name, gradient in gradients.items():
        error = (own_gradients[name] - gradient).abs().max()
        assert error <= 1e-3 * gradient.abs().max() + 1e-8, name


def test_ponder_loss_reaches_the_extractor_but_never_block_4():
    model = make_model()
    losses, _ = losses_of(model, [example(96, 128)])
    losses["loss_ponder"].backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert not any(name.startswith(("roi_heads.", "proposal_generator.")) for name in reached)
    for block, branches in (("block2", 1), ("block3", 2)):
        for unit in range(branches):
            name = f"backbone.{block}.units.{unit}.halting.local_conv.weight"
            assert model.get_parameter(name).grad.abs().sum() > 0, name


def test_a_price_on_the_box_head_is_paid_by_every_region_and_reaches_block_4():
    prices = ("MODEL.SACT.TAU", "0.3", "MODEL.SACT.TAU_BOX_HEAD", "0.2")
    batch = [example(97, 131), example(120, 100, seed=1)]
    model, plain, found = make_model(*prices), make_model(*prices[:2]), []
    model.roi_heads.res5.block4.register_forward_hook(lambda block, inputs, outputs: found.append(outputs[1]))
    torch.manual_seed(1)
    losses, _ = losses_of(model, batch)
    (ponder,) = found
    expected = sum(cost.mean() for cost in ponder.ponder_cost) / len(ponder.ponder_cost)
    torch.testing.assert_close(losses["loss_ponder_box_head"], 0.2 * expected)
    losses["loss_ponder_box_head"].backward()
    assert model.get_parameter("roi_heads.res5.block4.units.0.halting.local_conv.weight").grad.abs().sum() > 0
    torch.manual_seed(1)
    without, _ = losses_of(plain, batch)
    assert "loss_ponder_box_head" not in without
    assert all(torch.equal(without[name], losses[name]) for name in without)


@pytest.mark.parametrize(
    ("extractor", "head", "losses", "shape"),
    [
        ("sact", "none", {"loss_ponder"}, (7, 7)),
        ("none", "act", {"loss_ponder_box_head"}, (1, 1)),
        ("none", "sact", {"loss_ponder_box_head"}, (7, 7)),
        ("act", "sact", {"loss_ponder", "loss_ponder_box_head"}, (7, 7)),
        ("sact", "act", {"loss_ponder", "loss_ponder_box_head"}, (1, 1)),
    ],
)
def test_block_4_may_halt_by_a_rule_of_its_own(extractor, head, losses, shape):
    rules = ("MODEL.SACT.HALTING", extractor, "MODEL.SACT.BOX_HEAD_HALTING", head)
    model, found = make_model(*rules, "MODEL.SACT.TAU_BOX_HEAD", "0.2"), []
    block4 = model.roi_heads.res5.block4
    block4.register_forward_hook(lambda block, inputs, outputs: found.append(outputs[1]))
    all_losses, storage = losses_of(model, [example(97, 131), example(120, 100, seed=1)])
    assert {name for name in all_losses if "ponder" in name} == losses
    assert block4.rule.name == head and model.backbone.block3.rule.name == extractor
    assert found[0].ponder_cost.shape == (64, *shape)
    sum(all_losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    logged = storage.latest()
    assert (logged["sact/block4_units"][0] < 2) == (head == "sact")  # the branch of "act" scores low at first
    assert logged["sact/block4_cost"][0] >= 2 and logged["sact/block3_cost"][0] >= 2
    with torch.no_grad():
        (output,) = model.eval()([example(97, 131)])
    assert output["flops"]["total"] == output["flops"]["backbone"] + output["box_head_flops"] > output["box_head_flops"]


@pytest.mark.parametrize(("head", "tile"), [("", 2), ("sact", 2), ("act", 1), ("none", 1)])
def test_positions_that_share_their_scores_do_so_in_the_box_head_where_it_has_positions(head, tile):
    model = make_model("MODEL.SACT.TILE", "2", "MODEL.SACT.BOX_HEAD_HALTING", head)
    assert model.roi_heads.res5.block4.tile == tile and model.backbone.block3.tile == 2


def test_block_4_halts_too_and_learns_from_the_detection_losses():
    model = make_model()
    losses, storage = losses_of(model, [example(96, 128)])
    sum(loss for name, loss in losses.items() if name != "loss_ponder").backward()
    assert model.get_parameter("roi_heads.res5.block4.units.0.halting.local_conv.weight").grad.abs().sum() > 0
    assert 1 <= storage.latest()["sact/block4_units"][0] <= 2


def test_every_trainable_parameter_gets_a_gradient_as_distributed_training_requires():
    model = make_model()
    losses, _ = losses_of(model, [example(96, 128)])
    sum(losses.values()).backward()
    assert [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ] == []


def test_a_plain_detector_pays_no_ponder_cost():
    losses, _ = losses_of(make_model("MODEL.SACT.HALTING", "none"), [example(96, 128)])
    assert "loss_ponder" not in losses


@pytest.mark.parametrize("halting", ["none", "act", "sact"])
def test_an_image_is_the_same_alone_or_beside_a_larger_one(halting):
    model = make_model("MODEL.SACT.HALTING", halting).eval()
    batch = [example(97, 131), example(160, 190, seed=1), example(120, 100, seed=2)]
    with torch.no_grad():
        images = model.preprocess_image(batch)
        features, together = extract(model.backbone, images.tensor, images.image_sizes)
        for index, item in enumerate(batch):
            one = model.preprocess_image([item])
            own, alone = extract(model.backbone, one.tensor, one.image_sizes)
            record, size = together.image(index), one.image_sizes[0]
            assert torch.equal(record.flops, alone.flops)
            torch.testing.assert_close(record.map(size), alone.map(size))
            for name in record.blocks:
                assert torch.equal(record.blocks[name].num_units, alone.blocks[name].num_units)
            for name, feature in own.items():
                height, width = feature.shape[2:]
                atol = 1e-5 * float(feature.abs().max())
                torch.testing.assert_close(
                    features[name][index : index + 1, :, :height, :width], feature, atol=atol, rtol=1e-5
                )
                assert not features[name][index, :, height:].any() and not features[name][index, :, :, width:].any()


def test_inference_reports_the_computation_of_each_image():
    model = make_model().eval()
    batch = [example(97, 131), example(160, 190, seed=1)]
    with torch.no_grad():
        together = model(batch)
        for item, output in zip(batch, together):
            alone = model([item])[0]
            assert output["ponder"].flops.tolist() == alone["ponder"].flops.tolist()
            assert output["box_head_flops"] > 0
            assert list(output["ponder"].blocks) == ["block1", "block2", "block3"]
            assert len(output["ponder"].flops) == 1


def test_halting_arithmetic_stays_in_float32_under_autocast():
    model = make_model().train()
    with torch.autocast("cpu", torch.bfloat16):
        images = model.preprocess_image([example(96, 128)])
        features, record = extract(model.backbone, images.tensor, images.image_sizes)
        losses, _ = losses_of(model, [example(96, 128)])
    assert features["res4"].dtype == torch.bfloat16
    for block in record.blocks.values():
        assert block.ponder_cost.dtype == block.halting_distribution.dtype == torch.float32
        torch.testing.assert_close(block.halting_distribution.sum(1), torch.ones_like(block.ponder_cost))
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 4])
def test_freeze_at_fixes_weights_and_norms_but_leaves_halting_branches_learning(freeze_at):
    backbone = make_model("MODEL.BACKBONE.FREEZE_AT", str(freeze_at)).backbone
    parts = [backbone.stem, backbone.block1, backbone.block2, backbone.block3]
    for index, part in enumerate(parts):
        frozen = index < freeze_at
        body = [p for name, p in part.named_parameters() if ".halting." not in name]
        halting = [p for name, p in part.named_parameters() if ".halting." in name]
        assert all(p.requires_grad is not frozen for p in body)
        assert all(p.requires_grad for p in halting)
        if not isinstance(part, Stem):
            assert isinstance(part.units[0].preact, FrozenBatchNorm2d) is frozen


@pytest.mark.parametrize("norm", ["", "BN"])
@pytest.mark.parametrize("halting_norm", ["", "MovingBN"])
def test_the_box_head_has_norms_of_its_own_where_they_are_given(norm, halting_norm):
    model = make_model(
        *("MODEL.SACT.UNITS", "(2, 2, 2, 2)"),
        *("MODEL.SACT.NORM", "FrozenBN", "MODEL.SACT.BOX_HEAD_NORM", norm),
        *("MODEL.SACT.HALTING_NORM", "FrozenBN", "MODEL.SACT.BOX_HEAD_HALTING_NORM", halting_norm),
    )
    head, first = model.roi_heads.res5, model.roi_heads.res5.block4.units[0]
    assert {type(head.postnorm), type(first.preact)} == {NORMS[norm or "FrozenBN"]}
    assert {type(first.halting.local_norm), type(first.halting.global_norm)} == {NORMS[halting_norm or "FrozenBN"]}
    for unit in (model.backbone.block3.units[0], model.backbone.block1.units[0]):
        assert {type(unit.preact), type(unit.halting.local_norm)} == {FrozenBatchNorm2d}


def test_no_proposals_is_no_error():
    model = make_model().eval()
    features = {"res4": torch.zeros(1, 128, 6, 8)}
    empty = Instances((96, 128), proposal_boxes=Boxes(torch.zeros(0, 4)), objectness_logits=torch.zeros(0))
    with torch.no_grad(), ledger.open([(96, 128)]) as spent:
        results, _ = model.roi_heads(None, features, [empty], None)
    assert len(results[0]) == 0 and spent["box_head"][0].flops.shape == (0,)
    assert spent.flops("box_head").tolist() == [0]


def test_meta_architecture_refuses_a_foreign_backbone():
    foreign = ["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RPN.IN_FEATURES", "['res4']"]
    with pytest.raises(ValueError, match=r"build_sact_resnet_backbone"):
        build_model(load_config(str(CONFIGS / "tests/tiny.yaml"), foreign))


def test_training_logs_scalars_per_block_and_a_ponder_map():
    losses, storage = losses_of(make_model("VIS_PERIOD", "1"), [example(96, 128)])
    sum(losses.values()).backward()  # no scalar is read before
    scalars = storage.latest()
    for block in ("block1", "block2", "block3", "block4"):
        assert 1 <= scalars[f"sact/{block}_units"][0] <= 3 and scalars[f"sact/{block}_cost"][0] >= 2
    assert 0 < scalars["sact/flops_percent"][0] <= 101  # halting branches come on top of the plain network
    names = [name for name, *_ in storage._vis_data]
    assert any("ponder map" in name for name in names) and len(names) == 2
