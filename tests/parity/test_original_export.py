"""What is exported for the original program's checkpoints is what the original program gave out."""

import h5py
import numpy as np
import pytest
from oracle import CASES, Case, original_network

import sact_det.engine  # noqa: F401
from sact_det.classification.meta_arch import SACTClassifier
from sact_det.classification.ponder_export import export_ponder
from sact_det.engine.reference import Reference


def classifier(case: Case) -> SACTClassifier:
    model = SACTClassifier(
        spec=case.model.spec,
        num_classes=case.settings["num_classes"],
        tau=0.0,
        label_smoothing=0.0,
        pixel_mean=(127.5,) * 3,
        pixel_std=(127.5,) * 3,
        reference=Reference(case.model.spec, case.settings["num_classes"]),
    )
    model.load_state_dict(case.model.state_dict())
    return model


@pytest.fixture(params=CASES, scope="module")
def exported(request, tmp_path_factory):
    """A case, and what is in the file, written in two batches."""
    case = original_network(request.param)
    path = tmp_path_factory.mktemp("export") / "ponder.h5"
    batches = [[{"image": 127.5 * image + 127.5, "file_name": "image.png"}] for image in case.images]
    assert export_ponder(classifier(case), batches, path) == len(case.images)
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda key, item: arrays.update({key: item[()]} if isinstance(item, h5py.Dataset) else {}))
        scopes = list(file.attrs["block_scopes"])
    return case, scopes, arrays


def expected_keys(case: Case) -> set[str]:
    per_block = {"none": [], "act": [], "sact": []}
    per_block["act"] = per_block["sact"] = ["ponder_cost", "num_units", "halting_distribution"]
    keys = {f"{theirs}/{key}" for _, theirs in case.block_names for key in ["flops", *per_block[case.halting]]}
    maps = {"ponder_cost_map", "num_units_map"} if case.halting == "sact" else set()
    return keys | maps | {"images", "flops", "file_names"}


def test_the_keys_are_the_originals_and_the_file_names(exported):
    case, scopes, arrays = exported
    assert scopes == [theirs for _, theirs in case.block_names]
    assert arrays.keys() == expected_keys(case)


def test_shapes_and_numbers_are_the_originals(exported):
    case, _, arrays = exported
    for key in expected_keys(case) - {"num_units_map", "file_names"}:
        expected, actual = case.expected[key], arrays[key]
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        if expected.dtype.kind == "i":
            np.testing.assert_array_equal(actual, expected)
        else:
            np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=1e-5)


def test_the_map_of_units_follows_the_rule_of_the_map_of_ponder_costs(exported):
    case, scopes, arrays = exported
    if case.halting != "sact":
        assert "num_units_map" not in arrays
        return
    height, width = case.images.shape[2:]
    expected = np.zeros((len(case.images), height, width), np.int32)
    for units in (case.expected[f"{scope}/num_units"] for scope in scopes):
        for y in range(height):
            for x in range(width):
                cell = [
                    min(int(np.floor(np.float32(pixel) * (np.float32(cells) / np.float32(pixels)))), cells - 1)
                    for pixel, cells, pixels in zip((y, x), units.shape[1:], (height, width))
                ]
                expected[:, y, x] += units[:, cell[0], cell[1]]
    assert arrays["num_units_map"].dtype == np.int32
    np.testing.assert_array_equal(arrays["num_units_map"], expected)
