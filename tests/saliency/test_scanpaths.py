"""Lists of fixations keep viewers, times, order and repetitions; people predict people where it is known who looked."""

import json

import h5py
import numpy as np
import pytest
from command_lines import load_tool
from PIL import Image

from sact_det.base.errors import InputError
from saliency.center_bias import CenterBias
from saliency.fixations import Fixations
from saliency.image_list import read_image_list
from saliency.observers import Observers, _by_others, observer_scores
from saliency.pysaliency_files import read_pysaliency
from saliency.scanpaths import fixations_of_points
from saliency.scores import Reference

SHAPE = (40, 60)
NAMES = ("stimuli/a/1.png", "stimuli/a/2.png", "stimuli/b/1.png", "stimuli/b/2.png")

tool = load_tool("evaluate_saliency")


def gathered(number, rng):
    """Fixations of four viewers around a place of the image's own."""
    place = np.array([(12, 12), (45, 10), (15, 30), (48, 28)][number])
    points = np.clip(rng.normal(place, 3, (24, 2)), 0, np.array(SHAPE[::-1]) - 1)
    return points, np.repeat(["dora", "anna", "carl", "bert"], 6)


@pytest.fixture
def folder(tmp_path):
    """Images, and their fixations as .json, as .csv and in pysaliency's files."""
    rng = np.random.default_rng(0)
    entries, rows = [], ["image,x,y,viewer,time"]
    trains = {key: [] for key in ("xs", "ys", "ts", "ns", "subjects")}
    for number, name in enumerate(NAMES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)).save(tmp_path / name)
        points, viewers = gathered(number, rng)
        times = np.tile([3, 1, 2, 0, 5, 4], 4)
        entries.append(
            {"image": name, "fixations": points.tolist(), "viewers": viewers.tolist(), "times": times.tolist()}
        )
        rows += [f"{name},{x},{y},{viewer},{time}" for (x, y), viewer, time in zip(points, viewers, times)]
        for index, viewer in enumerate(("dora", "anna", "carl", "bert")):
            own = points[viewers == viewer][np.argsort(times[:6])]
            filled = np.full((3, 8), np.nan)
            filled[:, :6] = own[:, 0], own[:, 1], np.arange(6)
            for key, values in zip(("xs", "ys", "ts", "ns", "subjects"), (*filled, number, index)):
                trains[key].append(values)
    (tmp_path / "list.json").write_text(json.dumps(entries))
    (tmp_path / "list.csv").write_text("\n".join(rows))
    with h5py.File(tmp_path / "fixations.hdf5", "w") as file:
        file.attrs["type"], file.attrs["version"] = np.bytes_("FixationTrains"), np.bytes_("1.2")
        for key, values in trains.items():
            file[f"train_{key}"] = np.array(values)
    with h5py.File(tmp_path / "stimuli.hdf5", "w") as file:
        file.attrs["type"], file.attrs["version"] = np.bytes_("FileStimuli"), np.bytes_("2.1")
        file.create_dataset("filenames", data=[name.encode() for name in NAMES], dtype=h5py.special_dtype(vlen=str))
        file["category"] = np.array([0, 0, 1, 1])
    return tmp_path


def test_every_layout_has_the_same_fixations_viewers_and_order(folder):
    from_json, from_csv = (read_image_list(folder / f"list.{kind}") for kind in ("json", "csv"))
    stored = read_pysaliency(folder)
    assert [image.name for image in stored] == ["a/1", "a/2", "b/1", "b/2"]
    assert list(stored.categories) == ["0", "1"] and stored.counted == from_csv.counted == "fixations"
    for one, two, three in zip(from_json, from_csv, stored):
        for found in (one.fixations, two.fixations):
            assert (np.diff(found.time.reshape(4, 6)) > 0).all() and found.viewer.tolist() == np.repeat(
                range(4), 6
            ).tolist()
        assert (one.fixations.pixels == two.fixations.pixels).all()
        for viewer, name in enumerate((1, 3, 2, 0)):  # sorted names there, the order of the file here
            own = one.fixations.chosen(one.fixations.viewer == viewer)
            other = three.fixations.chosen(three.fixations.viewer == name)
            assert viewer == {1: 0, 3: 1, 2: 2, 0: 3}[name] and own.pixels.tolist() == other.pixels.tolist()


def test_repeated_fixations_count_and_a_scaled_copy_keeps_who_looked():
    found = fixations_of_points([[3.7, 2], [3, 2.9], [5, 5]], SHAPE, [1, 1, 2])
    assert found.counts()[2, 3] == 2 and not found.of_map
    scaled = found.scaled_to((80, 120))
    assert scaled.viewer.tolist() == [0, 0, 1] and scaled.x.tolist() == [6, 6, 10]


def test_version_1_1_of_cat2000_counts_from_1_and_drops_repetitions_of_the_viewer_and_what_lies_outside():
    points = [[1, 1], [1, 1], [60, 40], [61, 40], [60, 40], [0.5, 3], [1, 1]]
    viewers = [0, 0, 0, 0, 0, 0, 1]
    found = fixations_of_points(points, SHAPE, viewers, convention="cat2000-1.1")
    assert list(zip(found.x.tolist(), found.y.tolist(), found.viewer.tolist())) == [(0, 0, 0), (59, 39, 0), (0, 0, 1)]
    with pytest.raises(InputError, match="3 of 7 fixations lie outside the image of 60x40"):
        fixations_of_points(points, SHAPE, viewers)


def test_the_others_density_at_a_fixation_is_that_of_the_blurred_map_of_the_others(folder):
    fixations = read_image_list(folder / "list.csv")[0].fixations
    found = _by_others(fixations, 0.05)
    for index in range(len(fixations)):
        others = fixations.chosen(fixations.viewer != fixations.viewer[index]).density(0.05 * 60)
        assert found[index] == pytest.approx(others[fixations.y[index], fixations.x[index]], abs=1e-12)


def test_fitted_densities_sum_to_one_and_people_are_likelier_under_them_than_under_the_centre_bias(folder):
    dataset = read_image_list(folder / "list.csv")
    bias = CenterBias.fit([image.fixations for image in dataset])
    observers = Observers.fit(dataset, bias)
    assert sum(observers.weights) == pytest.approx(1) and observers.weights[0] > 0.5
    everyone = np.ones(len(dataset[1].fixations), bool)
    density, own = observers.log_density(1, everyone), dataset[1].fixations
    assert np.exp(density).sum() == pytest.approx(1)
    assert density[own.y, own.x].mean() > bias.log_likelihoods(1).mean() + 1


def test_the_inter_observer_limit_is_the_mean_gain_of_every_fixation_predicted_by_the_other_viewers(folder):
    dataset = read_image_list(folder / "list.csv")
    bias = CenterBias.fit([image.fixations for image in dataset])
    observers = Observers.fit(dataset, bias)
    own, center, uniform = observers.weights
    for index, image in enumerate(dataset):
        at_center = np.exp(bias.log_likelihoods(index))
        by_others = _by_others(image.fixations, observers.width)
        predicted = own * by_others + center * at_center + uniform / (SHAPE[0] * SHAPE[1])

        def reference(chosen, index=index):
            return Reference(dataset, index, 3.0, center_bias=bias, chosen=chosen)

        limit, gold = observer_scores(observers, index, ["gain_over_center_bias"], reference)[:, 0]
        assert limit == pytest.approx(np.mean(np.log2(predicted / at_center)), abs=1e-9) and gold > limit


@pytest.mark.parametrize("protocol", ["mit", "tuebingen"])
def test_the_last_rows_are_peoples_and_above_all_others(folder, protocol):
    options = ["--protocol", protocol, "--as-is", "--center-only", "--no-sheet", "--density-sigma", "3"]
    tool.main(["--dataset", str(folder), "--output", str(folder / "out"), "--processes", "1", *options])
    found = json.loads((folder / "out/results.json").read_text())
    rows = {(row["model"], row["map"]): row["overall"] for row in found["rows"]}
    assert list(rows)[-2:] == [("people", "one viewer by the others"), ("people", "gold standard")]
    name = {"mit": "auc_judd", "tuebingen": "gain_over_center_bias"}[protocol]
    limit, gold = (rows["people", stage][name]["mean"] for stage in ("one viewer by the others", "gold standard"))
    assert gold > limit > max(own[name]["mean"] for (model, _), own in rows.items() if model != "people")
    assert found["scored"] == "fixations" and "Scored are fixations" in (folder / "out/table.md").read_text()


BAD = {
    "viewers": ({"viewers": ["a"]}, "1 viewers of 24 fixations"),
    "times": ({"times": ["early"] * 24}, "times of fixations must be numbers"),
    "no list": ({"viewers": "anna"}, "entry 1: 'viewers' must be a list; got str"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_with_a_list_is_named(folder, change, message):
    content = json.loads((folder / "list.json").read_text())
    content[0].update(change)
    (folder / "list.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_image_list(folder / "list.json")


def test_what_is_wrong_with_pysaliencys_files_is_named(folder):
    with h5py.File(folder / "fixations.hdf5", "r+") as file:
        file.attrs["type"] = np.bytes_("Stimuli")
    with pytest.raises(InputError, match=r"fixations.hdf5: holds Stimuli; expected Fixations or FixationTrains"):
        read_pysaliency(folder)
    (folder / "fixations.hdf5").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"fixations.hdf5: not a file of fixations that can be read"):
        read_pysaliency(folder)


def test_pysaliencys_own_files_are_read(pysaliency, tmp_path, folder, monkeypatch):
    if not hasattr(np, "string_"):
        monkeypatch.setattr(np, "string_", np.bytes_, raising=False)
    stimuli = pysaliency.FileStimuli([str(folder / name) for name in NAMES], attributes={"category": [0, 0, 1, 1]})
    trains = pysaliency.FixationTrains.from_fixation_trains(
        [[1.5, 2, 2], [5]], [[1, 2, 2], [6]], [[0, 1, 2], [0]], [0, 2], [4, 7]
    )
    (tmp_path / "own").mkdir()
    stimuli.to_hdf5(str(tmp_path / "own/stimuli.hdf5"))
    trains.to_hdf5(str(tmp_path / "own/fixations.hdf5"))
    found = read_pysaliency(tmp_path / "own", skip_bad=True)
    assert [(image.name, image.category) for image in found] == [("a/1", "0"), ("b/1", "1")]
    assert found[0].fixations.x.tolist() == [1, 2, 2] and len(found.skipped) == 2
    assert isinstance(found[0].fixations, Fixations)
