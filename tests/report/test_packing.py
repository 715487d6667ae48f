import base64
import io

import numpy as np
import pytest
from PIL import Image

from sact_det.report.packing import STEPS, pack_map, pack_maps, pack_photograph, unpack_map


@pytest.mark.parametrize("step", STEPS)
def test_a_map_comes_back_to_half_a_step(step):
    values = np.random.default_rng(0).uniform(0, 21, (7, 13)).astype(np.float32)
    back = unpack_map(pack_map(values, step))
    assert back.shape == values.shape and np.abs(back - values).max() <= step / 2 + 1e-6


def test_values_that_do_not_fit_into_16_bits_are_refused():
    with pytest.raises(ValueError, match=r"from 0 to 65\.535"):
        pack_map(np.full((2, 2), 66.0), 0.001)
    with pytest.raises(ValueError, match="from 0"):
        pack_map(np.full((2, 2), -1.0), 0.001)


def test_maps_take_the_finest_step_that_there_is_room_for():
    maps = [np.random.default_rng(n).uniform(0, 8, (40, 50)) for n in range(3)]
    finest = pack_maps(maps, 1e9)
    assert {one.step for one in finest} == {STEPS[0]}
    room = sum(len(one.values) for one in finest) - 1
    (coarser,) = {one.step for one in pack_maps(maps, room)}
    assert coarser == STEPS[1]
    assert {one.step for one in pack_maps(maps, 0)} == {STEPS[-1]}


def test_values_of_thousands_have_a_step_of_their_own():
    (packed,) = pack_maps([np.array([[0.0, 1e6]])], 1e9)
    assert unpack_map(packed) == pytest.approx(np.array([[0.0, 1e6]]))


def test_a_photograph_is_at_most_640_pixels_long_and_keeps_its_aspect_and_colours():
    address = pack_photograph(np.full((1000, 2000, 3), (200, 40, 90), np.uint8), 1e9)
    image = Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/webp;base64,"))))
    assert image.size == (640, 320)
    assert np.abs(np.asarray(image).astype(int) - (200, 40, 90)).max() <= 8  # WebP is lossy


def test_a_photograph_that_has_less_room_takes_less():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert len(pack_photograph(noise, 0)) < len(pack_photograph(noise, 1e9))
