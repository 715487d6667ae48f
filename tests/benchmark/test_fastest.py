"""A plain part is run by the rival that is fastest at the first of its inputs."""

import pytest
import torch
from small_networks import images
from test_masks import build

from sact_det.benchmark.fastest import FastestProgram, power_of_two
from sact_det.benchmark.networks import dense_part
from sact_det.benchmark.rivals import Rival, TorchRival, Unavailable
from sact_det.benchmark.setting import Setting, relative_difference


def serving_one_shape(name, made):
    """A maker of programs that notes for which shapes they were made."""

    def make(part, x, setting):
        made.append((name, tuple(x.shape)))
        own = TorchRival(name, torch.contiguous_format)(part, x, setting)

        def forward(y):
            assert y.shape == x.shape
            return own.forward(y)

        return Rival(name, own.convert, forward)

    return make


def missing(part, x, setting):
    raise Unavailable("not here")


def test_programs_are_chosen_once_for_shapes_that_are_alike_and_built_for_each():
    part, made = dense_part(build()), []
    makers = {"one": serving_one_shape("one", made), "other": serving_one_shape("other", made), "absent": missing}
    program = FastestProgram("extractor", part, Setting(), list(makers), makers, alike=lambda shape: None)
    large, small = images(1, 48, 64), images(1, 32, 32)
    with torch.no_grad():
        for x in (large, small, large, small):
            assert relative_difference(program(x), part(x)) < 1e-4
    assert made[:2] == [("one", (1, 3, 48, 64)), ("other", (1, 3, 48, 64))]
    assert made[2:] == [(program.ran, (1, 3, 32, 32))]
    (remark,) = program.remarks
    assert remark.startswith(f"Rivals' extractor at 1x3x48x64, fastest first: {program.ran} (")
    assert program.absent == {"absent": "not here"}
    program.forget()
    program(small)
    program.forget()  # the large one has not been met since
    program(small)
    assert len(made) == 3
    program(large)
    assert made[3:] == [(program.ran, (1, 3, 48, 64))]


def test_a_program_that_serves_any_shape_is_built_once():
    part, made = dense_part(build()), []

    def make(part, x, setting):
        made.append(x.shape)
        return TorchRival("eager", folds=False)(part, x, setting)

    program = FastestProgram("extractor", part, Setting(), ["eager"], {"eager": make}, alike=lambda shape: None)
    for x in (images(1, 48, 64), images(1, 32, 32)):
        program(x)
    assert len(made) == 1


def test_nothing_that_runs_is_told_with_its_reasons():
    program = FastestProgram("block 4", dense_part(build()), Setting(), ["absent"], {"absent": missing})
    with pytest.raises(RuntimeError, match=r"nothing runs block 4 at 1x3x32x32 \(absent: not here\)"):
        program(images(1, 32, 32))


@pytest.mark.parametrize(("one", "other", "alike"), [(33, 63, True), (63, 64, False), (1, 1, True)])
def test_numbers_of_regions_between_the_same_powers_of_two_are_alike(one, other, alike):
    shapes = [torch.Size((number, 1024, 14, 14)) for number in (one, other)]
    assert (power_of_two(shapes[0]) == power_of_two(shapes[1])) == alike
