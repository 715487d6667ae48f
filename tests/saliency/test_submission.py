"""What is written for the benchmark, and raw maps of a folder, hold every image at its own size; a test set will do."""

import zipfile

import cv2
import h5py
import numpy as np
import pytest
from cat2000_folder import write_cat2000_folder
from command_lines import load_tool
from random_detector import write_random_detector
from random_weights import write_random_weights

from sact_det.tasks import load_config
from saliency.extraction import PonderModel
from saliency.hdf5_maps import Hdf5Maps
from saliency.postprocess import PostProcessing, min_max, resize
from saliency.stimuli import read_stimuli

CLASSIFIER, DETECTOR = "configs/tests/tiny_classifier.yaml", "configs/tests/tiny.yaml"

evaluate = load_tool("evaluate_saliency")
export = load_tool("export_ponder")


@pytest.fixture
def folder(tmp_path):
    """Images without fixations, maps of another size, and log densities."""
    root = write_cat2000_folder(tmp_path / "testSet")
    for path in (root / "FIXATIONLOCS").rglob("*.mat"):
        path.unlink()
    with h5py.File(tmp_path / "densities.h5", "w") as file:
        for number, image in enumerate(read_stimuli(tmp_path)):
            values = np.random.default_rng(number).random((18, 32)).astype(np.float32)
            (tmp_path / "maps" / image.category).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "maps" / f"{image.name}.npy", values)
            powers = np.random.default_rng(number).random(image.shape)
            file[f"{image.name}.jpg"] = np.log(powers / powers.sum())
    return tmp_path


def submit(folder, *options):
    sources = ["--maps", "our maps", str(folder / "maps"), "--densities", "densities", str(folder / "densities.h5")]
    evaluate.main(["--dataset", str(folder / "testSet"), "--submission", str(folder / "out"), *sources, *options])
    return folder / "out/our_maps.zip", folder / "out/densities.h5"


def test_a_submission_has_maps_of_the_images_size_and_densities_as_pysaliency_names_them(folder):
    archive, densities = submit(folder)
    dataset = read_stimuli(folder / "testSet")
    assert len(dataset) == 8 and dataset[0].name == "Action/001"
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == [f"{image.name}.png" for image in dataset]
        for image in dataset:
            levels = cv2.imdecode(np.frombuffer(file.read(f"{image.name}.png"), np.uint8), cv2.IMREAD_UNCHANGED)
            made = resize(np.load(folder / "maps" / f"{image.name}.npy"), image.shape)
            assert levels.dtype == np.uint16 and levels == pytest.approx(np.rint(min_max(made) * 65535), abs=1)
    with h5py.File(densities) as file:
        assert file["Social/010.jpg"].dtype == np.float32 and file["Social/010.jpg"].compression == "gzip"
    for image in dataset:
        found = Hdf5Maps(densities, dataset)(image.name)
        assert found.shape == image.shape and np.exp(found.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


def test_one_blur_and_multiplier_are_applied_to_submitted_maps(folder):
    archive, _ = submit(folder, "--sigmas", "2", "--multipliers", "0.5")
    image = read_stimuli(folder)[3]
    chain = PostProcessing(sigma=2, multiplier=0.5)
    expected = min_max(chain(np.load(folder / "maps" / f"{image.name}.npy"), image.shape).astype(np.float64))
    with zipfile.ZipFile(archive) as file:
        levels = cv2.imdecode(np.frombuffer(file.read(f"{image.name}.png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert levels == pytest.approx(expected * 65535, abs=1)


def test_pysaliency_reads_a_submission_back(pysaliency, folder, caplog):
    with caplog.at_level("INFO"):
        submit(folder)
    assert caplog.text.count("pysaliency reads 8 images") == 2


@pytest.mark.parametrize("kind", ["npy", "png", "h5"])
@pytest.mark.parametrize("config", [CLASSIFIER, DETECTOR])
def test_a_folders_ponder_maps_have_the_images_size_and_the_models_values(folder, tmp_path, config, kind):
    weights = tmp_path / "weights.pth"
    if config == CLASSIFIER:
        write_random_weights(weights, load_config(config))
    else:
        write_random_detector(weights, config)
    output = tmp_path / ("maps.h5" if kind == "h5" else "written")
    options = [] if kind == "h5" else ["--format", kind]
    arguments = ["--config-file", config, "--input", str(folder / "testSet/Stimuli"), "--output", str(output)]
    export.main([*arguments, "--image-size", "64", *options, "MODEL.WEIGHTS", str(weights)])
    model = PonderModel(load_config(config, ["MODEL.WEIGHTS", str(weights)]), 64)
    dataset = read_stimuli(folder)
    image = dataset[5]
    expected = resize(model(image.pixels()), image.shape, "nearest")
    if kind == "h5":
        found = Hdf5Maps(output, dataset)(image.name)
    elif kind == "npy":
        found = np.load(output / f"{image.name}.npy")
    else:
        found = cv2.imread(str(output / f"{image.name}.png"), cv2.IMREAD_UNCHANGED) / 256
    assert found.shape == image.shape and found == pytest.approx(expected, abs=1 / 512 if kind == "png" else 0)


BAD = {
    "nothing to write to": ([], "give one of --output and --submission"),
    "no model": (["--submission", "out", "--center-only"], "--submission takes models, and one value"),
    "a grid": (["--submission", "out", "--sigmas", "1", "2"], "--submission takes models, and one value"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_submitted_is_named(folder, capsys, options, message):
    with pytest.raises(SystemExit):
        evaluate.main(["--dataset", str(folder / "testSet"), "--maps", "a", str(folder / "maps"), *options])
    assert message in capsys.readouterr().err


def test_a_density_that_is_none_leaves_no_file(folder, capsys):
    with h5py.File(folder / "densities.h5", "r+") as file:
        file["Social/010.jpg"][...] = 1
    with pytest.raises(SystemExit):
        submit(folder)
    assert "a log density must sum to 1 after exp" in capsys.readouterr().err
    assert not (folder / "out/densities.h5").exists()
