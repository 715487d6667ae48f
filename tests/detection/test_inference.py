"""Detections in many images: what the evaluation finds, whoever shares the images and whatever is killed."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from coco_folder import read_json, toy_config, write_coco_folder
from random_detector import write_random_detector

from sact_det.base.errors import InputError
from sact_det.base.torchrun import Place
from sact_det.data.image_files import find_images
from sact_det.detection import inference
from sact_det.detection.inference import Outputs, predict_images
from sact_det.detection.trainer import DetectionTrainer

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/tests/tiny.yaml")
ALONE = Place()


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A config whose data set "toy" has 8 images, with weights; masks are found, too."""
    folder = tmp_path_factory.mktemp("toy")
    files = write_coco_folder(folder, masks=True)
    masks = ("MODEL.MASK_ON", "True", "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead")
    weights = write_random_detector(folder / "model.pth", TINY, *masks)
    return toy_config(files, *masks, "MODEL.WEIGHTS", weights, "OUTPUT_DIR", str(folder / "evaluated"))


@pytest.fixture(scope="module")
def images(toy) -> list[Path]:
    return find_images([toy.DATASETS.COCO_FORMAT[0][2]])


@pytest.fixture(autouse=True)
def parts_of_two_images(monkeypatch):
    monkeypatch.setattr(inference, "PART", 2)


def contents(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.parent.iterdir() if path.name.startswith(output.stem)}


@pytest.fixture(scope="module")
def whole(toy, images, tmp_path_factory) -> Path:
    """What one process writes."""
    output = tmp_path_factory.mktemp("whole") / "results.json"
    predict_images(toy, images, str(output), ALONE)
    return output


def test_results_and_flops_are_those_of_the_evaluation(toy, whole):
    DetectionTrainer.test(toy, trained_model(toy))
    folder = Path(toy.OUTPUT_DIR) / "inference/toy"
    found, expected = read_json(whole), read_json(folder / "coco_instances_results.json")
    assert len(found) > 8 and found == expected and "segmentation" in found[0]
    assert {result["category_id"] for result in found} <= {1, 4, 9}
    rows = [json.loads(line) for line in whole.with_name("results.images.jsonl").read_text().splitlines()]
    evaluated = read_json(folder / "ponder.json")
    for row, other in zip(rows, evaluated["images"], strict=True):
        assert row["image_id"] == other["image_id"] and Path(row["file_name"]).name == f"{row['image_id']}.png"
        assert {key: value for key, value in other.items() if key in row} == {
            key: value for key, value in row.items() if key != "file_name"
        }
    summary = read_json(whole.with_name("results.summary.json"))
    assert summary["image_ids"] == "of toy" and summary["category_ids"] == "of toy"
    assert summary["categories"] == {"1": "class 1", "4": "class 4", "9": "class 9"}
    assert summary["summary"]["detector_gflops"] == evaluated["summary"]["detector_gflops"]


def trained_model(cfg):
    model = DetectionTrainer.build_model(cfg)
    DetectionTrainer.checkpointer_class(model, evaluate=True).load(cfg.MODEL.WEIGHTS)
    return model


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_the_files_do_not_depend_on_the_number_of_processes(toy, images, whole, tmp_path, world_size):
    output = tmp_path / "results.json"
    for rank in range(world_size):
        assert not output.exists()
        predict_images(toy, images, str(output), Place(rank, world_size, rank))
        if rank == min(world_size, 4) - 1:
            break  # 8 images are 4 parts: the others have nothing to do
    assert contents(output) == contents(whole)


def test_images_of_one_shape_may_be_computed_together(toy, images, tmp_path, monkeypatch):
    """In parts of four, with one that cannot be read."""
    mapper, run, seen = inference.CheckedMapper.__call__, inference._Run.__call__, []

    def cut(self, item):
        item = mapper(self, item)
        height, width = (96, 80) if item["file_name"] == str(images[4]) else (96, 96)
        return {**item, "image": item["image"][:, :height, :width]}

    def noting(self, items):
        seen.append([index for index, _ in items])
        return run(self, items)

    monkeypatch.setattr(inference, "PART", 4)
    monkeypatch.setattr(inference.CheckedMapper, "__call__", cut)
    monkeypatch.setattr(inference._Run, "__call__", noting)
    paths = [*images[:2], tmp_path / "missing.png", *images[2:]]
    outputs = [tmp_path / f"{name}.json" for name in ("alone", "together")]
    predict_images(toy, paths, str(outputs[0]), ALONE)
    assert seen == [[index] for index in range(9)]
    seen.clear()
    predict_images(toy, paths, str(outputs[1]), ALONE, batch=2)
    assert seen == [[2], [0, 1], [3], [4, 6], [7], [5], [8]]
    rows = [output.with_name(f"{output.stem}.images.jsonl").read_text().splitlines() for output in outputs]
    for row, other in zip(*([json.loads(line) for line in own] for own in rows), strict=True):
        assert row.keys() == other.keys()
        for key in row.keys() & {"image_id", "file_name", "error", "height", "width", "flops", "units", "regions"}:
            assert (key, row[key]) == (key, other[key])
    alone, together = map(read_json, outputs)
    assert len(alone) > 8 and [one["image_id"] for one in alone] == [one["image_id"] for one in together]
    for result, other in zip(alone, together, strict=True):
        assert result["category_id"] == other["category_id"]
        assert result["score"] == pytest.approx(other["score"], abs=1e-5)
        assert result["bbox"] == pytest.approx(other["bbox"], abs=1e-2)


def test_a_run_in_other_batches_is_another(toy, images, tmp_path):
    predict_images(toy, images, str(tmp_path / "results.json"), Place(0, 2, 0))
    with pytest.raises(InputError, match=r"results\.parts: holds parts of another run"):
        predict_images(toy, images, str(tmp_path / "results.json"), Place(1, 2, 1), batch=2)


def killed_amid(toy, images, output):
    run, calls = inference._Run.__call__, []

    def dying(self, *arguments):
        calls.append(1)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(self, *arguments)

    inference._Run.__call__ = dying
    predict_images(toy, images, str(output), ALONE)


def test_a_killed_run_goes_on_where_it_was(toy, images, whole, tmp_path, monkeypatch):
    output = tmp_path / "results.json"
    process = multiprocessing.get_context("fork").Process(target=killed_amid, args=(toy, images, output))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not output.exists()
    run, seen = inference._Run.__call__, []

    def noting(self, items):
        seen.extend(index for index, _ in items)
        return run(self, items)

    monkeypatch.setattr(inference._Run, "__call__", noting)
    predict_images(toy, images, str(output), Place(0, 1, 0))
    assert seen == [4, 5, 6, 7]
    assert contents(output) == contents(whole)


def test_what_is_there_already_is_not_done_again(toy, images, whole, monkeypatch):
    before = contents(whole)
    monkeypatch.setattr(inference, "_work", lambda *_: pytest.fail("it is done"))
    predict_images(toy, images, str(whole), ALONE)
    assert contents(whole) == before


def test_images_that_cannot_be_read_are_passed_over_and_listed(toy, images, whole, tmp_path):
    broken, missing = tmp_path / "broken.png", tmp_path / "missing.png"
    broken.write_bytes(images[0].read_bytes()[:500])
    predict_images(toy, [images[0], broken, images[1], missing], str(tmp_path / "some.json"), ALONE)
    summary = read_json(tmp_path / "some.summary.json")
    assert summary["unreadable"] == [str(broken), str(missing)] and summary["summary"]["images"] == 2
    assert summary["image_ids"] == "places in the input, from 1"
    rows = [json.loads(line) for line in (tmp_path / "some.images.jsonl").read_text().splitlines()]
    assert [row["image_id"] for row in rows] == [1, 2, 3, 4]
    assert [str(path) in row.get("error", "") for row, path in zip(rows, (images[0], broken, images[1], missing))] == [
        *(False, True, False, True)
    ]
    found = [(result["image_id"], result["bbox"]) for result in read_json(tmp_path / "some.json")]
    expected = [(result["image_id"], result["bbox"]) for result in read_json(whole) if result["image_id"] in (1, 2)]
    assert [(1 if image == 1 else 2, box) for image, box in found] == expected


def test_images_of_which_none_can_be_read_are_one_line(toy, tmp_path):
    with pytest.raises(InputError, match=r"none of the 1 images can be read: .*nowhere\.png"):
        predict_images(toy, [tmp_path / "nowhere.png"], str(tmp_path / "results.json"), ALONE)
    assert not (tmp_path / "results.json").exists()


def test_parts_of_other_weights_are_refused(toy, images, tmp_path):
    predict_images(toy, images, str(tmp_path / "results.json"), Place(0, 2, 0))
    other = toy.clone()
    other.defrost()
    other.MODEL.WEIGHTS = write_random_detector(tmp_path / "other.pth", TINY, "MODEL.SACT.EPS", "0.5")
    other.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.5
    with pytest.raises(InputError, match=r"results\.parts: holds parts of another run"):
        predict_images(other, images, str(tmp_path / "results.json"), Place(1, 2, 1))


def test_outputs_are_called_json():
    with pytest.raises(InputError, match=r"results\.txt: .*\.json"):
        Outputs.beside("results.txt")
