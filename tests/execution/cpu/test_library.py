"""The kernels for CPUs as a library: compiled on first use, and what happens where that cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sact_det.base.cache_folder import private_cache_folder
from sact_det.execution.cpu import calls, library


def test_without_a_compiler_pytorch_serves_and_says_so(tmp_path: Path):
    program = """
import logging, torch
logging.basicConfig(level=logging.INFO)
from sact_det import build_classifier
model = build_classifier(units=(3,), base_channels=4, num_classes=2, halting="sact").eval()
model.set_execution("perforated")
with torch.no_grad():
    print(model(torch.zeros(1, 3, 32, 32)).logits.shape)
"""

    def run(path: str) -> str:
        cache = {"SACT_DET_CACHE": str(tmp_path / "cache"), "PATH": path, "CXX": "no-such-compiler"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env={**os.environ, **cache}, capture_output=True, text=True, check=True)
        assert "torch.Size([1, 2])" in done.stdout
        return done.stderr

    found = run(str(tmp_path))
    assert (
        found.count("WARNING") == 1 and "WARNING:sact_det.execution.cpu.library:No kernels for this processor" in found
    )
    assert "without kernels of their own: no C++ compiler (CXX, c++, g++, clang++)" in found
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'rows.cpp:1: it does not please me' >&2\nexit 1\n")
    compiler.chmod(0o755)
    assert "c++ failed: rows.cpp:1: it does not please me" in run(f"{tmp_path}:/bin")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))
def test_nothing_is_allocated_or_thrown_behind_the_c_interface():
    """No exception of C++ may meet Python: none is thrown where nothing throws."""
    folder, loaded = private_cache_folder(), Path(calls.kernels()._name)  # which is gone if this process compiled it
    symbols = (folder / loaded.name).read_bytes()
    for name in (b"_Znwm", b"_Znam", b"__cxa_throw", b"_ZSt17__throw_bad_allocv", b"_ZSt20__throw_length_errorPKc"):
        assert name + b"\0" not in symbols and name + b"@" not in symbols


def test_auto_without_a_compiler_warns_in_one_line_and_computes_what_dense_does(tmp_path: Path):
    """In a program that has set up no logging: what it hears is a warning."""
    program = """
import torch
from sact_det import build_classifier
from sact_det.network.norm import freeze_norms

torch.manual_seed(0)
model = build_classifier(units=(3,), base_channels=4, num_classes=2)
freeze_norms(model)
images = torch.rand(2, 3, 32, 32)
found = {}
for execution in ("dense", "auto"):
    model.set_execution(execution)
    model.zero_grad()
    output = model(images)
    (output.logits.square().sum() + output.ponder.mean_cost().sum()).backward()
    found[execution] = [output.logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
    with torch.no_grad():
        found[execution].append(model.eval()(images).logits)
    model.train()
assert len(found["dense"]) > 10
for dense, auto in zip(found["dense"], found["auto"], strict=True):
    torch.testing.assert_close(auto, dense, rtol=1e-4, atol=1e-6)
"""
    alone = {"SACT_DET_CACHE": str(tmp_path / "cache"), "PATH": str(tmp_path), "CXX": ""}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env={**os.environ, **alone}, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("No kernels for this processor") and line.endswith(
        "no C++ compiler (CXX, c++, g++, clang++)"
    )
