"""metrics.json holds every step once, whatever was killed while it was written."""

import json

import pytest

from sact_det.base.errors import InputError
from sact_det.base.metrics_file import prepare_metrics, read_course, without_superseded


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.json"


def line(step, **values):
    return json.dumps({"iteration": step, "total_loss": 1.0, **values}) + "\n"


def write(path, *steps, end=""):
    path.write_text("".join(line(step) if isinstance(step, int) else step for step in steps) + end)


def steps(path):
    return [values["iteration"] for values in map(json.loads, path.read_text().splitlines())]


@pytest.mark.parametrize(
    ("written", "course"),
    [
        ([19, 39, 59, 79, 59, 79, 99], [19, 39, 59, 79, 99]),  # resumed behind step 39
        ([19, 39, 49, 19, 39, 59], [19, 39, 59]),  # begun anew: 49 was the last step of a shorter training
        ([19, 39, 59, 79, 39, 69], [19, 39, 69]),  # resumed, and made shorter
        ([19, 39, 39, 39, 59, 19], [19]),
        ([19, 39, 59], [19, 39, 59]),
        ([], []),
    ],
)
def test_the_last_line_of_a_step_counts_and_what_was_to_follow_the_earlier_one_does_not(written, course):
    points = [(step, number) for number, step in enumerate(written)]
    kept = without_superseded(points, lambda point: point[0])
    assert [step for step, _ in kept] == course
    assert all(number == max(n for s, n in points if s == step) for step, number in kept)


def test_reading_tells_training_from_evaluation_and_drops_what_a_kill_cut_off(path):
    evaluation = json.dumps({"iteration": 40, "bbox/AP": 3.0}) + "\n"
    write(path, 19, 39, evaluation, 59, 39, evaluation, 59, end=line(79)[:30])
    assert [values["iteration"] for values in read_course(path)] == [19, 39, 59]
    write(path, 19, 39, end=line(59)[:-1])  # whole but for its end
    assert [values["iteration"] for values in read_course(path)] == [19, 39, 59]


def test_numbers_that_are_none_are_read(path):
    path.write_text('{"iteration": 19, "total_loss": 1.5, "bbox/AP": NaN}\n')
    assert read_course(path)[0]["total_loss"] == 1.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"iteration": 19}\nnonsense\n{"iteration": 39}\n',
            'line 2 is no line of metrics with its "iteration": nons',
        ),
        (b"[1]\n", 'line 1 is no line of metrics with its "iteration": [1]'),
        (b'{"total_loss": 1}\n', 'line 1 is no line of metrics with its "iteration": {"total_loss": 1}'),
        (b'{"iteration": "19"}\n', "line 1 is no line of metrics"),
        (b'{"iteration": true}\n', "line 1 is no line of metrics"),
        (b'{"iteration": 1.5}\n', "line 1 is no line of metrics"),
        (b"[" * 100_000 + b"\n", "line 1 is no line of metrics"),
        (b"x" * 1_000_000 + b"\n", 'line 1 is no line of metrics with its "iteration": ' + "x" * 80 + "..."),
        (b"\x80\x04\x00\x95", "not a readable text file: it is binary"),
        (b"\xff\n", "not a readable text file: byte 0xff in line 1"),
    ],
)
def test_a_file_that_holds_something_else_is_named_in_one_line(path, content, message):
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_course(path)
    assert str(caught.value).startswith(f"{path}: {message}") and len(str(caught.value)) < 400


def test_a_training_that_goes_on_keeps_the_steps_before(path):
    write(path, 19, 39, 59, 79)
    prepare_metrics(path, first_step=60)
    assert steps(path) == [19, 39, 59]
    prepare_metrics(path, first_step=40)
    assert steps(path) == [19, 39]
    assert list(path.parent.iterdir()) == [path]


def test_a_training_that_is_prolonged_keeps_the_evaluation_at_its_former_end(path):
    evaluation = json.dumps({"iteration": 60, "bbox/AP": 3.0}) + "\n"
    write(path, 19, 39, 59, evaluation)
    before = path.read_text()
    prepare_metrics(path, first_step=60)
    assert path.read_text() == before


def test_what_a_kill_cut_off_is_dropped_before_a_line_is_appended(path):
    write(path, 19, 39, end=line(59)[:20])
    prepare_metrics(path, first_step=50)
    assert path.read_text() == line(19) + line(39)
    write(path, 19, 39, end=line(59)[:-1])
    prepare_metrics(path, first_step=60)
    assert path.read_text() == line(19) + line(39) + line(59)


def test_a_training_that_begins_anew_renames_what_an_earlier_one_wrote(path):
    for number in (1, 2):
        write(path, number)
        prepare_metrics(path, first_step=0)
        assert not path.exists() and steps(path.with_name(f"metrics.{number}.json")) == [number]
    prepare_metrics(path, first_step=0)
    path.touch()
    prepare_metrics(path, first_step=0)  # nothing is in it
    assert sorted(file.name for file in path.parent.iterdir()) == ["metrics.1.json", "metrics.2.json", "metrics.json"]


def test_a_file_that_cannot_be_read_is_kept_under_another_name(path, caplog):
    path.write_bytes(b"\x80binary\n")
    prepare_metrics(path, first_step=40)
    assert not path.exists() and path.with_name("metrics.1.json").read_bytes() == b"\x80binary\n"
    assert "kept as" in caplog.text and "byte 0x80 in line 1" in caplog.text


def test_a_full_disk_costs_no_line(path, full_disk):
    write(path, *range(2000))
    before = path.read_bytes()
    with full_disk(1000), pytest.raises(OSError, match=r"metrics\.json"):
        prepare_metrics(path, first_step=1900)
    assert path.read_bytes() == before
