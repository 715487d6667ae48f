import pytest
import torch


@pytest.fixture(params=[1, 2])
def threads(request):
    """How many threads kernels ask for; files whose tests call kernels run all of them with either number."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
