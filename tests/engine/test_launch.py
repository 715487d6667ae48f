"""Processes that leave their group: what Detectron2's launch would leave running while the interpreter ends."""

from pathlib import Path

import pytest
import torch.distributed as dist
from detectron2.utils import comm

from sact_det.engine.launch import launch, leave_process_group


def threads_of_gloo():
    names = [file.read_text() for file in Path("/proc/self/task").glob("*/comm")]
    assert names
    return [name.strip() for name in names if "gloo" in name]


def as_detectron2_does(store):
    """Joins a group and gathers through it, with the calls of detectron2.engine.launch and comm.gather."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    comm.create_local_process_group(1)
    gathered = [None]
    dist.gather_object("an object", gathered, dst=0, group=comm._get_global_gloo_group())
    assert gathered == ["an object"] and threads_of_gloo()


def test_no_thread_of_a_process_group_outlives_launch(tmp_path):
    launch(as_detectron2_does, 1, args=(tmp_path / "store",))
    assert not dist.is_initialized() and not threads_of_gloo()


def test_a_process_can_join_a_group_again(tmp_path):
    for number in range(2):
        as_detectron2_does(tmp_path / str(number))
        leave_process_group()


def test_without_a_process_group_there_is_nothing_to_leave():
    leave_process_group()
    assert not dist.is_initialized()


def test_what_fails_in_launch_is_raised(tmp_path):
    with pytest.raises(ZeroDivisionError):
        launch(divmod, 1, args=(1, 0))
