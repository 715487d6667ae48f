"""One classifier of the original program starts a detector: blocks 1-3, and block 4 with postnorm in the box head."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import ORACLE, original_network

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
from detectron2.modeling import build_model
from feature_extraction import extract

from sact_det.base.errors import InputError
from sact_det.detection.checkpoint import DetectorCheckpointer
from sact_det.tasks import load_config
from sact_det.weights.sact_tf import convert_sact_tf
from sact_det.weights.tf_bundle import TensorBundle
from sact_det.weights.weight_file import save_weights

TINY = str(Path(__file__).parents[2] / "configs/tests/tiny.yaml")
UNITS = ("MODEL.SACT.UNITS", "(2, 3, 4, 2)")
CASE = "sact_small_even"


@pytest.fixture
def weights(tmp_path: Path) -> str:
    path = tmp_path / "sact.pth"
    save_weights(path, *convert_sact_tf(TensorBundle(ORACLE / CASE / "ckpt")))
    return str(path)


def test_every_weight_but_the_logits_arrives_and_only_rpn_and_box_predictor_start_fresh(weights, caplog):
    model = build_model(load_config(TINY, UNITS))
    with caplog.at_level(logging.INFO, logger="sact_det"):
        DetectorCheckpointer(model).load(weights)
    listed = next(r.message for r in caplog.records if r.message.startswith("Starting fresh"))
    parts = listed.split(": ")[-1].split(", ")
    assert all(part.startswith(("proposal_generator.", "roi_heads.box_predictor.")) for part in parts)
    state, classifier = model.state_dict(), original_network(CASE).model.state_dict()
    for name, value in classifier.items():
        part = "roi_heads.res5" if name.startswith(("block4", "postnorm")) else "backbone"
        if not name.startswith("logits") and not name.endswith("num_batches_tracked"):
            assert torch.equal(state[f"{part}.{name}"], value), name


@torch.no_grad()
def test_the_extractor_spends_and_computes_what_the_original_does(weights):
    case = original_network(CASE)
    model = build_model(load_config(TINY, UNITS)).eval()
    DetectorCheckpointer(model).load(weights)
    features, record = extract(model.backbone, case.images, [tuple(case.images.shape[2:])] * len(case.images))
    for name, block in record.blocks.items():
        np.testing.assert_array_equal(block.num_units.numpy(), case.expected[f"{name}/num_units"])
        assert block.flops.tolist() == case.expected[f"{name}/flops"].tolist()
    expected = np.moveaxis(case.expected["block3"], -1, 1)
    assert np.abs(features["res4"].numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_cifar_network_is_refused(tmp_path):
    path = tmp_path / "cifar.pth"
    save_weights(path, *convert_sact_tf(TensorBundle(ORACLE / "cifar_sact" / "ckpt")))
    with pytest.raises(InputError, match=r"they need MODEL\.CLASSIFIER\.FAMILY cifar"):
        DetectorCheckpointer(build_model(load_config(TINY, UNITS))).load(str(path))
