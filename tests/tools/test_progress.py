"""On a terminal, commands that take long show how far they have come; elsewhere they are silent."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_lines import load_tool

from sact_det.benchmark.gpu.check import _wait
from saliency.fixations import Fixations
from saliency.ponder_density import fit_ponder_density

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def plot(folder):
    load_tool("plot_results").main([str(ROOT / "docs/results/bccd.json"), "--output", str(folder)])


def fit(folder):
    rng = np.random.default_rng(0)
    counts = np.zeros((24, 32), np.uint8)
    counts[rng.integers(0, 24, 9), rng.integers(0, 32, 9)] = 1
    fit_ponder_density([rng.random((2, 12, 16))] * 2, [Fixations.from_map(counts)] * 2)


def wait(folder):
    sleep = [sys.executable, "-c", "import time; time.sleep(0.8)"]
    with subprocess.Popen(sleep) as process:
        assert _wait(process, 60) == 0


@pytest.mark.parametrize(("command", "shown"), [(plot, "2/2"), (fit, "fit to 2 images"), (wait, "of at most 60 s")])
def test_a_terminal_sees_how_far_it_has_come(command, shown, tmp_path, monkeypatch, capsys):
    for terminal in (Terminal(), io.StringIO()):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", terminal)
            command(tmp_path)
        assert (shown in terminal.getvalue()) == terminal.isatty()


def test_a_stage_that_does_not_end_in_time_is_told_apart():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        assert _wait(process, 0.2) is None
        process.kill()
