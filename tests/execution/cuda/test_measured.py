"""What "auto" goes by on a GPU: a table of measurements per card, dense without one."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from small_networks import images, randomize

from sact_det.execution import perforated, set_execution
from sact_det.execution.cuda import measured
from sact_det.execution.cuda.measured import (
    NOWHERE,
    WORTHWHILE,
    Measured,
    MeasuredUnit,
    dense_from,
    is_faster,
    read_table,
    write_table,
)
from sact_det.execution.cuda.run import known_share
from sact_det.network.resnet_v2 import ResNetV2Spec
from sact_det.network.run import DenseRun

CARD = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def a_card(monkeypatch, own_cache):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some Card/80GB")
    read_table.cache_clear()
    yield own_cache
    read_table.cache_clear()


def row(share: float, positions: int = 1000, **changes) -> Measured:
    return Measured(**{"training": False, "precision": "bfloat16", "channels": 256, "positions": positions, **changes,
                       "share": share})  # fmt: skip


@torch.no_grad()
def test_without_a_table_nothing_is_faster():
    assert not is_faster(CARD, torch.bfloat16, 256, 10**9)


@torch.no_grad()
def test_the_largest_map_that_is_not_larger_decides_for_its_precision_and_width():
    path = write_table(CARD, [row(0.0, 1000), row(WORTHWHILE, 8000), row(0.0, 20000)])
    assert path.parent.name == "gpu" and "Some_Card_80GB" in path.name
    assert [is_faster(CARD, torch.bfloat16, 256, n) for n in (999, 1000, 7999, 8000, 19999, 20000)] == [
        False, False, False, True, True, False,
    ]  # fmt: skip
    assert not is_faster(CARD, torch.float16, 256, 8000) and not is_faster(CARD, torch.bfloat16, 512, 8000)


def test_training_and_inference_have_rows_of_their_own():
    write_table(CARD, [row(0.9, training=True)])
    assert is_faster(CARD, torch.bfloat16, 256, 1000)
    with torch.no_grad():
        assert not is_faster(CARD, torch.bfloat16, 256, 1000)


@torch.no_grad()
@pytest.mark.parametrize(
    "content",
    ["", "{", "7", '[{"share": 1}]', json.dumps([{**row(1.0).__dict__, "share": "all"}]), "[7]", "\x00\xff"],
)
def test_a_broken_table_means_dense_and_is_named_once(content, caplog):
    path = measured.table_path(CARD, Measured)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert not is_faster(CARD, torch.bfloat16, 256, 1000) and not is_faster(CARD, torch.bfloat16, 256, 1000)
    assert len(caplog.records) == 1 and "its table cannot be read" in caplog.text


@torch.no_grad()
def test_auto_is_dense_on_a_gpu_that_nobody_measured_and_waits_for_nothing(monkeypatch):
    block = ResNetV2Spec(units=(1, 3), base_channels=4, halting="sact").build_block(2)
    block = randomize(block, images(2, 8, 8, 16))
    set_execution(block, "auto")
    # A tensor that says it is on a GPU, with a shape and a type and nothing else: asked for a value it fails.
    x = SimpleNamespace(shape=(2, 16, 8, 8), is_cuda=True, device=CARD, dtype=torch.bfloat16, __len__=lambda: 2)
    x = type("OnGpu", (), {**vars(x), "__len__": lambda self: 2})()
    monkeypatch.setattr(perforated, "compute_type", lambda tensor: tensor.dtype)
    monkeypatch.setattr(block.units[0], "forward", lambda x, *_: x)
    run = block.plan.start(block, x, None, None)
    assert type(run) is DenseRun and block.plan.proceed(block, run, 1, None) is run
    write_table(CARD, [row(1.0, positions=32, channels=16)])
    monkeypatch.setattr(perforated, "why_not_triton", lambda *_: "reached")
    asked = []
    monkeypatch.setattr(perforated, "refuse_released", lambda module, reason: asked.append(reason))
    assert type(block.plan.start(block, x, None, None)) is DenseRun and "reached" in asked[0]


@torch.no_grad()
def test_units_have_a_table_of_their_own_which_says_from_which_share_on_cudnn_is_faster():
    assert dense_from(CARD, torch.float16, 1024, 1900) == NOWHERE > 1
    write_table(CARD, [row(1.0)])
    units = [MeasuredUnit("float16", 1024, 1900, 0.9), MeasuredUnit("float16", 1024, 15200, 0.7)]
    assert "units" in write_table(CARD, units).name
    assert [dense_from(CARD, torch.float16, 1024, n) for n in (1000, 1900, 15199, 15200)] == [NOWHERE, 0.9, 0.9, 0.7]
    assert dense_from(CARD, torch.bfloat16, 1024, 1900) == dense_from(CARD, torch.float16, 512, 1900) == NOWHERE
    assert is_faster(CARD, torch.bfloat16, 256, 1000) and dense_from(torch.device("cpu"), torch.float16, 1024, 1900) > 1


def test_the_host_knows_the_share_where_nothing_can_halt():
    plain, block = (
        ResNetV2Spec(units=(1, 3), base_channels=4, halting=halting).build_block(2) for halting in ("none", "sact")
    )
    assert known_share(plain) == 1 and known_share(block) == 0
    block.shift = -math.inf  # a budget of 1
    assert known_share(block) == 1
    block.shift = torch.tensor([-math.inf, 0.0])
    assert known_share(block) == 0
