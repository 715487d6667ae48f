"""What is taken for the same results, and what is not."""

import pytest
import torch

from sact_det.base.errors import InputError
from sact_det.export.verification import differences, of_different_sizes


def outputs():
    return {
        "boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 40.0, 30.0], [6.0, 5.0, 40.0, 30.0]]),
        "scores": torch.tensor([0.9, 0.5, 0.5]),
        "classes": torch.tensor([1, 0, 2]),
        "ponder_map": torch.full((50, 40), 3.0),
        "flops": torch.tensor(1_000_000),
    }


def test_detections_of_equal_score_may_change_places():
    order = [0, 2, 1]
    swapped = {name: value[order] if value.dim() and len(value) == 3 else value for name, value in outputs().items()}
    assert set(differences(outputs(), swapped).values()) == {0.0}


def test_positions_that_hang_on_rounding_may_halt_elsewhere():
    other = outputs()
    other["ponder_map"][0, :4] += 1
    other["flops"] += 500
    assert differences(outputs(), other)["ponder_map"] == 1


@pytest.mark.parametrize(
    ("name", "index", "value", "said"),
    [
        ("boxes", (1, 2), 40.1, r"boxes differ by 0\.1 pixels"),
        ("scores", 0, 0.902, r"scores differ by 0\.002"),
        ("classes", 0, 0, r"classes differ by 1|boxes differ"),
        ("ponder_map", (slice(0, 5), 0), 4.0, r"ponder_map differs at 0\.25% of the positions"),
        ("flops", (), 1_003_000, r"flops differs by 0\.30%"),
    ],
)
def test_what_differs_by_more_is_another_result(name, index, value, said):
    other = outputs()
    other[name][index] = value
    with pytest.raises(InputError, match=said):
        differences(outputs(), other)


def test_an_object_more_is_another_result():
    other = outputs()
    for name in ("boxes", "scores", "classes"):
        other[name] = other[name][:2]
    with pytest.raises(InputError, match="it finds 2 objects where PyTorch finds 3"):
        differences(outputs(), other)


def test_features_are_compared_in_times_the_largest():
    x = torch.tensor([[1000.0, 1.0]])
    assert differences({"p2": x}, {"p2": x + 0.1})["p2"] == pytest.approx(1e-4, rel=1e-3)
    with pytest.raises(InputError, match=r"p2 differ by 0\.01 of the largest"):
        differences({"p2": x}, {"p2": x + 10})


def test_photographs_of_one_size_are_cropped_to_three():
    images = of_different_sizes([torch.rand(3, 64, 80)] * 2)
    assert len(images) >= 3 and len({image.shape for image in images}) == 3
    assert torch.equal(images[2], images[0][:, :64, :60])
