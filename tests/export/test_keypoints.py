"""Keypoints of heatmaps are found where Detectron2 finds them, in every recording."""

import pytest
import torch
from detectron2.structures.keypoints import heatmaps_to_keypoints
from torch import nn

from sact_det.export.keypoints import find_keypoints
from sact_det.export.programs import FORMATS, Axis, recording, write_program

SIDE, KEYPOINTS = 10, 3


class Keypoints(nn.Module):
    """Of boxes [R, 4] and, behind them in a row, their heatmaps."""

    def forward(self, rows):
        maps = rows[:, 4:].reshape(-1, KEYPOINTS, SIDE, SIDE)
        return {"keypoints": find_keypoints(maps, rows[:, :4])}


def rows(number, generator=None):
    generator = generator or torch.Generator().manual_seed(number)
    corner, size = torch.rand(number, 2, generator=generator) * 50, torch.rand(number, 2, generator=generator) * 70
    maps = torch.randn(number, KEYPOINTS * SIDE * SIDE, generator=generator)
    return torch.cat((corner, corner + size, maps), 1)


def expected(boxes_and_maps):
    return heatmaps_to_keypoints(boxes_and_maps[:, 4:].reshape(-1, KEYPOINTS, SIDE, SIDE), boxes_and_maps[:, :4])


@pytest.mark.parametrize("kind", list(FORMATS))
def test_a_recording_finds_the_keypoints_of_any_number_of_boxes(tmp_path, kind):
    for package in FORMATS[kind].packages:
        pytest.importorskip(package)
    write_program(kind, Keypoints(), rows(3), {0: Axis("regions")}, tmp_path / "x")
    program = FORMATS[kind].load(tmp_path / "x")
    for number in (1, 3, 40):
        torch.testing.assert_close(program(rows(number))["keypoints"], expected(rows(number)), rtol=0, atol=1e-4)
    if kind != "torch_export":  # there the number of rows of this file is 1 or more
        assert program(rows(0))["keypoints"].shape == (0, KEYPOINTS, 4)


def test_a_box_of_less_than_a_pixel_has_its_keypoint_in_one():
    small = rows(4)
    small[:, 2:4] = small[:, :2] + 0.3
    with recording():
        found = torch.jit.trace(Keypoints(), (rows(2),), strict=False, check_trace=False)(small)["keypoints"]
    torch.testing.assert_close(found, expected(small), rtol=0, atol=1e-4)
    assert torch.equal(found[..., :2], (small[:, None, :2] + 0.5).expand(-1, KEYPOINTS, -1))
