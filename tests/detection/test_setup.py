"""A config is checked when it is read: one line names the key."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import sact_det.detection  # noqa: F401
from sact_det.base.errors import InputError
from sact_det.tasks import load_config

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/tests/tiny.yaml")


def refusal(config_file, *overrides):
    with pytest.raises(InputError) as error:
        load_config(str(config_file), overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("HALTING", "foo", "must be one of 'none', 'act', 'sact'; got 'foo'"),
        (
            "EXECUTION",
            "lazy",
            "must be one of 'dense', 'perforated', 'auto', 'graphs', 'compile', 'export'; got 'lazy'",
        ),
        ("NORM", "foo", "must be one of 'BN', 'SyncBN', 'MovingBN', 'FrozenBN'; got 'foo'"),
        ("HALTING_NORM", "", "must be one of 'BN', 'SyncBN', 'MovingBN', 'FrozenBN'; got ''"),
        ("BOX_HEAD_NORM", "foo", "must be one of '', 'BN', 'SyncBN', 'MovingBN', 'FrozenBN'; got 'foo'"),
        ("BOX_HEAD_HALTING", "foo", "must be one of '', 'none', 'act', 'sact'; got 'foo'"),
        ("BOX_HEAD_HALTING_NORM", "foo", "must be one of '', 'BN', 'SyncBN', 'MovingBN', 'FrozenBN'; got 'foo'"),
        ("NORM_DECAY", "1.0", "must lie in [0, 1); got 1.0"),
        ("TAU", "-1.0", "must be a finite number, 0 or more; got -1.0"),
        ("TAU", "1e999", "must be a finite number, 0 or more; got inf"),
        ("EPS", "1.0", "must lie in (0, 1); got 1.0"),
        ("TILE", "0", "must be 1, or more with halting 'sact'; got 0 with 'sact'"),
        ("UNITS", "(1, 2, 3, 4, 5)", "must list 4 positive integers, one per block; got (1, 2, 3, 4, 5)"),
        ("UNITS", "(1, 2, 3)", "must list 4 positive integers, one per block; got (1, 2, 3)"),
        ("UNITS", "(1, 2, 0, 2)", "must list 1 to 4 positive integers, one per block; got (1, 2, 0, 2)"),
        ("UNITS", "(1, 2, '3', 2)", "must list 1 to 4 positive integers, one per block; got (1, 2, '3', 2)"),
        ("BASE_CHANNELS", "0", "must be positive; got 0"),
        ("DILATION", "(1, 1)", "must list a positive integer per block (4); got (1, 1)"),
        ("REFERENCE_UNITS", "(3, 4)", "must list 3 positive integers; got (3, 4)"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_key(key, value, message):
    assert refusal(TINY, f"MODEL.SACT.{key}", value) == f"MODEL.SACT.{key} {message}"


@pytest.mark.parametrize("key", ["HALTING_LR_FACTOR", "BACKBONE_LR_FACTOR"])
@pytest.mark.parametrize("value", ["0.0", "-1.0", "1e999"])
def test_a_learning_rate_factor_out_of_range_is_refused_with_its_key(key, value):
    message = refusal(TINY, f"SOLVER.{key}", value)
    assert message == f"SOLVER.{key} must be a finite positive number; got {float(value)}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.SACT.TOW", "1"), "MODEL.SACT.TOW 1: Non-existent key: MODEL.SACT.TOW"),
        (("SOLVER.BASE_LR", "fast"), "SOLVER.BASE_LR fast: Type mismatch"),
        (("MODEL.SACT.UNITS", "3"), "MODEL.SACT.UNITS 3: Type mismatch"),
        (("SEED", "1", "MODEL.DEVICE"), "overrides come as KEY VALUE pairs; got SEED 1 MODEL.DEVICE"),
    ],
)
def test_an_override_that_does_not_fit_is_named(overrides, message):
    assert refusal(TINY, *overrides).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such config file"),
        ("MODEL:\n  SACT:\n    TOW: 1\n", "Non-existent key: MODEL.SACT.TOW"),
        ("MODEL:\n  SACT:\n    TAU: much\n", "Type mismatch"),
        ("MODEL: [\n", "not a readable yaml file: line 2, column 1: expected the node content"),
        ("_BASE_: nowhere.yaml\n", "_BASE_ {folder}/nowhere.yaml: no such config file"),
        ("just words", "not a config; expected keys and values in yaml"),
        ("- 1\n- 2\n", "not a config; expected keys and values in yaml"),
        ("", "not a config; expected keys and values in yaml"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_named(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    assert refusal(path).startswith(f"{path}: {message.format(folder=tmp_path)}")


def test_a_config_file_runs_no_code(tmp_path):
    (tmp_path / "config.yaml").write_text(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{tmp_path}/ran']\n")
    refusal(tmp_path / "config.yaml")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("driver", [False, True])
def test_without_a_gpu_the_device_falls_back_to_the_cpu_and_a_driver_in_vain_is_told_of(
    driver, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sact_det.engine.setup.NVIDIA_DRIVER", tmp_path if driver else tmp_path / "none")
    path = tmp_path / "config.yaml"
    path.write_text(f"_BASE_: {TINY}\nMODEL: {{DEVICE: cuda}}\n")
    with caplog.at_level(logging.WARNING, logger="sact_det"):
        assert load_config(str(path)).MODEL.DEVICE == "cpu"
    assert ["NVIDIA driver here, but" in record.message for record in caplog.records] == [True] * driver


def test_a_gpu_that_is_asked_for_by_name_must_be_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"MODEL\.DEVICE cuda:0: .*; MODEL\.DEVICE cpu computes without one"):
        load_config(TINY, ["MODEL.DEVICE", "cuda:0"])


def test_a_config_is_read_back_as_it_was_written(tmp_path):
    cfg = load_config(TINY, ["MODEL.SACT.TAU", "0.25"])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert yaml.safe_load(load_config(str(tmp_path / "config.yaml")).dump()) == yaml.safe_load(cfg.dump())


def test_what_is_installed_gives_detectron2_its_model_zoo():
    program = "from detectron2 import model_zoo; print(model_zoo.get_config_file('COCO-Detection/rpn_R_50_C4_1x.yaml'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.endswith("rpn_R_50_C4_1x.yaml\n"), done.stderr


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_the_locked_setuptools_still_have_pkg_resources(name):
    (version,) = re.findall(r"^setuptools==(\d+)", (ROOT / name).read_text(), re.M)
    assert 77 <= int(version) < 82  # from PyTorch's requirement to what Detectron2's model zoo imports
