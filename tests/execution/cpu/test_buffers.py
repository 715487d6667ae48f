"""Memory that is lent serves again, but never while a tensor lies in it."""

import threading

import pytest
import torch
from small_networks import images, randomize

from sact_det.execution import set_execution
from sact_det.execution.cpu import buffers, library
from sact_det.execution.cpu.buffers import lend_rows
from sact_det.network.resnet_v2 import ResNetV2Spec

SHAPE = (3, 5, 7, 11)  # [N, H, W, C]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_are_channels_last_and_of_their_type(dtype: torch.dtype):
    tensor = lend_rows(*SHAPE, dtype=dtype).fill_(1.5)
    assert tensor.shape == (3, 11, 5, 7) and tensor.dtype == dtype
    assert tensor.is_contiguous(memory_format=torch.channels_last) and tensor.sum() == 1.5 * tensor.numel()
    assert lend_rows(0, 5, 7, 11, dtype).shape == (0, 11, 5, 7)


def test_a_view_a_detached_tensor_and_a_graph_keep_memory_from_being_lent():
    for keep in (lambda x: x[1:, :, 2], lambda x: x.detach(), lambda x: torch.ones((), requires_grad=True) * x):
        tensor = lend_rows(*SHAPE).fill_(2.0)
        kept, place = keep(tensor), tensor.data_ptr()
        del tensor
        assert lend_rows(*SHAPE).data_ptr() != place
        del kept
        assert place in {one.data_ptr() for one in [lend_rows(*SHAPE) for _ in range(4)]}


def test_threads_that_ask_at_a_time_get_memory_of_their_own():
    found = []

    def ask() -> None:
        for value in range(200):
            tensor = lend_rows(*SHAPE).fill_(value)
            found.append(bool((tensor == value).all()))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 800 and all(found)


def test_much_memory_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(buffers, "_returned", {})
    for most, kept in ((2**13, 1), (2**12, 0)):
        monkeypatch.setattr(buffers, "_MOST_KEPT", most)
        buffers._returned.clear()
        lend_rows(*SHAPE)  # 4,620 bytes
        assert sum(map(len, buffers._returned.values())) == kept


@torch.no_grad()
@pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))
def test_outputs_of_a_block_stay_and_are_zero_at_padding_whatever_lay_there():
    block = randomize(ResNetV2Spec(units=(3,), base_channels=8).build_block(1), images(2, 9, 8, 64)).eval()
    set_execution(block, "perforated")
    x, sizes = images(2, 9, 8, 64), [(9, 8), (5, 4)]
    first, _ = block(x, sizes)
    copy = first.clone()
    block(3 * x)  # its memory comes back full of numbers
    second, _ = block(x, sizes)
    assert torch.equal(first, copy) and torch.equal(second, copy)
    assert not second[1, :, 5:].any() and not second[1, :, :, 4:].any()
