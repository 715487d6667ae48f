"""Processes of one training, by whatever they are started: torchrun, --num-processes, --num-machines, SLURM."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_lines import ROOT, error_line, load_tool
from detectron2.engine.launch import _find_free_port
from labelled_folders import write_class_folders
from short_trainings import final_weights

tool = load_tool("train_net")
TRAIN, TRAIN_AND_KILL = (str(ROOT / path) for path in ("tools/train_net.py", "tests/train_and_kill.py"))
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TINY = ("--config-file", str(ROOT / "configs/tests/tiny_classifier.yaml"))
ENDS_WITHIN = 60


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_class_folders(tmp_path_factory.mktemp("toy") / "data")


def options(data: str, output: Path, steps: int = 5) -> list[str]:
    return [
        *("DATASETS.CLASSIFICATION", str([("toy", data)]), "DATASETS.TRAIN", "('toy',)", "OUTPUT_DIR", str(output)),
        *("SOLVER.MAX_ITER", str(steps), "SOLVER.CHECKPOINT_PERIOD", "3"),
    ]


def start(output: Path, *words: str) -> subprocess.Popen:
    """A command whose words go to a file beside its output."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with open(f"{output}.said", "w") as said:
        return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=said, stderr=said)


def said(output: Path) -> str:
    return Path(f"{output}.said").read_text()


def test_torchrun_goes_on_behind_a_killed_process_and_ends_as_two_machines_do(data: str, tmp_path: Path):
    restarted, machines = tmp_path / "restarted", tmp_path / "machines"
    words = (*TINY, *options(data, restarted))
    processes = [start(restarted, *TORCHRUN, "--max-restarts", "1", TRAIN_AND_KILL, *words)]
    address = f"tcp://127.0.0.1:{_find_free_port()}"
    for rank in "01":
        flags = ("--num-machines", "2", "--machine-rank", rank, "--num-processes", "1", "--dist-url", address)
        words = (TRAIN, *TINY, *flags, *options(data, machines))
        processes.append(start(tmp_path / f"machine_{rank}", sys.executable, *words))
    codes = [process.wait(timeout=600) for process in processes]
    assert codes == [0, 0, 0], said(restarted) + said(tmp_path / "machine_0") + said(tmp_path / "machine_1")
    assert "Starting training from iteration 3" in said(restarted)
    one, other = final_weights(restarted), final_weights(machines)
    assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_killed_process_ends_the_others_in_a_line_that_names_its_rank(data: str, tmp_path: Path):
    words = (TRAIN_AND_KILL, *TINY, "--num-processes", "2", "--dist-url", "auto", *options(data, tmp_path / "output"))
    process = start(tmp_path / "output", sys.executable, *words)
    checkpoint = tmp_path / "output/model_0000002.pth"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.1)
    assert process.wait(timeout=ENDS_WITHIN) == 1
    text = said(tmp_path / "output")
    line = "error: rank 1 was killed by SIGKILL; the others have been ended, and --resume goes on"
    assert text.count(line) == 1 and text.rstrip().split("\n")[-1] == line, text
    assert "Traceback" not in text


@pytest.mark.parametrize("killed", ["0", "1"], ids=["the first, which keeps the store", "the second"])
def test_a_killed_process_of_another_machine_is_named_with_host(data: str, tmp_path: Path, monkeypatch, killed: str):
    monkeypatch.setenv("KILLED", killed)
    address, machines = f"tcp://127.0.0.1:{_find_free_port()}", []
    for rank in "01":
        flags = ("--num-machines", "2", "--machine-rank", rank, "--num-processes", "1", "--dist-url", address)
        words = (TRAIN_AND_KILL, *TINY, *flags, *options(data, tmp_path / "output", steps=100_000))
        machines.append(start(tmp_path / rank, sys.executable, *words))
    other = 1 - int(killed)
    assert machines[int(killed)].wait(timeout=600) == 1
    assert f"error: rank {killed} was killed by SIGKILL" in said(tmp_path / killed)
    assert machines[other].wait(timeout=ENDS_WITHIN) == 1
    text = said(tmp_path / str(other))
    (line,) = (line for line in text.splitlines() if line.startswith("error: "))
    named = f"error: rank {other} ends because rank {killed} on {socket.gethostname()} has ended; "
    assert line.startswith(named) and text.rstrip().endswith(line) and "Traceback" not in text


def test_torchrun_that_is_asked_to_end_leaves_a_checkpoint(data: str, tmp_path: Path):
    output = tmp_path / "output"
    process = start(output, *TORCHRUN, TRAIN, *TINY, *options(data, output, steps=100_000))
    try:
        while "iter: " not in said(output):  # behind a step both hear; before the first they just end
            assert process.poll() is None, said(output)
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=ENDS_WITHIN)
    finally:
        process.kill()
    (step,) = re.findall(r"Stopped behind step (\d+) of 100000; --resume goes on from there", said(output))
    assert (output / "last_checkpoint").read_text() == f"model_{int(step) - 1:07d}.pth"


BY_TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    ("environment", "flags", "message"),
    [
        ({}, ("--num-gpus", "8"), "--num-gpus 8: this machine has none; --num-processes 8 share its CPU"),
        ({}, ("--num-gpus", "2", "--num-processes", "2"), "--num-gpus and --num-processes: give one of them"),
        ({}, ("--num-processes", "0"), "--num-processes must be 1 or more"),
        (BY_TORCHRUN, ("--num-gpus", "2"), "--num-gpus, --num-processes and --num-machines do not go with torchrun"),
        (BY_TORCHRUN, (), "RANK and WORLD_SIZE are set, but MASTER_ADDR and MASTER_PORT not"),
    ],
)
def test_processes_that_cannot_be_started_are_one_line(
    data: str, tmp_path: Path, capsys, monkeypatch, environment: dict, flags: tuple[str, ...], message: str
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = [*TINY, *flags, "--dist-url", "auto", *options(data, tmp_path / "output")]
    assert error_line(capsys, tool.invoke_main, words).startswith(message)


SBATCH = ROOT / "tools/slurm/train.sbatch"
STUBS = {
    "scontrol": 'echo "$@" >> scontrol.txt; [ "$1" != show ] || printf "node7\\nnode8\\n"',
    "srun": 'exec "${@:2}"',  # behind its one option
    "python": """trap "echo saved >> python.txt; exit 0" USR1
printf "%s\\n" "$@" > python.txt
while :; do sleep 0.1; done""",
}
SLURM = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "123", "SLURM_NNODES": "2", "SLURM_NODEID": "1"}


def test_the_job_for_slurm_uses_options_that_there_are_and_is_queued_again_behind_a_checkpoint(tmp_path: Path):
    """With stand-ins for the commands of SLURM, and for the training, in the place of those that are not here."""
    assert subprocess.run(["bash", "-n", SBATCH]).returncode == 0
    for name, body in STUBS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, **SLURM, "SLURM_RESTART_COUNT": "1", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    job = subprocess.Popen(["bash", SBATCH, "--config-file", "C D", "SEED", "1"], cwd=tmp_path, env=environment)
    started = tmp_path / "python.txt"
    while not (started.exists() and started.read_text().endswith("1\n")):
        assert job.poll() is None
        time.sleep(0.05)
    words = started.read_text().splitlines()
    args = tool.parse_args(words[1:])
    assert words[0] == "tools/train_net.py" and args.config_file == "C D" and args.resume and args.opts == ["SEED", "1"]
    assert (args.num_gpus, args.num_machines, args.machine_rank, args.dist_url) == (8, 2, 1, "tcp://node7:20123")
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=ENDS_WITHIN) == 0
    assert started.read_text().endswith("saved\n")
    assert (tmp_path / "scontrol.txt").read_text().splitlines()[-1] == "requeue 123"
