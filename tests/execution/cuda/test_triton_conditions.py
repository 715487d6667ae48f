"""Where the Triton kernels can serve, and what the compiler makes of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from perforated_blocks import block_of, inputs

from sact_det.execution.cuda.run import why_not_triton
from sact_det.network.block import AdaptiveBlock
from sact_det.network.norm import freeze_norms
from sact_det.network.resnet_v2 import BottleneckUnit, ResNetV2Spec

pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_what_the_kernels_cannot_do_is_named():
    block, x = block_of("imagenet").to(DEVICE), inputs(1, 6, 6, 16).to(DEVICE)
    assert "no gradients" in why_not_triton(block, x)
    with torch.no_grad():
        assert why_not_triton(block, x) is None
        assert "float64" in why_not_triton(block, x.double())
        assert "1 to" in why_not_triton(block, x[:0])
        assert "CifarUnit" in why_not_triton(block_of("cifar").to(DEVICE), inputs(1, 6, 6, 4).to(DEVICE))
        assert "inference" in why_not_triton(block.train(), x)
        plain = block_of("imagenet", "none").to(DEVICE).train()
        assert "learn from the batch" in why_not_triton(plain, x)
        freeze_norms(plain)
        assert why_not_triton(plain, x) is None
        strided = ResNetV2Spec(units=(1, 1), base_channels=4, halting="none")
        units = [strided.build_unit(1, False, None), strided.build_unit(2, True, None)]
        assert isinstance(units[1], BottleneckUnit)
        assert "change the shape" in why_not_triton(AdaptiveBlock(units).to(DEVICE).eval(), x)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**kept, **environment}
    )


def test_without_triton_the_runs_can_be_chosen_and_say_so():
    code = """
import os, sys
sys.modules["triton"] = None
import torch, sact_det, sact_det.execution.plan
from sact_det.execution.cuda.run import why_not_triton
block = sact_det.build_classifier((1, 2), base_channels=4).eval().block2
print(why_not_triton(block, torch.zeros(1, 16, 4, 4)))
os.environ["TRITON_INTERPRET"] = "1"
from sact_det.execution.cuda.run import why_no_triton
why_no_triton.cache_clear()
print(why_not_triton(block, torch.zeros(1, 16, 4, 4)))
"""
    result = run_python(code)
    assert result.stdout.splitlines() == ["they are for NVIDIA GPUs, not for cpu", "Triton is not installed"], result


@pytest.mark.parametrize(
    "capability, unit, only, number",
    [
        ("8.0", "mma.sync", (), 44),
        ("8.9", "mma.sync", ("--only", "conv1_kernel", "conv3_kernel"), 8),
        ("9.0", "wgmma", (), 44),
    ],
)
def test_the_compiler_takes_the_kernels_without_spilling_registers(
    tmp_path: Path, capability: str, unit: str, only: tuple[str, ...], number: int
):
    """Without a GPU, the largest tiles, at every precision: Triton brings its own assembler."""
    command = [sys.executable, "-m", "sact_det.benchmark.gpu.compilation", "--capability", capability, *only]
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**kept, "TRITON_CACHE_DIR": str(tmp_path)}
    )
    assert result.returncode == 0, result.stderr
    taken = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(taken) == number and all(kernel["spilled"] == 0 for kernel in taken), result.stdout
    multiply = ("conv", "middle", "inner", "state", "weight")
    products = [kernel for kernel in taken if kernel["kernel"].startswith(multiply)]
    assert {kernel["precision"] for kernel in products} == {"ieee", "tf32", "fp16", "bf16"}
    assert all(kernel["tensor_cores"] == unit for kernel in products if kernel["precision"] != "ieee")
    assert all(kernel["shared"] <= 163 * 1024 for kernel in taken)  # what a program may have on 8.0


def test_tiles_are_compiled_at_once_and_as_a_launch_wants_them():
    """For a card that is not there: its driver says no more than what it is."""
    code = """
import logging, torch, triton
from triton.backends.compiler import GPUTarget

class Driver:
    get_current_target = lambda self: GPUTarget("cuda", 90, 32)
    get_current_device = lambda self: 0
    get_current_stream = lambda self, device: 0

triton.runtime.driver.set_active(Driver())
logging.basicConfig(level=logging.INFO)
from sact_det.execution.cuda import tiles, unit_kernels

kernel, configs = unit_kernels.conv1_kernel.fn, unit_kernels.conv1_kernel.configs[:3]
half, real, whole = (torch.zeros(4096, dtype=dtype) for dtype in (torch.float16, torch.float32, torch.int32))
values = (half, real, real, half, real, half, whole, whole, real, whole, 132, 7)
arguments = dict(zip(kernel.arg_names, values))
constants = {"DEPTH": 64, "COLUMNS": 64, "PRECISION": "ieee", "BLOCK_K": 64}
tiles.compile_together(kernel, arguments, {**constants, "grid": (1,), "warmup": False}, configs)
compiled = dict(kernel.device_caches[0][0])
print(len(compiled), {type(one).__name__ for one in compiled.values()})
for config in configs:  # what the autotuner does for each
    assert kernel.run(*values, grid=(1,), warmup=True, **constants, **config.all_kwargs()) in compiled.values()
print(len(kernel.device_caches[0][0]))
"""
    result = run_python(code)
    assert result.stdout.splitlines() == ["3 {'CompiledKernel'}", "3"], result
    assert "one after the other" not in result.stderr
