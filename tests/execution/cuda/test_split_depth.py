"""Products whose depth is cut where a list is short: the same numbers, whatever part comes last."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed: there is none for this platform")

import triton
import triton.language as tl

from sact_det.execution.cuda import products, tiles, unit
from sact_det.execution.cuda.position_lists import PositionLists
from sact_det.execution.cuda.unit import launch_unit, new_workspace
from sact_det.execution.folded import FoldedUnit

pytestmark = [
    pytest.mark.usefixtures("no_overflow_checks"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="orders the programs of Triton's interpreter"),
]
CPU = torch.device("cpu")
ERRORS = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 3e-2}
CHANNELS, WIDTH = 40, 12  # no multiples of a tile's sides


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch):
    """A function that sets the order in which the interpreter runs the programs of a launch, by a seed."""
    from triton.runtime.interpreter import interpreter_builder

    place, size = interpreter_builder.set_grid_idx, interpreter_builder.set_grid_dim
    shuffled: dict[str, Tensor] = {}
    seed = 0

    def dimensions(x: int, y: int, z: int) -> None:
        shuffled["x"] = torch.randperm(x, generator=torch.Generator().manual_seed(seed)) if seed else torch.arange(x)
        size(x, y, z)

    def choose(value: int) -> None:
        nonlocal seed
        seed = value

    monkeypatch.setattr(interpreter_builder, "set_grid_dim", dimensions)
    monkeypatch.setattr(interpreter_builder, "set_grid_idx", lambda x, y, z: place(int(shuffled["x"][x]), y, z))
    return choose


@triton.jit
def _work_kernel(found, length, multiprocessors, PARTS: tl.constexpr, STEPS: tl.constexpr, COLUMNS: tl.constexpr):
    tile, part, parts, idle = products.part_of(length, multiprocessors, PARTS, STEPS, COLUMNS, 32, 16)
    place = found + tl.program_id(0) * 4
    tl.store(place, tile)
    tl.store(place + 1, part)
    tl.store(place + 2, parts)
    tl.store(place + 3, 1 - idle.to(tl.int32))


@pytest.mark.parametrize("steps, columns", [(1, 16), (5, 40), (100, 16)])
@pytest.mark.parametrize("length", [0, 1, 32, 33, 200, 1000])
@pytest.mark.parametrize("most", [1, tiles.MAX_PARTS])
def test_every_part_of_every_tile_has_one_program_and_together_they_fill_the_card(length, steps, columns, most):
    count, card = -(-length // 32) * -(-columns // 16), 5
    found = torch.full((max(count, 2 * card), 4), -1, dtype=torch.int32)
    _work_kernel[(len(found),)](found, length, card, PARTS=most, STEPS=steps, COLUMNS=columns)
    busy = found[found[:, 3] == 1]
    (parts,) = set(busy[:, 2].tolist()) or {0}
    assert sorted(map(tuple, busy[:, :2].tolist())) == [(tile, part) for tile in range(count) for part in range(parts)]
    assert parts <= min(most, steps) and (parts <= 1 or len(busy) <= 2 * card)
    if count and parts < min(most, steps):
        assert (parts + 1) * count > 2 * card  # one more would not fit


def unit_of(dtype: torch.dtype, generator: torch.Generator) -> FoldedUnit:
    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    matrices = {"conv1": random(WIDTH, CHANNELS), "conv2": random(WIDTH, 9 * WIDTH), "conv3": random(CHANNELS, WIDTH)}
    vectors = {"scale": CHANNELS, "shift": CHANNELS, "bias1": WIDTH, "bias2": WIDTH, "bias3": CHANNELS}
    return FoldedUnit(
        **{name: matrix.to(dtype) for name, matrix in matrices.items()},
        **{name: random(size) for name, size in vectors.items()},
        projects=False,
        stride=1,
        dilation=1,
    )


def expected(unit: FoldedUnit, state: Tensor, active: Tensor) -> Tensor:
    """The state afterwards in double precision, [N, H, W, C]."""
    x = state.double().movedim(-1, 1)
    scale, shift = (each.double()[:, None, None] for each in (unit.scale, unit.shift))
    conv1, conv2, conv3 = (each.double() for each in (unit.conv1, unit.conv2, unit.conv3))
    y = F.conv2d((scale * x + shift).relu(), conv1[..., None, None], unit.bias1.double()).relu()
    kernel = conv2.view(WIDTH, 3, 3, WIDTH).permute(0, 3, 1, 2)
    y = F.conv2d(y, kernel, unit.bias2.double(), padding=1).relu()
    y = F.conv2d(y, conv3[..., None, None], unit.bias3.double())
    return (x + y * active[:, None]).movedim(1, -1)


def mask_of(pattern: str, size: tuple[int, int, int]) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    if pattern == "all":
        return ~mask
    if pattern == "border":
        mask = ~mask
        mask[:, 1:-1, 1:-1] = False
    elif pattern == "one":
        mask[-1, size[1] // 2, size[2] // 2] = True
    elif pattern == "random":
        mask = torch.rand(size, generator=torch.Generator().manual_seed(2)) < 0.4
    return mask


@pytest.mark.parametrize(
    "dtype, pattern, size",
    [
        *((torch.float32, pattern, (1, 7, 9)) for pattern in ("none", "one", "border", "all", "random")),
        *((torch.float32, "random", size) for size in ((2, 5, 11), (300, 1, 1))),
        (torch.float32, "all", (1, 1, 1)),
        (torch.float16, "random", (1, 7, 9)),
        (torch.bfloat16, "random", (1, 7, 9)),
        (torch.bfloat16, "all", (1, 5, 5)),
    ],
)
def test_a_unit_has_the_same_bits_in_any_order_of_its_programs_and_those_of_whole_products_nearly(
    order, monkeypatch, dtype, pattern, size
):
    generator, active = torch.Generator().manual_seed(1), mask_of(pattern, size)
    monkeypatch.setattr(unit, "_multiprocessors", lambda device: 8)
    own_unit = unit_of(dtype, generator)
    state = torch.randn(*size, CHANNELS, generator=generator).to(dtype)
    lists = PositionLists(None, size, CPU)
    lists.fill(active)
    found, lasting = [], []
    for seed in (0, 1):
        order(seed)
        own, workspace = state.clone().view(-1, CHANNELS), new_workspace(CPU)
        workspace.products.fill_(float("nan"))
        inner, middle = (torch.full((len(own), WIDTH), float("nan"), dtype=dtype) for _ in range(2))
        launch_unit(own_unit, lists, own, inner, middle, None, workspace)
        assert not workspace.arrived.any()
        lasting.append(int((~workspace.products.isnan()).sum()))
        found.append(own.view(state.shape))
    assert all(torch.equal(each, found[0]) for each in found[1:])
    assert len(set(lasting)) == 1 and (lasting[0] > 0) == (pattern != "none")  # something was cut
    assert torch.equal(found[0][~active], state[~active])
    error = (found[0] - expected(own_unit, state, active)).abs().max() / state.abs().max()
    assert error < ERRORS[dtype], float(error)
