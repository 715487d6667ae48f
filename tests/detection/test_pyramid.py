"""Detectors on a pyramid of SACT features: their configs, weights, trainings and evaluations."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_folder import write_coco_folder
from detectron2 import model_zoo
from detectron2.modeling import build_model
from detectron2.utils import comm
from filled_modules import filled
from short_trainings import final_weights, fresh_parts, train
from torch import nn

from sact_det import build_classifier
from sact_det.base.errors import InputError
from sact_det.detection.checkpoint import DetectorCheckpointer
from sact_det.detection.loader import build_test_loader
from sact_det.detection.predictor import Predictor
from sact_det.detection.pyramid import extractor_of
from sact_det.detection.trainer import DetectionTrainer
from sact_det.engine.config_checks import leaves
from sact_det.engine.launch import launch
from sact_det.tasks import load_config, task_of
from sact_det.weights.weight_file import save_weights

ROOT = Path(__file__).parents[2]
FPN, RETINANET, C4 = (str(ROOT / f"configs/tests/{name}.yaml") for name in ("tiny_fpn", "tiny_retinanet", "tiny"))
CASCADE = ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True")
KINDS = [(FPN, ()), (FPN, CASCADE), (RETINANET, ())]
IDS = ["FPN", "cascade", "RetinaNet"]
PUBLISHED = sorted(path.name for path in (ROOT / "configs/COCO").glob("*x.yaml"))

each_kind = pytest.mark.parametrize(("file", "kind"), KINDS, ids=IDS)


def classifier(halting="none"):
    return filled(build_classifier((2, 1, 3, 2), halting=halting, num_classes=5, base_channels=4))


def toy(root, *more):
    """Overrides for a folder of six images."""
    data = str([("toy", *write_coco_folder(root, num_images=6))])
    return ["DATASETS.COCO_FORMAT", data, "DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "()", *more]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_is_one_of_four_blocks_under_a_price(name):
    cfg = load_config(str(ROOT / "configs/COCO" / name))
    rule, depth = name.split("_R_")[0], int(name.split("_")[2])
    assert tuple(cfg.MODEL.SACT.UNITS) == ((3, 4, 6, 3) if depth == 50 else (3, 4, 23, 3))
    assert {"plain": "none", "sact": "sact"}[rule] == cfg.MODEL.SACT.HALTING and cfg.MODEL.SACT.TAU == 0.005
    assert (90_000 if "1x" in name else 270_000) == cfg.SOLVER.MAX_ITER
    assert task_of(cfg).trainer is DetectionTrainer
    assert f"output/coco_{name.removesuffix('.yaml')}" == cfg.OUTPUT_DIR


def test_the_published_recipes_are_all_there():
    assert len(PUBLISHED) == 2 * (3 + 4) * 2 * 2  # depths, kinds of boxes and of more than boxes, rules, schedules


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("Mask_FPN", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"),
        ("Mask_C4", "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"),
        ("Keypoint_FPN", "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"),
        ("Panoptic_FPN", "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"),
    ],
)
def test_heads_and_schedules_are_those_of_detectron2s_recipe(kind, theirs):
    ours, other = load_config(str(ROOT / f"configs/COCO/plain_R_50_{kind}_1x.yaml")), model_zoo.get_config(theirs)
    sections = ["MODEL.ROI_KEYPOINT_HEAD", "MODEL.SEM_SEG_HEAD", "MODEL.PANOPTIC_FPN", "DATASETS", "DATALOADER"]
    sections += ["MODEL.ROI_BOX_HEAD", "MODEL.ANCHOR_GENERATOR"]
    if ours.MODEL.MASK_ON:
        sections.append("MODEL.ROI_MASK_HEAD")
    # What may differ is what the configs' comments say.
    own = {
        *("MODEL.RPN.HEAD_NAME", "MODEL.ROI_HEADS.NAME", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"),
        *("SOLVER.WEIGHT_DECAY_BIAS", "SOLVER.REFERENCE_WORLD_SIZE", "SOLVER.CHECKPOINT_PERIOD"),
        *(("MODEL.RPN.IN_FEATURES",) if kind == "Mask_C4" else ()),
    }
    expected = dict(leaves(other))
    for key, value in leaves(ours):
        followed = key.startswith((*sections, "MODEL.RPN.", "MODEL.ROI_HEADS.", "SOLVER.", "INPUT.M"))
        if followed and key in expected and key not in own and not key.startswith("SOLVER.CLIP_GRADIENTS."):
            assert value == expected[key], key


@each_kind
def test_a_classifier_starts_every_block_and_every_norm_of_the_pyramid(tmp_path, caplog, file, kind):
    caplog.set_level(logging.INFO, "sact_det")
    source = classifier("sact").state_dict()
    save_weights(tmp_path / "w.pth", source, {"units": [2, 1, 3, 2], "base_channels": 4})
    model = filled(build_model(load_config(file, kind)), seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    DetectorCheckpointer(model).load(str(tmp_path / "w.pth"))
    extractor = extractor_of(model.backbone).state_dict()
    preacts = {"res2": "block2.units.0.preact", "res3": "block3.units.0.preact", "res4": "block4.units.0.preact"}
    norms = {name[:4] for name in extractor if name.startswith("res")}
    assert norms == {"res3", "res4", "res5"} | ({"res2"} if file == FPN else set())
    for name, value in extractor.items():
        level, _, rest = name.partition("_norm.")
        expected = source[f"{preacts.get(level, 'postnorm')}.{rest}" if level in norms else name]
        assert torch.equal(value, expected), name
    for name, value in model.state_dict().items():
        if not name.startswith("backbone.bottom_up."):
            assert torch.equal(value, before[name]), name
    assert all(not part.startswith("backbone.bottom_up.") for part in fresh_parts(caplog))


@each_kind
def test_a_c4_detector_starts_extractor_and_block_4(tmp_path, file, kind):
    own = ["MODEL.SACT.UNITS", "(2, 1, 3, 2)", "MODEL.SACT.BASE_CHANNELS", "4"]
    c4 = filled(build_model(load_config(C4, own)))
    torch.save({"model": c4.state_dict()}, tmp_path / "c4.pth")
    model = filled(build_model(load_config(file, kind)), seed=2)
    DetectorCheckpointer(model).load(str(tmp_path / "c4.pth"))
    extractor = extractor_of(model.backbone)
    for name, part in (("block3", c4.backbone.block3), ("block4", c4.roi_heads.res5.block4)):
        assert all(map(torch.equal, extractor.blocks[name].state_dict().values(), part.state_dict().values()))
    assert torch.equal(extractor.res5_norm.weight, c4.roi_heads.res5.postnorm.weight)
    assert torch.equal(extractor.res4_norm.weight, c4.roi_heads.res5.block4.units[0].preact.weight)


def test_a_pyramid_below_block_4_leaves_it_out(tmp_path):
    save_weights(tmp_path / "w.pth", classifier().state_dict(), {"units": [2, 1, 3, 2], "base_channels": 4})
    below = ["MODEL.FPN.IN_FEATURES", "['res2_relu', 'res3_relu', 'res4_relu']"]
    below += ["MODEL.RPN.IN_FEATURES", "['p2', 'p5']"]
    below += ["MODEL.ROI_HEADS.IN_FEATURES", "['p2', 'p3', 'p4']", "MODEL.SACT.REFERENCE_UNITS", "(2, 1, 3)"]
    model = build_model(load_config(FPN, [*below, "MODEL.ANCHOR_GENERATOR.SIZES", "[[8], [16]]"]))
    DetectorCheckpointer(model).load(str(tmp_path / "w.pth"))
    assert list(extractor_of(model.backbone).blocks) == ["block1", "block2", "block3"]


@each_kind
def test_it_trains_resumes_and_is_evaluated(tmp_path, file, kind):
    # A warm-up is a share of the training, whose end is moved here.
    options = [*kind, *toy(tmp_path), "SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "0"]
    for folder, resumes in (("whole", False), ("resumed", True)):
        cfg = load_config(file, [*options, "OUTPUT_DIR", str(tmp_path / folder)])
        if resumes:
            first = cfg.clone()
            first.defrost()
            first.SOLVER.MAX_ITER = 2
            train(DetectionTrainer, first)
        train(DetectionTrainer, cfg, resume=resumes)
    whole, resumed = (final_weights(tmp_path / folder) for folder in ("whole", "resumed"))
    assert whole.keys() == resumed.keys() and all(torch.equal(value, resumed[name]) for name, value in whole.items())
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.json").read_text().splitlines()]
    assert {"loss_ponder", "sact/block4_units", "sact/flops_percent"} <= set(lines[-1])
    # What the config became is read back as it is, number of classes included.
    saved = load_config(str(tmp_path / "whole/config.yaml")) if (tmp_path / "whole/config.yaml").exists() else cfg
    predictor = Predictor(with_weights(saved, tmp_path / "whole/model_final.pth"))
    found = predictor(np.zeros((80, 100, 3), np.uint8))
    assert list(found.ponder.blocks) == ["block1", "block2", "block3", "block4"]
    assert found.numbers["flops_percent"] > 0


def train_in_process(file, options):
    train(DetectionTrainer, load_config(file, options))
    comm.synchronize()


def test_retinanet_trains_and_is_evaluated_in_two_processes(tmp_path):
    options = [*toy(tmp_path), "DATASETS.TEST", "('toy',)", "SOLVER.MAX_ITER", "2", "MODEL.SACT.NORM", "FrozenBN"]
    options += ["OUTPUT_DIR", str(tmp_path / "out")]
    launch(train_in_process, 2, dist_url="auto", args=(RETINANET, options))
    results = json.loads((tmp_path / "out/inference/results.json").read_text())["toy"]
    assert results["ponder"]["images"] == 6 and results["bbox"]["AP"] >= 0
    assert "units_per_region" not in results["ponder"]  # the heads of pyramids have no blocks


def with_weights(cfg, path):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(path)
    return cfg


@each_kind
def test_the_whole_detector_s_flops_are_those_of_its_layers_as_they_run(tmp_path, file, kind):
    options = [*kind, *toy(tmp_path), "DATASETS.TEST", "('toy',)", "OUTPUT_DIR", str(tmp_path / "out")]
    cfg = load_config(file, [*options, "MODEL.SACT.EXECUTION", "dense", "MODEL.SACT.HALTING", "none"])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    counts = []

    def count(layer, inputs, output):
        counts[-1] += 2 * layer.weight.numel() * len(output) * math.prod(output.shape[2:])

    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    evaluator = DetectionTrainer.build_evaluator(cfg, "toy")
    evaluator.reset()
    sizes = []
    with torch.no_grad():
        for inputs in build_test_loader(cfg, "toy"):
            counts.append(0)
            sizes.append(tuple(inputs[0]["image"].shape[1:]))
            evaluator.process(inputs, model(inputs))
    results = evaluator.evaluate()
    rows = json.loads((tmp_path / "out/inference/toy/ponder.json").read_text())["images"]
    unpadded = [index for index, size in enumerate(sizes) if size[0] % 32 == 0 == size[1] % 32]
    assert unpadded and "AP" in results["bbox"]
    for index in unpadded:  # elsewhere the layers compute the batch's padding, too
        assert rows[index]["detector_flops"]["total"] == counts[index]
        assert rows[index]["detector_flops_percent"] == 100
    assert all((row["regions"] > 0) == (file == FPN) for row in rows)


@pytest.mark.parametrize(
    ("file", "overrides", "message"),
    [
        (
            FPN,
            ("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
            "needs MODEL.BACKBONE.NAME build_sact_resnet_backb",
        ),
        (FPN, ("MODEL.BACKBONE.NAME", "build_sact_retinanet_resnet_fpn_backbone"), "needs MODEL.BACKBONE.NAME build_s"),
        (RETINANET, ("MODEL.BACKBONE.NAME", "build_sact_resnet_backbone"), "needs MODEL.BACKBONE.NAME build_sact_reti"),
        (FPN, ("MODEL.ROI_HEADS.NAME", "SACTRes5ROIHeads"), "needs MODEL.ROI_HEADS.NAME StandardROIHeads or Cascade"),
        (FPN, ("MODEL.ROI_HEADS.NAME", "RROIHeads"), "needs MODEL.ROI_HEADS.NAME StandardROIHeads or CascadeROIHeads"),
        (FPN, ("MODEL.ROI_BOX_HEAD.NAME", "foo"), "must be one of FastRCNNConvFCHead"),
        (FPN, ("MODEL.FPN.IN_FEATURES", "['res2', 'res4']"), "MODEL.FPN.IN_FEATURES must list features of the extract"),
        (FPN, ("MODEL.FPN.IN_FEATURES", "[]"), "MODEL.FPN.IN_FEATURES must list features of the extractor"),
        (FPN, ("MODEL.FPN.IN_FEATURES", "['stem']"), "MODEL.FPN.IN_FEATURES must list features of the extractor"),
        (FPN, ("MODEL.RPN.IN_FEATURES", "['p2', 'p7']"), "MODEL.RPN.IN_FEATURES must list 1 or more features, 'p2' to"),
        (FPN, ("MODEL.ROI_HEADS.IN_FEATURES", "['res4']"), "MODEL.ROI_HEADS.IN_FEATURES must list 1 or more features"),
        (RETINANET, ("MODEL.RETINANET.IN_FEATURES", "['p2']"), "MODEL.RETINANET.IN_FEATURES must list 1 or more featu"),
        (FPN, ("MODEL.CLASSIFIER.FAMILY", "cifar"), "MODEL.CLASSIFIER.FAMILY must be 'imagenet' for a detector"),
        (FPN, ("MODEL.SACT.UNITS", "(5, 5, 5)"), "MODEL.SACT.UNITS must list 4 positive integers"),
        (FPN, ("MODEL.FPN.NORM", "foo"), "MODEL.FPN.NORM must be one of '', 'BN'"),
        (FPN, ("MODEL.FPN.OUT_CHANNELS", "0"), "MODEL.FPN.OUT_CHANNELS must be an integer from 1"),
        (FPN, ("MODEL.SACT.TAU_BOX_HEAD", "0.1"), "MODEL.SACT.TAU_BOX_HEAD has no effect on a detector"),
        (FPN, ("MODEL.SACT.REJECTION", "True"), "MODEL.SACT.REJECTION has no effect on a detector"),
        (FPN, ("MODEL.RETINANET.NUM_CONVS", "2"), "MODEL.RETINANET.NUM_CONVS has no effect on a detector"),
        (FPN, ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", "(0.5,)"), "MODEL.ROI_BOX_CASCADE_HEAD.IOUS has no effect"),
        (RETINANET, ("MODEL.RPN.NMS_THRESH", "0.5"), "MODEL.RPN.NMS_THRESH has no effect on a detector"),
        (RETINANET, ("MODEL.ROI_HEADS.NAME", "StandardROIHeads"), "MODEL.ROI_HEADS.NAME has no effect on a detector"),
        (RETINANET, ("MODEL.SACT.PROPOSAL_MASS", "0.5"), "MODEL.SACT.PROPOSAL_MASS has no effect on a detector"),
        (RETINANET, ("MODEL.RETINANET.PRIOR_PROB", "0.0"), "MODEL.RETINANET.PRIOR_PROB must lie in"),
        (RETINANET, ("MODEL.RETINANET.IOU_LABELS", "[0, 1]"), "MODEL.RETINANET.IOU_LABELS must list 3, one more than"),
        (RETINANET, ("MODEL.MASK_ON", "True"), "MODEL.MASK_ON: SACTRetinaNet detects boxes only"),
        (RETINANET, ("MODEL.KEYPOINT_ON", "True"), "MODEL.KEYPOINT_ON: SACTRetinaNet detects boxes only"),
        (FPN, ("MODEL.SACT.REFERENCE_UNITS", "(3, 4, 6)"), "MODEL.SACT.REFERENCE_UNITS must list 4 positive integers"),
        (FPN, ("MODEL.BACKBONE.FREEZE_AT", "6"), "MODEL.BACKBONE.FREEZE_AT must be an integer from 0 to 5"),
        (C4, ("MODEL.FPN.OUT_CHANNELS", "8"), "MODEL.FPN.OUT_CHANNELS has no effect on a detector"),
        (C4, ("MODEL.BACKBONE.FREEZE_AT", "5"), "MODEL.BACKBONE.FREEZE_AT must be an integer from 0 to 4"),
    ],
)
def test_what_does_not_go_together_is_named(file, overrides, message):
    with pytest.raises(InputError) as error:
        load_config(file, overrides)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_classes_are_those_of_the_data(tmp_path):
    for file, key in ((FPN, "ROI_HEADS"), (RETINANET, "RETINANET")):
        assert load_config(file, toy(tmp_path, f"MODEL.{key}.NUM_CLASSES", "3")).MODEL[key].NUM_CLASSES == 3
        with pytest.raises(InputError, match=f"MODEL.{key}.NUM_CLASSES is 7, but data set 'toy' has 3 classes"):
            load_config(file, toy(tmp_path, f"MODEL.{key}.NUM_CLASSES", "7"))


def test_only_the_extractor_learns_at_the_backbone_s_rate():
    cfg = load_config(FPN, ["SOLVER.BACKBONE_LR_FACTOR", "0.5", "SOLVER.HALTING_LR_FACTOR", "3.0"])
    model = build_model(cfg)
    names = {parameter: name for name, parameter in model.named_parameters()}
    rates = {
        names[parameter]: group["lr"] / cfg.SOLVER.BASE_LR
        for group in DetectionTrainer.build_optimizer(cfg, model).param_groups
        for parameter in group["params"]
    }
    assert rates["backbone.bottom_up.block2.units.0.conv1.weight"] == 0.5
    assert rates["backbone.bottom_up.block3.units.0.halting.local_conv.weight"] == 3
    assert rates["backbone.fpn_lateral3.weight"] == rates["proposal_generator.rpn_head.conv.weight"] == 1
