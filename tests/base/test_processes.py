"""Commands that run once, end by signals in one line, and leave no process behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cat2000_folder import write_cat2000_folder
from coco_folder import write_coco_folder
from command_lines import ROOT

from sact_det.base.errors import InputError
from sact_det.base.processes import command_line, refuse_copies

TRAIN = [str(ROOT / "tools/train_net.py"), "--config-file", str(ROOT / "configs/tests/tiny.yaml")]
ENDS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated"), signal.SIGKILL: (-9, "")}


@pytest.mark.parametrize(
    ("environment", "machines", "launcher"),
    [
        ({"WORLD_SIZE": "2", "RANK": "1"}, 1, "torchrun has started 2 copies"),
        ({"WORLD_SIZE": "16"}, 2, "torchrun has started 16 copies"),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}, 1, "srun has started 4 copies"),
        ({"OMPI_COMM_WORLD_SIZE": "3"}, 1, "mpirun has started 3 copies"),
        ({"PMI_SIZE": "8"}, 1, "mpirun has started 8 copies"),
    ],
)
def test_copies_that_a_launcher_started_are_refused(environment: dict, machines: int, launcher: str):
    with pytest.raises(InputError, match=rf"=\d+: {launcher} .* start it once .*--num-gpus") as error:
        refuse_copies(environment, machines)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("environment", "machines"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "1", "RANK": "0"}, 1),
        ({"WORLD_SIZE": ""}, 1),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 1),  # a batch script, which runs once
        ({"SLURM_STEP_NUM_TASKS": "2"}, 2),  # one copy for each machine
    ],
)
def test_one_copy_for_each_machine_may_run(environment: dict, machines: int):
    refuse_copies(environment, machines)


def test_every_command_line_refuses_copies():
    tools = sorted(path for path in (ROOT / "tools").glob("*.py"))
    assert len(tools) >= 13
    for path in tools:
        assert re.search(r"^(@| +with )command_line\(", path.read_text(), re.M), path


def test_sigterm_lets_finally_clean_up(capsys: pytest.CaptureFixture):
    cleaned = []
    with pytest.raises(SystemExit) as end, command_line():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            cleaned.append(True)
    assert end.value.code == 143 and cleaned and capsys.readouterr().err == "terminated\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def processes_of(session: int) -> list[int]:
    """All that a command has started, and itself: it leads a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, leader = stat.read_text().rpartition(") ")[2].split()[:4]
        except OSError:  # it has ended
            continue
        if int(leader) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def end_by(number: signal.Signals, arguments: list[str], ready, folder: Path) -> None:
    """Starts a command, sends it a signal once it is ready, and checks its last words and that nothing is left."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with open(folder / "said", "w+") as said:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 300
            while not ready(process.pid):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "said").read_text()
                time.sleep(0.05)
            assert len(processes_of(process.pid)) > 2
            if number == signal.SIGINT:  # a terminal sends it to all
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            code = process.wait(timeout=180)
            deadline = time.monotonic() + 20  # workers of a DataLoader look every five seconds whether it is there
            while processes_of(process.pid):
                assert time.monotonic() < deadline, processes_of(process.pid)
                time.sleep(0.05)
        finally:
            for pid in processes_of(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()
    text = (folder / "said").read_text()
    last_line = text.rstrip("\n").split("\n")[-1]
    assert code == ENDS[number][0] and last_line.endswith(ENDS[number][1]), text
    assert "Traceback" not in text and sum(text.count(f"{said}\n") for _, said in ENDS.values() if said) <= 1, text


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
def test_processes_that_score_end_with_the_command(tmp_path: Path, number: signal.Signals):
    data = write_cat2000_folder(tmp_path / "data", numbers=range(1, 9), shape=(600, 800))
    words = ["tools/evaluate_saliency.py", "--dataset", str(data), "--output", str(tmp_path / "output")]

    def is_scoring(pid: int) -> bool:
        return len(processes_of(pid)) >= 5  # with the server that starts the two, and the tracker of resources

    end_by(number, [*words, "--center-only", "--processes", "2"], is_scoring, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_processes_that_train_end_with_the_command(tmp_path: Path, number: signal.Signals):
    json_file, images = write_coco_folder(tmp_path, num_images=4)
    options = [
        *(
            "--num-processes",
            "2",
            "--dist-url",
            "auto",
            "DATASETS.COCO_FORMAT",
            f"[('toy', '{json_file}', '{images}')]",
        ),
        *("DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "()", "OUTPUT_DIR", str(tmp_path / "output")),
        *("SOLVER.MAX_ITER", "100000", "DATALOADER.NUM_WORKERS", "1"),
    ]

    def is_training(pid: int) -> bool:
        said = (tmp_path / "said").read_text()
        return "iter: " in said and len(processes_of(pid)) >= 6  # before the first step both would end without a word

    end_by(number, [*TRAIN, *options], is_training, tmp_path)
    if number == signal.SIGINT:  # asked to end, both agree on a step and write it down
        assert (tmp_path / "output/last_checkpoint").exists()
