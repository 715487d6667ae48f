"""A file in COCO format is parsed once in a process, and anew when it has changed."""

import json
from pathlib import Path
from typing import Any

import pytest
from coco_folder import toy_config, write_coco_folder
from command_lines import load_tool
from detectron2.data import DatasetCatalog, MetadataCatalog

import sact_det.detection  # noqa: F401  (imports Detectron2 quietly)
from sact_det.base.errors import InputError
from sact_det.data import coco_file as module
from sact_det.data import coco_json
from sact_det.data.coco import load_checked
from sact_det.data.coco_file import coco_file, forget
from sact_det.data.coco_json import read_coco
from sact_det.detection.trainer import DetectionTrainer
from sact_det.tasks import load_config

RECIPE = str(Path(__file__).parents[2] / "configs/COCO/plain_R_50_FPN_1x.yaml")


@pytest.fixture(autouse=True)
def nothing_read():
    forget()
    yield
    forget()


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return write_coco_folder(tmp_path, num_images=4, masks=True)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows with the name of every file of annotations that is parsed."""
    names: list[str] = []

    def parse(path: Any, *more: Any) -> Any:
        names.append(Path(path).parent.name)
        return read(path, *more)

    read = coco_json._content
    monkeypatch.setattr(coco_json, "_content", parse)
    return names


def test_a_training_with_evaluations_parses_each_file_once(tmp_path: Path, parsed: list[str]):
    entries = []
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
        entries.append((name, *write_coco_folder(tmp_path / name, num_images=2)))
    options = ("DATASETS.COCO_FORMAT", str(entries), "DATASETS.TRAIN", "('train',)", "DATASETS.TEST", "('val',)")
    cfg = toy_config(entries[0][1:], *options, "OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", "2")
    cfg.defrost()
    cfg.TEST.EVAL_PERIOD = 1
    trainer = DetectionTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert sorted(parsed) == ["train", "val"]
    assert [Path(path).parent.name for path, _ in module._read] == ["val"]  # what is trained on is let go of


def test_a_file_that_has_changed_is_parsed_again(files: tuple[str, str], parsed: list[str]):
    assert coco_file(files[0]) is coco_file(files[0]) and len(parsed) == 1
    content = json.loads(Path(files[0]).read_text())
    content["annotations"].pop()
    Path(files[0]).write_text(json.dumps(content))
    assert len(coco_file(files[0]).boxes.boxes) == 7 and len(parsed) == 2


def test_without_masks_all_but_polygons_is_read(files: tuple[str, str]):
    with_masks, without = (load_checked("toy", *files, masks=masks) for masks in (True, False))
    assert all(annotation.pop("segmentation") for one in with_masks for annotation in one["annotations"])
    assert without == with_masks


@pytest.mark.parametrize(
    "said",
    ['"segmentation": [[1, 2]]', '"\\"segmentation\\": [1], "', '"segmentation"', "[[1e5, -2.5], []]", '{"a": []}'],
)
def test_what_only_looks_like_polygons_stays(tmp_path: Path, said: str):
    path = tmp_path / "instances.json"
    lists = '"images": [{}], "categories": [{"id": 1, "name": "one"}], "annotations": []'
    path.write_text(f'{{{lists}, "info": {said if said[0] in "[{" else json.dumps(said)}}}')
    assert read_coco(path, polygons=False) == read_coco(path)


def test_a_broken_file_is_refused_where_it_is_broken_whether_polygons_are_read_or_not(files: tuple[str, str]):
    text = Path(files[0]).read_text()
    Path(files[0]).write_text(text[:-20] + "}" + text[-20:])
    lines = []
    for masks in (True, False):
        with pytest.raises(InputError, match="not a readable json file: line 1, column") as error:
            coco_file(files[0], masks)
        lines.append(str(error.value))
    assert lines[0] == lines[1]


def test_a_file_with_an_entry_that_is_wrong_is_refused_each_time(files: tuple[str, str]):
    content = json.loads(Path(files[0]).read_text())
    content["annotations"][3]["bbox"] = "everywhere"
    Path(files[0]).write_text(json.dumps(content))
    for _ in range(2):
        with pytest.raises(InputError, match="annotation 4: bbox must be four finite numbers"):
            load_checked("toy", *files)


def test_data_sets_that_detectron2_lists_are_read_likewise(
    files: tuple[str, str], parsed: list[str], monkeypatch: pytest.MonkeyPatch
):
    name = "coco_2014_valminusminival"
    metadata, of_detectron2 = MetadataCatalog.get(name), DatasetCatalog.pop(name)
    for key, value in zip(("json_file", "image_root"), files):
        monkeypatch.setitem(metadata.__dict__, key, value)
    try:
        DatasetCatalog.register(name, of_detectron2)
        load_config(
            str(Path(__file__).parents[2] / "configs/COCO/plain_R_50_FPN_1x.yaml"), ["DATASETS.TEST", f"('{name}',)"]
        )
        assert DatasetCatalog.get(name) == load_checked(name, *files) and len(parsed) == 1
    finally:
        DatasetCatalog.remove(name)
        DatasetCatalog.register(name, of_detectron2)


def test_the_command_that_measures_a_start_says_what_each_process_took(tmp_path: Path):
    out = tmp_path / "numbers.json"
    load_tool("benchmark_startup").main(["--processes", "1", "--images", "30", "--json", str(out)])
    found = json.loads(out.read_text())
    assert found["of_each"][0]["images"] == found["images"] == 30 and found["peak MiB a process"] > 0
