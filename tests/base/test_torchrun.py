import re

import pytest

from sact_det.base.errors import InputError
from sact_det.base.processes import command_line
from sact_det.base.torchrun import Place, place_by_torchrun

SECOND = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}


def test_the_environment_of_torchrun_says_which_process_this_is():
    assert place_by_torchrun(SECOND) == Place(rank=3, world_size=4, local_rank=1)


@pytest.mark.parametrize("name", SECOND)
def test_a_process_that_torchrun_did_not_start_has_no_place(name: str):
    assert place_by_torchrun({}) is None
    assert place_by_torchrun({**SECOND, name: ""}) is None


@pytest.mark.parametrize("wrong", [{"RANK": "4"}, {"RANK": "-1"}, {"LOCAL_RANK": "7"}, {"WORLD_SIZE": "x"}])
def test_numbers_that_cannot_be_are_one_line(wrong: dict):
    ((name, value),) = wrong.items()
    with pytest.raises(InputError, match=re.escape(f"{name}={value}")):
        place_by_torchrun({**SECOND, **wrong})


def test_a_command_that_shares_its_work_takes_copies_of_torchrun_alone(monkeypatch, capsys):
    for name, value in SECOND.items():
        monkeypatch.setenv(name, value)
    with command_line(by_torchrun=True):
        pass
    with pytest.raises(SystemExit), command_line():
        pass
    monkeypatch.delenv("RANK")
    with pytest.raises(SystemExit), command_line(by_torchrun=True):
        pass
    assert capsys.readouterr().err.count("torchrun has started 4 copies") == 2
