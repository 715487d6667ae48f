"""What the kernels need beside features: sums over images do not grow with the threads that compute them."""

import pytest

from sact_det.execution.cpu import calls, library

pytestmark = pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))

THREADS = (1, 2, 64)
CHANNELS, POSITIONS = 2048, 49  # of a region behind block 4


def unit(kind):
    sizes = {"in_channels": CHANNELS, "width": 512, "out_channels": CHANNELS, "stride": 1, "dilation": 1}
    return kind(**sizes, projects=0)


def inference(regions: int, threads: int, sums: bool) -> int:
    """Floats of a unit of block 4 at all positions of so many regions."""
    positions = regions * POSITIONS
    call = calls.Evaluation(images=regions, num_reads=positions, num_writes=positions, sums=8 if sums else None)
    return calls.kernels().scratch_size(unit(calls.Unit), call, threads)


def training(regions: int, threads: int) -> int:
    positions = regions * POSITIONS
    sites = calls.SitesStruct(images=regions, num_reads=positions, num_writes=positions)
    return calls.kernels().forward_scratch_size(unit(calls.TrainedUnit), sites, threads)


@pytest.mark.parametrize("regions", [1, 1000])
def test_sums_over_images_take_as_much_on_any_number_of_threads(regions: int):
    sizes = {inference(regions, threads, True) - inference(regions, threads, False) for threads in THREADS}
    assert len(sizes) == 1
    assert 0 < sizes.pop() <= regions * (POSITIONS / 8 + 2) * CHANNELS  # one for eight positions, one for an image


@pytest.mark.parametrize("regions", [1, 1000])
def test_what_a_thread_takes_does_not_grow_with_the_images(regions: int):
    one, two, many = (training(regions, threads) for threads in THREADS)
    assert many - one == 63 * (two - one) and two - one == training(1, 2) - training(1, 1)
    one, two, many = (inference(regions, threads, True) for threads in THREADS)
    assert many - one <= 64 * 2**20  # floats; sums of doubles by thread and image were 4 * 2**26
