"""What a weight file must hold to become a detector, and what a failing save must not destroy."""

import logging
import math
import pickle
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from filled_modules import filled
from short_trainings import fresh_parts
from torch import nn

import sact_det.detection  # noqa: F401
from sact_det import build_classifier
from sact_det.base.errors import InputError
from sact_det.detection.checkpoint import DetectorCheckpointer, to_detector
from sact_det.tasks import load_config
from sact_det.weights.weight_file import save_weights

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")
METADATA = {"units": [1, 2, 3, 2], "base_channels": 8, "dilation": [1, 1, 1, 1]}
PLAIN = ("MODEL.SACT.HALTING", "none")
FIVE_CLASSES = ("MODEL.ROI_HEADS.NUM_CLASSES", "5")


def detector(*overrides, seed=0):
    return filled(build_model(load_config(TINY, overrides)), seed)


def classifier(halting="none", units=(1, 2, 3, 2), base_channels=8):
    return filled(build_classifier(units, halting=halting, num_classes=5, base_channels=base_channels))


def save_classifier(path, without=(), metadata=METADATA, **arguments):
    state_dict = classifier(**arguments).state_dict()
    kept = (
        {name: value for name, value in state_dict.items() if not name.startswith(without)} if without else state_dict
    )
    save_weights(path, kept, metadata)
    return state_dict


def load(path, *overrides, evaluate=False):
    model = detector(*overrides)
    DetectorCheckpointer(model, evaluate=evaluate).load(str(path))
    return model.state_dict()


@pytest.fixture
def path(tmp_path, caplog):
    caplog.set_level(logging.INFO, "sact_det")
    return tmp_path / "weights.pth"


@pytest.mark.parametrize("halting", ["none", "act", "sact"])
def test_a_classifier_becomes_a_detector_part_by_part(path, caplog, halting):
    source = save_classifier(path, halting=halting)
    loaded = load(path, "MODEL.SACT.HALTING", halting)
    places = {
        **{f"backbone.{name}": name for name in source if name.startswith(("stem.", "block1.", "block2.", "block3."))},
        **{f"roi_heads.res5.{name}": name for name in source if name.startswith(("block4.", "postnorm."))},
        **{
            f"backbone.res4_norm.{name}": f"block4.units.0.preact.{name}"
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        },
    }
    for target, name in places.items():
        assert torch.equal(loaded[target], source[name]), target
    others = {name for name in loaded if name not in places}
    assert all(name.startswith(("proposal_generator.", "roi_heads.box_predictor.")) for name in others)
    assert fresh_parts(caplog) == [
        *("proposal_generator.rpn_head.anchor_deltas", "proposal_generator.rpn_head.conv"),
        "proposal_generator.rpn_head.objectness_logits",
        *("roi_heads.box_predictor.bbox_pred", "roi_heads.box_predictor.cls_score"),
    ]


def test_a_part_that_is_no_classifiers_is_refused():
    with pytest.raises(InputError, match=r"'block5\.x' belongs to no part of a classifier"):
        to_detector({"stem.conv.bias": torch.zeros(1), "block5.x": torch.zeros(1)})


@pytest.mark.parametrize("source", ["classifier", "detector"])
def test_plain_weights_start_a_sact_detector_whose_halting_branches_are_fresh_and_listed(path, caplog, source):
    if source == "classifier":
        save_classifier(path)
    else:
        torch.save({"model": detector(*PLAIN, seed=1).state_dict()}, path)
    before, loaded = detector().state_dict(), load(path)
    halting = [name for name in loaded if ".halting." in name]
    assert all(torch.equal(loaded[name], before[name]) for name in halting)
    assert not torch.equal(
        loaded["backbone.block3.units.1.conv1.weight"], before["backbone.block3.units.1.conv1.weight"]
    )
    listed = {part for part in fresh_parts(caplog) if ".halting." in part}
    assert listed == {name.rpartition(".")[0] for name in halting}


def test_halting_weights_do_not_fit_a_plain_detector(path):
    torch.save({"model": detector().state_dict()}, path)
    with pytest.raises(InputError, match=r"not in the model: backbone\.block2\.units\.0\.halting"):
        load(path, *PLAIN)


@pytest.mark.parametrize("act_or_sact", ["act", "sact"])
def test_halting_branches_of_another_rule_are_refused(path, act_or_sact):
    torch.save({"model": detector("MODEL.SACT.HALTING", act_or_sact).state_dict()}, path)
    with pytest.raises(InputError, match="weights of another architecture"):
        load(path, "MODEL.SACT.HALTING", {"act": "sact", "sact": "act"}[act_or_sact])


@pytest.mark.parametrize("source", ["classifier", "detector"])
@pytest.mark.parametrize(("old", "new"), [("sact", "act"), ("act", "sact"), ("sact", "none"), ("none", "act")])
def test_block_4_takes_weights_of_another_rule_but_for_its_branches(path, caplog, source, old, new):
    if source == "classifier" and old == "sact":
        given = save_classifier(path, halting="sact")
        branches = {f"roi_heads.res5.{name}" for name in given if name.startswith("block4.") and ".halting." in name}
    else:
        given = detector("MODEL.SACT.BOX_HEAD_HALTING", old, seed=1).state_dict()
        torch.save({"model": given}, path)
        branches = {name for name in given if name.startswith("roi_heads.") and ".halting." in name}
    assert bool(branches) == (old != "none")
    model = ("MODEL.SACT.BOX_HEAD_HALTING", new)
    before, loaded = detector(*model).state_dict(), load(path, *model)
    own = {name for name in loaded if name.startswith("roi_heads.res5.") and ".halting." in name}
    assert bool(own) == (new != "none") and all(torch.equal(loaded[name], before[name]) for name in own)
    names = [f"backbone.block2.units.0.{part}" for part in ("halting.local_conv.weight", "conv1.weight")]
    for name in (*names, "roi_heads.res5.block4.units.1.conv2.weight"):
        assert torch.equal(loaded[name], given.get(name, given.get(name.removeprefix("backbone."), loaded[name])))
        assert not torch.equal(loaded[name], before[name])
    messages = [record.getMessage() for record in caplog.records]
    assert any(f"the box head halts by {new!r}" in message for message in messages) == (old != "none")
    if own:
        assert {name.rpartition(".")[0] for name in own} <= set(fresh_parts(caplog))
    with pytest.raises(InputError, match="weights of another architecture"):
        load(path, *model, evaluate=True)


def test_a_box_predictor_for_other_classes_starts_fresh_in_training_alone(path, caplog):
    source = detector(seed=1).state_dict()
    torch.save({"model": source}, path)
    before, loaded = detector(*FIVE_CLASSES).state_dict(), load(path, *FIVE_CLASSES)
    for name, value in loaded.items():
        is_fresh = name.startswith("roi_heads.box_predictor.")
        assert torch.equal(value, (before if is_fresh else source)[name]), name
    assert fresh_parts(caplog) == ["roi_heads.box_predictor.bbox_pred", "roi_heads.box_predictor.cls_score"]
    with pytest.raises(InputError, match=r"number of classes\): shapes differ: roi_heads\.box_predictor\.cls_score"):
        load(path, *FIVE_CLASSES, evaluate=True)


def test_evaluation_refuses_weights_that_leave_parts_fresh(path):
    save_classifier(path, halting="sact")
    with pytest.raises(InputError, match=r"not in the file: proposal_generator\.rpn_head\.conv\.weight and 9 more"):
        load(path, evaluate=True)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("UNITS", "(1, 2, 4, 2)", r"they need MODEL\.SACT\.UNITS \(1, 2, 3, 2\), the config has \(1, 2, 4, 2\)"),
        ("BASE_CHANNELS", "4", r"they need MODEL\.SACT\.BASE_CHANNELS 8, the config has 4"),
        ("DILATION", "(1, 2, 2, 1)", r"they need MODEL\.SACT\.DILATION \(1, 1, 1, 1\), the config has \(1, 2, 2, 1\)"),
    ],
)
def test_weights_of_another_architecture_name_the_key_to_change(path, key, value, message):
    save_classifier(path)
    with pytest.raises(InputError, match=message) as error:
        load(path, f"MODEL.SACT.{key}", value)
    assert str(error.value).startswith(f"{path}: weights of another architecture") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [("UNITS", "(1, 2, 4, 2)", "not in the file"), ("UNITS", "(1, 2, 2, 2)", "not in the model")]
    + [("BASE_CHANNELS", "4", "shapes differ")],
)
@pytest.mark.parametrize("source", ["classifier", "detector"])
def test_weights_without_a_description_are_told_by_their_shapes(path, key, value, what, source):
    state_dict = classifier("sact").state_dict() if source == "classifier" else detector().state_dict()
    torch.save(state_dict, path)
    with pytest.raises(
        InputError, match=rf"another architecture than the config's \(MODEL.SACT.*\): {what}: "
    ) as error:
        load(path, f"MODEL.SACT.{key}", value)
    assert "\n" not in str(error.value)


BLOCK_4_ON = ("block4.", "postnorm.", "logits.")


def test_a_source_without_block_4_leaves_it_and_the_norm_before_the_rpn_fresh(path, caplog):
    modules = [n for n, m in classifier().named_modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    missing = [name for name in modules if f"{name}.".startswith(BLOCK_4_ON)]
    save_classifier(path, without=BLOCK_4_ON, metadata={**METADATA, "missing": missing})
    before, loaded = detector().state_dict(), load(path)
    kept = [name for name in loaded if name.startswith(("roi_heads.res5.", "backbone.res4_norm."))]
    assert all(torch.equal(loaded[name], before[name]) for name in kept)
    parts = fresh_parts(caplog)
    assert {"backbone.res4_norm", "roi_heads.res5.block4.units.1.conv2", "roi_heads.res5.postnorm"} <= set(parts)
    assert not any(part.startswith("backbone.block") and ".halting." not in part for part in parts)


def test_a_source_that_lacks_block_4_without_saying_so_is_refused(path):
    save_classifier(path, without=BLOCK_4_ON)
    with pytest.raises(InputError, match=r"not in the file: backbone\.res4_norm\.weight and \d+ more"):
        load(path)


def write_pickle(path):
    path.write_bytes(pickle.dumps({"model": {"w": 1}}))


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("model.pkl", write_pickle, "expected tensors and plain values written by torch.save"),
        ("model.pth", lambda path: torch.save(nn.Linear(1, 1), path), "holds pickled objects, which are never loaded"),
        ("model.pth", lambda path: path.write_bytes(b"\0" * 100), "or is damaged"),
        ("model.pth", lambda path: None, "no such weight file"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused_in_one_line(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(InputError) as error:
        load(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_no_weights_are_a_start_in_training_and_an_error_in_evaluation():
    before, loaded = detector().state_dict(), load("")
    assert all(torch.equal(loaded[name], before[name]) for name in before)
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS is empty: evaluation needs trained weights"):
        load("", evaluate=True)


# Values and states that a damaged or foreign file may hold


def save_changed(path, name, value):
    state_dict = detector().state_dict()
    assert name in state_dict
    torch.save({"model": {**state_dict, name: value(state_dict[name])}}, path)


@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("backbone.stem.conv.weight", lambda v: v * math.nan, "values are NaN, infinite or beyond float32"),
        ("backbone.stem.conv.weight", lambda v: v.round().int(), "is int32 .*; expected floats"),
        ("backbone.stem.conv.weight", lambda v: v + 0j, "is complex64 .*; expected floats"),
        ("backbone.stem.conv.weight", lambda v: v > 0, "is bool .*; expected floats"),
        ("backbone.res4_norm.running_var", lambda v: v - 2, "variances are negative"),
        ("roi_heads.box_predictor.cls_score.weight", lambda v: v[:0], "is empty"),
        ("roi_heads.box_predictor.cls_score.weight", lambda v: v[:3, :7], "shapes differ: roi_heads.box_predictor"),
        ("roi_heads.box_predictor.cls_score.weight", lambda v: v[:3, 0], "shapes differ: roi_heads.box_predictor"),
    ],
)
def test_values_that_no_detector_computes_with_are_named(path, name, value, message, evaluate):
    save_changed(path, name, value)
    with pytest.raises(InputError, match=f"^{path}: .*{message}") as error:
        load(path, evaluate=evaluate)
    assert name in str(error.value)


def test_a_url_that_cannot_be_fetched_is_named(capfd):
    with pytest.raises(InputError, match=r"^http://127\.0\.0\.1:9/w\.pth: cannot be fetched \(.*refused"):
        load("http://127.0.0.1:9/w.pth")
    assert capfd.readouterr().err == ""  # one line is enough


@pytest.mark.parametrize("name", ["with?query.pth", "with#fragment.pth", "100%.pth"])
def test_local_files_may_look_like_urls(tmp_path, name):
    state_dict = detector(seed=1).state_dict()
    torch.save(state_dict, tmp_path / name)
    loaded = load(tmp_path / name)
    assert all(torch.equal(loaded[key], value) for key, value in state_dict.items())


def test_an_error_does_not_keep_a_checkpointer_from_loading_the_next_file(path):
    checkpointer = DetectorCheckpointer(detector())
    for name in ("missing.pth", "missing.pth"):
        with pytest.raises(InputError, match="no such weight file"):
            checkpointer.load(str(path.with_name(name)))


@pytest.mark.parametrize("saved", ["True", "False"])
def test_a_detector_that_halves_its_regions_is_another_one(tmp_path, saved):
    halves = "MODEL.SACT.BOX_HEAD_MAX_POOL"
    DetectorCheckpointer(detector(halves, saved), str(tmp_path)).save("model")
    load(tmp_path / "model.pth", halves, saved, evaluate=True)
    other = {"True": "False", "False": "True"}[saved]
    with pytest.raises(InputError, match=rf"they need MODEL\.SACT\.BOX_HEAD_MAX_POOL {saved}, the config has {other}"):
        load(tmp_path / "model.pth", halves, other)


def test_a_classifier_starts_a_detector_that_halves_its_regions(path):
    source = save_classifier(path)
    loaded = load(path, "MODEL.SACT.BOX_HEAD_MAX_POOL", "True")
    assert torch.equal(loaded["roi_heads.res5.block4.units.0.conv2.weight"], source["block4.units.0.conv2.weight"])
