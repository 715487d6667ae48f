"""Processes of a machine read the memory of the one that has read a data set: the same items, the same errors."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from coco_folder import toy_config, write_coco_folder
from detectron2.utils import comm

import sact_det.detection  # noqa: F401  (imports Detectron2 quietly)
from sact_det.base.errors import InputError
from sact_det.data import coco_json, made_once
from sact_det.data.coco import register_coco_datasets
from sact_det.data.made_once import PackedList, list_made_once
from sact_det.detection.loader import build_test_loader, build_train_loader
from sact_det.engine.launch import launch

ITEMS = [{"id": 3, "box": [0.1, -2.5]}, "", None, list(range(1000))]


def looked_at(cfg: Any) -> dict[str, Any]:
    """What a process has of a data set with masks: its dicts, the groups of its batches, the names of its classes."""
    train, test = build_train_loader(cfg), build_test_loader(cfg, "toy")
    return {
        "dicts": [train.dataset._dicts[index] for index in range(len(train.dataset))],
        "groups": train.batch_sampler._groups,
        "test": [test.dataset._dataset[index] for index in range(len(test.dataset))],
    }


def config(files: tuple[str, str]) -> Any:
    sets = ("DATASETS.TRAIN", "('toy',)", "DATASETS.TEST", "('toy',)")
    return toy_config(files, *sets, "MODEL.MASK_ON", "True", "SOLVER.IMS_PER_BATCH", "2")


def open_memories() -> int:
    """How many shared memories this process holds open; a process has other files that come and go."""
    targets = (os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd"))
    return sum(target.startswith("/memfd:sact_det") for target in targets)


def look(files: tuple[str, str], folder: Path) -> None:
    """In each of two processes: what it has, how often it has parsed the file, and what it says of a broken one."""
    parsed, read = [], coco_json._content
    coco_json._content = lambda *of: parsed.append(of) or read(*of)
    found = looked_at(config(files))
    broken = folder / "broken.json"
    if comm.get_rank() == 0:
        broken.write_text(Path(files[0]).read_text()[:-9])
    cfg = config(files)
    cfg.defrost()
    cfg.DATASETS.COCO_FORMAT = [("toy", str(broken), files[1])]
    comm.synchronize()
    with pytest.raises(InputError) as error:
        register_coco_datasets(cfg)
    shared, before = type(build_test_loader(cfg, "toy").dataset._dataset).__name__, open_memories()
    for _ in range(3):
        build_test_loader(cfg, "toy")
    told = {"parsed": len(parsed), "error": str(error.value), "shared": shared, "found": found}
    told["left open"] = open_memories() - before
    (folder / f"{comm.get_rank()}.json").write_text(json.dumps(told))


def test_one_of_two_processes_reads_a_data_set_and_both_have_what_one_alone_has(tmp_path: Path):
    files = write_coco_folder(tmp_path, num_images=5, masks=True)
    launch(look, 2, on_gpus=False, args=(files, tmp_path))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert (first.pop("parsed"), second.pop("parsed")) == (2, 0)  # the file, and the broken one
    assert first == second and first["shared"] == "PackedList" and first["left open"] == 0
    assert first["found"] == json.loads(json.dumps(looked_at(config(files))))
    assert first["error"].startswith(f"{tmp_path / 'broken.json'}: not a readable json file")


def test_items_come_out_of_memory_as_they_went_in_and_nowhere_else_are_some():
    memory = made_once._pack(ITEMS, {"rest": 1})
    packed = made_once._attached(memory)
    os.close(memory.descriptor)  # the mapping stays
    assert isinstance(packed, PackedList) and list(packed) == ITEMS and len(packed) == 4 and packed.rest == {"rest": 1}
    with pytest.raises(IndexError):
        packed[4]
    assert made_once._attached(memory) is None  # it is no longer there


def test_one_process_alone_makes_a_list_of_detectron2():
    items, rest = list_made_once(lambda: (ITEMS, 7))
    assert type(items).__name__ == "DatasetFromList" and [items[index] for index in range(4)] == ITEMS and rest == 7
