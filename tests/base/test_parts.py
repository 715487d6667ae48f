import multiprocessing
from pathlib import Path

import pytest

from sact_det.base.errors import InputError
from sact_det.base.parts import Parts

COUNT, SIZE = 23, 4


def parts_in(tmp_path: Path, run: str = "a run") -> Parts:
    return Parts(tmp_path / "parts", run, COUNT, SIZE, (tmp_path / "joined").exists)


def work(parts: Parts, rank: int = 0, world_size: int = 1, most: int = COUNT) -> None:
    for part in parts.missing(rank, world_size)[:most]:
        parts.write(part, [item**2 for item in parts.items(part)])


def join(tmp_path: Path, parts: Parts) -> bool:
    return parts.join(lambda: (tmp_path / "joined").write_text(str([value for part in parts.read() for value in part])))


def share(tmp_path: Path, rank: int, world_size: int) -> None:
    parts = parts_in(tmp_path)
    work(parts, rank, world_size)
    join(tmp_path, parts)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_processes_share_all_items_and_the_last_one_joins_them(tmp_path: Path, world_size: int):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=share, args=(tmp_path, rank, world_size)) for rank in range(world_size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "joined").read_text() == str([item**2 for item in range(COUNT)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["joined"]


def test_what_was_done_before_a_kill_is_not_done_again(tmp_path: Path):
    work(parts_in(tmp_path), most=2)
    again = parts_in(tmp_path)
    assert again.missing() == [2, 3, 4, 5]
    assert [again.missing(rank, 2) for rank in (0, 1)] == [[2, 4], [3, 5]]
    assert not join(tmp_path, again)
    work(again)
    assert join(tmp_path, again) and not join(tmp_path, again)


def test_a_process_that_comes_late_finds_nothing_to_do(tmp_path: Path):
    parts = parts_in(tmp_path)
    work(parts)
    assert join(tmp_path, parts)
    late = parts_in(tmp_path)
    assert late.missing(1, 2) == [] and not join(tmp_path, late)
    assert [path.name for path in tmp_path.iterdir()] == ["joined"]


def test_parts_of_another_run_are_refused(tmp_path: Path):
    work(parts_in(tmp_path), most=1)
    with pytest.raises(InputError, match="parts of another run"):
        parts_in(tmp_path, "another run")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds other files"):
        parts_in(tmp_path)


def test_no_items_are_joined_at_once(tmp_path: Path):
    parts = Parts(tmp_path / "parts", "a run", 0, SIZE, (tmp_path / "joined").exists)
    assert join(tmp_path, parts) and (tmp_path / "joined").read_text() == "[]"
