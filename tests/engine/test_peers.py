"""Signs of life in the store of a group: who gives none is named."""

from typing import Iterator

import pytest
import torch.distributed as dist
from detectron2.engine.launch import _find_free_port

from sact_det.engine import peers
from sact_det.engine.peers import Peers

HOSTS = ["node7", "node7", "node8"]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PERIOD", 0.05)
    monkeypatch.setattr(peers, "SILENCE", 2.0)


@pytest.fixture
def group() -> Iterator[list[Peers]]:
    """Three processes' worth, in one."""
    store = dist.TCPStore("127.0.0.1", _find_free_port(), is_master=True)
    members = [Peers(store, rank, HOSTS) for rank in range(3)]
    yield members
    for member in members:
        member.leave()


def test_whoever_stops_giving_signs_of_life_is_named_with_its_machine(group: list[Peers]):
    assert group[0].silent() == []
    group[2].leave()
    assert group[0].silent() == ["rank 2 on node8"]
    group[1].leave()
    assert group[0].silent() == ["rank 1 on node7", "rank 2 on node8"]


def test_without_the_store_it_is_the_process_that_kept_it():
    port = _find_free_port()
    store = dist.TCPStore("127.0.0.1", port, is_master=True)
    client = dist.TCPStore("127.0.0.1", port, is_master=False)
    member = Peers(client, 1, HOSTS)
    del store
    assert member.silent() == ["rank 0 on node7"]


def test_a_process_alone_names_nobody():
    peers.leave()
    assert peers.silent() == []
