"""The kernels for CPUs as a library: compiled on first use, and what happens where that cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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

    assert "without kernels of their own: no C++ compiler (CXX, c++, g++, clang++)" in run(str(tmp_path))
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'rows.cpp:1: it does not please me' >&2\nexit 1\n")
    compiler.chmod(0o755)
    assert "c++ failed: rows.cpp:1: it does not please me" in run(f"{tmp_path}:/bin")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))
def test_nothing_is_allocated_or_thrown_behind_the_c_interface():
    """No exception of C++ may meet Python: none is thrown where nothing throws."""
    symbols = Path(calls.kernels()._name).read_bytes()
    for name in (b"_Znwm", b"_Znam", b"__cxa_throw", b"_ZSt17__throw_bad_allocv", b"_ZSt20__throw_length_errorPKc"):
        assert name + b"\0" not in symbols and name + b"@" not in symbols
