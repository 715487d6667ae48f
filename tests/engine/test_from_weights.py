"""MODEL.SACT.FROM_WEIGHTS: a config takes from weights what the network is, or names all that contradicts them."""

import re
import tarfile
from pathlib import Path

import pytest

import sact_det.detection  # noqa: F401
from sact_det import build_classifier
from sact_det.base.errors import InputError
from sact_det.classification.checkpoint import ClassifierCheckpointer
from sact_det.engine.config_checks import defaults
from sact_det.tasks import load_config
from sact_det.weights.sact_tf import convert_sact_tf
from sact_det.weights.tf_checkpoint import open_checkpoint
from sact_det.weights.weight_file import load_weights, save_weights

ROOT = Path(__file__).resolve().parents[2]
ORACLE = ROOT / "tests/fixtures/oracle"
C4, CLASSIFIER = (str(ROOT / "configs" / name) for name in ("Base-SACT-C4.yaml", "Base-Classification.yaml"))
NO_DATA = ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()"]
TAKEN = ["MODEL.SACT.FROM_WEIGHTS", "True"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Name -> weight file: networks of the original program as small as its tests have them."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for name in ("sact_small_even", "vanilla_small_odd", "cifar_sact"):
        paths[name] = str(folder / f"{name}.pth")
        save_weights(paths[name], *convert_sact_tf(open_checkpoint(ORACLE / name / "ckpt")))
    return paths


def load(config, weights, *overrides):
    return load_config(config, ["MODEL.WEIGHTS", weights, *TAKEN, *NO_DATA, *overrides])


@pytest.mark.parametrize("config", [C4, CLASSIFIER])
def test_what_a_config_leaves_open_is_what_the_weights_need(weights, config):
    cfg = load(config, weights["sact_small_even"])
    assert cfg.MODEL.SACT.UNITS == (2, 3, 4, 2) and cfg.MODEL.SACT.BASE_CHANNELS == 8
    assert cfg.MODEL.SACT.HALTING == "sact" and cfg.MODEL.SACT.FROM_WEIGHTS is False
    assert (2, 3, 4, 2)[: 4 if config == CLASSIFIER else 3] == cfg.MODEL.SACT.REFERENCE_UNITS
    if config == CLASSIFIER:
        assert cfg.MODEL.CLASSIFIER.NUM_CLASSES == 17


def test_a_classifiers_family_is_the_weights_too(weights):
    cfg = load(CLASSIFIER, weights["cifar_sact"])
    assert cfg.MODEL.CLASSIFIER.FAMILY == "cifar" and cfg.MODEL.SACT.UNITS == (5, 5, 5)


def test_all_contradictions_stand_in_one_line(weights):
    asked = ["MODEL.SACT.UNITS", "(3,4,6,3)", "MODEL.SACT.BASE_CHANNELS", "64", "MODEL.PIXEL_MEAN", "[1.0, 2.0, 3.0]"]
    with pytest.raises(InputError) as error:
        load(C4, weights["sact_small_even"], *asked)
    line = str(error.value)
    assert "\n" not in line and "MODEL.SACT.UNITS (2, 3, 4, 2) (the config has (3, 4, 6, 3))" in line
    assert "MODEL.SACT.BASE_CHANNELS 8 (the config has 64)" in line and "MODEL.PIXEL_MEAN [127.5" in line


def test_weights_of_a_plain_network_start_one_that_halts_if_that_is_asked_for(weights):
    path = weights["vanilla_small_odd"]
    assert load(CLASSIFIER, path).MODEL.SACT.HALTING == "none"
    assert load(CLASSIFIER, path, "MODEL.SACT.HALTING", "act").MODEL.SACT.HALTING == "act"
    with pytest.raises(InputError, match=r"MODEL\.SACT\.HALTING sact"):
        load(CLASSIFIER, weights["sact_small_even"], "MODEL.SACT.HALTING", "none")


def test_how_pixels_are_normalised_belongs_to_the_weights(weights, tmp_path):
    state_dict, metadata = load_weights(weights["sact_small_even"])
    path = str(tmp_path / "w.pth")
    save_weights(path, state_dict, {**metadata, "pixel_mean": [1.0, 2.0, 3.0], "pixel_std": [4.0, 5.0, 6.0]})
    cfg = load(C4, path)
    assert (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD) == ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])


def test_without_the_key_nothing_is_taken(weights):
    cfg = load_config(C4, ["MODEL.WEIGHTS", weights["sact_small_even"], *NO_DATA])
    assert cfg.MODEL.SACT.UNITS == defaults().MODEL.SACT.UNITS


def test_what_cannot_be_taken_is_one_line(weights, tmp_path):
    bare = str(tmp_path / "bare.pth")
    save_weights(bare, load_weights(weights["sact_small_even"]).state_dict, {})
    folder = str(ORACLE / "sact_small_even/ckpt")
    for path, message in (
        ("", "MODEL.SACT.FROM_WEIGHTS True needs MODEL.WEIGHTS, which is empty"),
        (bare, "does not describe its network, as MODEL.SACT.FROM_WEIGHTS True needs"),
        (folder, f"python tools/convert_weights.py sact-tf {folder} OUT.pth makes weights of it"),
        (str(tmp_path / "none.pth"), "no such weight file"),
    ):
        with pytest.raises(InputError, match=re.escape(message)) as error:
            load(C4, path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["folder", "tar", "damaged"])
def test_a_file_of_another_program_in_the_place_of_weights_says_which_command_converts_it(tmp_path, kind):
    path = ORACLE / "sact_small_even/ckpt"
    if kind == "tar":
        path = tmp_path / "model.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(ORACLE / "sact_small_even/ckpt", "model")
    elif kind == "damaged":
        path = tmp_path / "w.pth"
        path.write_bytes(b"nothing")
    checkpointer = ClassifierCheckpointer(build_classifier(units=(1, 1, 1, 1), base_channels=2, num_classes=3))
    with pytest.raises(InputError) as error:
        checkpointer.load(str(path))
    line = str(error.value)
    assert "\n" not in line and str(path) in line
    command = {"folder": "sact-tf", "tar": "sact-tf, or tf-slim,"}.get(kind)
    expected = f"python tools/convert_weights.py {command} {path} OUT.pth makes weights of it"
    assert line.endswith(expected) if command else "convert_weights" not in line
