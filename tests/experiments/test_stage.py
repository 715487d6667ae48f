import io
import sys

import pytest

from sact_det.base.errors import InputError
from sact_det.experiments.stage import run_stage

TRAINS = """
for step in (19, 39):
    print(f"  eta: 0:00:10  iter: {step}  total_loss: {3 - step / 20:.2f}  time: 0.1")
print("Inference done 11/300. 0.1 s / img")
print("a wall of logs")
"""


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_what_a_stage_says_goes_to_its_file_and_one_line_to_the_terminal(tmp_path, capsys):
    run_stage("[1/2] trains", ["-c", TRAINS], tmp_path / "logs/1.txt", 40)
    assert "a wall of logs" in (tmp_path / "logs/1.txt").read_text()
    out = capsys.readouterr().out
    assert out.startswith("[1/2] trains ") and out.endswith(" s\n") and out.count("\n") == 1


def test_a_terminal_sees_the_bar_move_to_its_end(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    run_stage("[1/2] trains", ["-c", TRAINS], tmp_path / "1.txt", 80)
    states = terminal.getvalue().split("\r")
    assert any("loss 2.05" in state and 0 < state.count("█") < 20 for state in states)
    assert any("evaluates image 11 of 300" in state for state in states)
    assert states[-1].count("█") == 20 and terminal.getvalue().endswith("\n") and terminal.getvalue().count("\n") == 1


def test_a_stage_that_fails_is_an_error_with_the_end_of_what_it_said(tmp_path):
    program = "import sys; print(*range(100), sep='\\n'); sys.exit('error: no such file')"
    with pytest.raises(InputError, match=r"failed \(.*1.txt\): 81 82 .* 99 error: no such file$"):
        run_stage("[1/1] fails", ["-c", program], tmp_path / "1.txt")
