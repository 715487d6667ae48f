"""Lists of positions made on the device are those of an ActiveSet."""

import pytest
import torch

from sact_det.execution.positions.active_set import ActiveSet

pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")
pytestmark = pytest.mark.usefixtures("no_overflow_checks")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    "shape, padded, share",
    [
        ((1, 1, 1), False, 0.0),
        ((1, 1, 1), False, 1.0),
        ((3, 4, 5), False, 0.3),
        ((3, 4, 5), True, 0.3),
        ((3, 4, 5), True, 0.0),
        ((3, 4, 5), True, 1.0),
        ((2, 20, 31), False, 0.05),
        ((2, 20, 31), True, 0.6),
    ],
)
def test_lists_are_those_of_an_active_set(shape: tuple[int, int, int], padded: bool, share: float):
    from sact_det.execution.cuda.position_lists import PositionLists

    generator = torch.Generator().manual_seed(5)
    active = torch.rand(shape, generator=generator) < share
    exists = torch.ones(shape, dtype=torch.bool)
    if padded:
        exists[:, shape[1] // 2 + 1 :] = False
        exists[::2, :, shape[2] // 2 + 1 :] = False
    expected = ActiveSet(active & exists, exists, rings=1)
    lists = PositionLists(exists.to(DEVICE) if padded else None, shape, DEVICE)
    lists.fill(active.to(DEVICE))
    for positions, number, ring in zip(
        (lists.writes, lists.reads), (lists.num_writes, lists.num_reads), expected.rings
    ):
        assert positions[: int(number)].tolist() == ring.tolist()
    counts = (active & exists).flatten(1).sum(1)
    assert lists.offsets.diff().tolist() == counts.tolist() and lists.offsets[0] == 0


@pytest.mark.parametrize("padded", [False, True])
def test_lists_take_whole_images(padded: bool):
    from sact_det.execution.cuda.position_lists import PositionLists

    exists = torch.ones(3, 2, 4, dtype=torch.bool)
    exists[0, :, 3] = not padded
    images_ = torch.tensor([True, False, True])[:, None, None]
    lists = PositionLists(exists.to(DEVICE) if padded else None, (3, 2, 4), DEVICE)
    for active in (images_.to(DEVICE), None):
        lists.fill(active)
        expected = (exists if active is None else exists & images_).flatten().nonzero()[:, 0].tolist()
        assert lists.writes[: int(lists.num_writes)].tolist() == expected
        assert lists.reads[: int(lists.num_reads)].tolist() == expected
