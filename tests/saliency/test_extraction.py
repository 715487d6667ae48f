"""Extracted maps are the model's own, are made once, and do not depend on how many processes make them."""

import cv2
import numpy as np
import pytest
import torch
from cat2000_folder import write_cat2000_folder
from random_detector import write_random_detector
from random_weights import write_random_weights
from torch.multiprocessing import ProcessExitedException

from sact_det.base.errors import InputError
from sact_det.classification.predictor import ClassPredictor
from sact_det.classification.preprocessing import whole_image
from sact_det.detection.predictor import Predictor
from sact_det.tasks import load_config
from saliency import extraction
from saliency.cat2000 import read_cat2000
from saliency.extraction import PonderModel, extract_maps, fingerprint

CLASSIFIER, DETECTOR = "configs/tests/tiny_classifier.yaml", "configs/tests/tiny.yaml"
EDGE = 96


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_random_weights(folder / "classifier.pth", load_config(CLASSIFIER))
    write_random_detector(folder / "detector.pth", DETECTOR)
    return {CLASSIFIER: str(folder / "classifier.pth"), DETECTOR: str(folder / "detector.pth")}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return read_cat2000(write_cat2000_folder(tmp_path_factory.mktemp("cat2000"), shape=(72, 128)))


def config(path, weights, *overrides):
    return load_config(path, ["MODEL.WEIGHTS", weights[path], *overrides])


@pytest.fixture
def made(monkeypatch):
    """How many maps were made."""
    count = []
    original = PonderModel.by_block
    monkeypatch.setattr(PonderModel, "by_block", lambda self, image: count.append(1) or original(self, image))
    return count


def test_a_classifiers_map_is_that_of_its_predictor(dataset, weights):
    cfg, image = config(CLASSIFIER, weights), dataset[0].pixels()
    expected = ClassPredictor(cfg)(whole_image(image, EDGE)).ponder.map((54, 96))[0].numpy()
    found = PonderModel(cfg, EDGE)(image)
    assert found.dtype == np.float32 and (found == expected).all() and len(np.unique(found)) > 10


def test_a_detectors_map_is_that_of_its_predictor(dataset, weights):
    sizes = ("INPUT.MIN_SIZE_TEST", "54", "INPUT.MAX_SIZE_TEST", "96")
    cfg, image = config(DETECTOR, weights, *sizes), dataset[0].pixels()
    expected = Predictor(cfg)(image[..., ::-1]).ponder.map((54, 96))[0].numpy()
    found = PonderModel(cfg, EDGE)(image)
    assert found == pytest.approx(expected, abs=1e-5) and len(np.unique(found)) > 10


def test_the_channels_of_an_image_come_in_the_configs_order(dataset, weights):
    flipped = dataset[0].pixels()[..., ::-1]
    maps = [
        PonderModel(config(DETECTOR, weights, "INPUT.FORMAT", form), EDGE)(image)
        for form, image in (("RGB", dataset[0].pixels()), ("BGR", flipped))
    ]
    assert (maps[0] == maps[1]).all()


@pytest.mark.parametrize(("path", "size"), [(CLASSIFIER, (180, 320)), (DETECTOR, (360, 640))])
def test_cat2000s_images_become_the_papers_sizes(path, size, weights):
    edge = extraction.LONGER_EDGE[load_config(path).MODEL.META_ARCHITECTURE]
    assert PonderModel(config(path, weights), edge)(np.zeros((1080, 1920, 3), np.uint8)).shape == size


def test_maps_are_made_once(dataset, weights, tmp_path, made):
    cfg = config(CLASSIFIER, weights)
    maps = extract_maps(cfg, dataset.subset([0, 1]), tmp_path, EDGE)
    assert len(made) == 2
    more = extract_maps(cfg, dataset.subset([0, 1, 2]), tmp_path, EDGE)
    assert len(made) == 3 and (maps("Action/001") == more("Action/001")).all()
    assert (more("Action/004") == PonderModel(cfg, EDGE)(dataset[2].pixels())).all()


def test_what_the_maps_depend_on_makes_them_again(dataset, weights, tmp_path, made):
    one = dataset.subset([0])
    other = tmp_path / "other.pth"
    write_random_weights(other, load_config(CLASSIFIER), seed=1)
    extract_maps(config(CLASSIFIER, weights), one, tmp_path, EDGE)
    for number, (cfg, edge) in enumerate(
        [
            (config(CLASSIFIER, {CLASSIFIER: str(other)}), EDGE),
            (config(CLASSIFIER, weights, "MODEL.SACT.EPS", "0.1"), EDGE),
            (config(CLASSIFIER, weights), EDGE + 1),
        ],
        2,
    ):
        extract_maps(cfg, one, tmp_path, edge)
        assert len(made) == number
    extract_maps(config(CLASSIFIER, weights, "MODEL.SACT.EXECUTION", "perforated"), one, tmp_path, EDGE)
    extract_maps(config(CLASSIFIER, weights, "OUTPUT_DIR", "elsewhere"), one, tmp_path, EDGE)
    assert len(made) == 4


def test_an_image_of_the_same_name_gets_its_own_map(weights, tmp_path, made):
    cfg = config(CLASSIFIER, weights)
    root = write_cat2000_folder(tmp_path / "set", categories=("Action",), numbers=(1,))
    old = extract_maps(cfg, read_cat2000(root), tmp_path / "maps", EDGE)("Action/001")
    path = root / "Stimuli/Action/001.jpg"
    cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    new = extract_maps(cfg, read_cat2000(root), tmp_path / "maps", EDGE)("Action/001")
    assert len(made) == 2 and (old != new).any()


def test_what_is_wrong_in_a_process_is_one_line(weights, tmp_path, monkeypatch):
    def launch_here(function, number, on_gpus, dist_url, args):
        with pytest.raises(SystemExit, match="1"):
            function(*args)
        raise ProcessExitedException("process 0 terminated", error_index=0, error_pid=0, exit_code=1)

    monkeypatch.setattr(extraction, "launch", launch_here)
    dataset = read_cat2000(write_cat2000_folder(tmp_path / "set", categories=("Action",)))
    (tmp_path / "set/Stimuli/Action/002.jpg").write_bytes(b"no image any more")
    with pytest.raises(InputError, match=r"002\.jpg: the image cannot be read: cannot identify image file$"):
        extract_maps(config(CLASSIFIER, weights), dataset, tmp_path / "maps", EDGE, processes=2)


def test_a_process_that_is_killed_is_said(dataset, weights, tmp_path, monkeypatch):
    def launch_killed(function, number, on_gpus, dist_url, args):
        raise ProcessExitedException("process 1 terminated with signal SIGKILL", 1, 0, -9, "SIGKILL")

    monkeypatch.setattr(extraction, "launch", launch_killed)
    with pytest.raises(InputError, match="extraction: process 1 terminated with signal SIGKILL"):
        extract_maps(config(CLASSIFIER, weights), dataset, tmp_path, EDGE, processes=2)


@pytest.mark.parametrize("halting", ["none", "act"])
def test_networks_whose_maps_are_constant_are_refused(halting, dataset, weights, tmp_path):
    with pytest.raises(InputError, match=f"MODEL.SACT.HALTING must be 'sact' .* got '{halting}'"):
        extract_maps(config(CLASSIFIER, weights, "MODEL.SACT.HALTING", halting), dataset, tmp_path)


def test_weights_must_be_there(tmp_path):
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS is empty"):
        fingerprint(load_config(CLASSIFIER, ["MODEL.WEIGHTS", ""]), EDGE)
    with pytest.raises(InputError, match=r"nowhere\.pth: no such weight file"):
        fingerprint(load_config(CLASSIFIER, ["MODEL.WEIGHTS", str(tmp_path / "nowhere.pth")]), EDGE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_any_number_of_processes_share_the_cpu(dataset, weights, tmp_path):
    maps = extract_maps(config(CLASSIFIER, weights), dataset.subset([0]), tmp_path, EDGE, processes=5)
    assert maps("Action/001").shape == (54, 96)
    with pytest.raises(InputError, match="--num-gpus 2: this machine has none; --num-processes 2 share its CPU"):
        extract_maps(config(CLASSIFIER, weights), dataset, tmp_path, EDGE, processes=2, on_gpus=True)
