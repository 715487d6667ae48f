"""Tensors between host and device."""

import torch

from sact_det.base.transfer import to_device, to_host

CPU = torch.device("cpu")


def test_numbers_arrive_as_whole_numbers_of_their_shape():
    assert to_device([], CPU).shape == (0,) and to_device([], CPU).dtype == torch.int64
    assert torch.equal(to_device([(2, 3), (4, 5)], CPU), torch.tensor([[2, 3], [4, 5]]))


def test_what_comes_to_the_host_has_its_values_and_no_gradient():
    weight = torch.ones(3, requires_grad=True)
    copies = to_host([2 * weight, torch.arange(4), torch.zeros(0, 2)])
    assert [copy.tolist() for copy in copies] == [[2, 2, 2], [0, 1, 2, 3], []]
    assert not any(copy.requires_grad for copy in copies) and copies[2].shape == (0, 2)
    assert to_host([]) == []
