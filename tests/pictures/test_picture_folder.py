"""A folder of pictures shows one set: those of an earlier one give way, and what else is there stays."""

import json
from pathlib import Path

import numpy as np
import pytest

from sact_det.pictures.canvas import Canvas
from sact_det.pictures.folder import PictureFolder

PIXELS = np.zeros((4, 5, 3), np.uint8)


def draw(path: Path, costs: dict[str, float], sheet: bool = True) -> set[str]:
    """Pictures of these mean ponder costs; the names of all files that were written."""
    folder, ponder_map = PictureFolder(path, sheet=sheet), np.zeros((4, 5), np.float32)
    rows = [
        {"picture": folder.save(stem, cost, Canvas(5, 4), stem, PIXELS, ponder_map)} for stem, cost in costs.items()
    ]
    folder.save_numbers(images=rows)
    return {row["picture"] for row in rows} | {"ponder.json"} | ({"sheet.png"} if sheet else set())


def names(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


def test_pictures_of_an_earlier_model_give_way(tmp_path: Path):
    for costs in ({"a": 1, "b": 2}, {"a": 1.5, "b": 2}, {"c": 3}):
        written = draw(tmp_path, costs)
        assert names(tmp_path) == written and len(written) == len(costs) + 2
    assert names(tmp_path) == {"03.00_c.png", "sheet.png", "ponder.json"}
    assert draw(tmp_path, {"c": 3}, sheet=False) == names(tmp_path) == {"03.00_c.png", "ponder.json"}


def test_what_was_not_drawn_here_stays(tmp_path: Path):
    draw(tmp_path, {"a": 1})
    kept = {"holiday.png", "01.00_other.png", "01.00_a.png.bak", "sheet_2.png", "notes.txt"}
    for name in kept:
        (tmp_path / name).touch()
    assert draw(tmp_path, {"a": 2}) | kept == names(tmp_path)


@pytest.mark.parametrize(
    "listed",
    [
        {
            "images": [
                {"picture": "../precious.png"},
                {"picture": "precious.png"},
                {"picture": "01.00_/../precious.png"},
            ]
        },
        {"images": [{"picture": 3}, {"picture": None}], "sheets": ["precious.png", "/etc/passwd"]},
        {"images": [{"file": "precious.png"}]},
        {"images": 3},
        {"images": [], "sheets": 3},
        [1, 2],
        "text",
    ],
)
def test_a_list_that_is_no_list_of_pictures_removes_nothing(tmp_path: Path, listed: object):
    folder = tmp_path / "out"
    folder.mkdir()
    for path in (tmp_path / "precious.png", folder / "precious.png"):
        path.touch()
    (folder / "ponder.json").write_text(json.dumps(listed))
    assert draw(folder, {"a": 1}) | {"precious.png"} == names(folder)
    assert (tmp_path / "precious.png").exists()


def test_a_folder_under_the_name_of_an_earlier_picture_stays(tmp_path: Path):
    draw(tmp_path, {"a": 1})
    (tmp_path / "01.00_a.png").unlink()
    (tmp_path / "01.00_a.png").mkdir()
    draw(tmp_path, {"a": 2})
    assert (tmp_path / "01.00_a.png").is_dir()
