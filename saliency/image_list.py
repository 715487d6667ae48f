"""Data sets that are a plain list: JSON or CSV of images with their fixations.

JSON is a list of objects with "image" and "fixations", the latter a file (.mat or an image: saliency/fixations.py) or a
list of points [[x, y], ...]; "category" and "name" may be given. CSV has a header: image,fixations with one row per
image, or image,x,y with one row per fixation; category and name may be columns too. Files are relative to the list.

Points may have viewers and times: in JSON the lists "viewers" and "times" beside "fixations", in CSV the columns viewer
and time. They are as many as the points; saliency/scanpaths.py says what becomes of them.

An image without a name is called by its path, without suffix, from the deepest folder that holds both the list and the
image: "stimuli/001.jpg", "/data/cat/stimuli/001.jpg" in /data/cat/list.csv and "../stimuli/001.jpg" in
/data/cat/lists/list.csv are all "stimuli/001".
"""

import csv
import io
import os
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Union

from sact_det.base.errors import InputError, naming
from sact_det.base.text_files import read_json, read_text
from saliency.dataset import FixationDataset, FixationImage, fixations_of, load_images
from saliency.fixations import MAT_VARIABLE
from saliency.images import read_image
from saliency.scanpaths import fixations_of_points

SUFFIXES = (".json", ".csv")

Entry = dict[str, Any]


def read_image_list(
    path: Union[str, Path],
    *,
    variable: str = MAT_VARIABLE,
    convention: str = "as-given",
    skip_bad: bool = False,
) -> FixationDataset:
    """Reads a list, .json or .csv. Arguments as `read_cat2000`'s; `convention` as `fixations_of_points`', of points.

    Raises:
        InputError: the list cannot be read or is none; an image or its fixations cannot be used.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a list of images must be a .json or a .csv file")
    is_json = path.suffix.lower() == ".json"
    content = (read_json if is_json else read_text)(path, missing="no such list of images")
    with naming(path, InputError), naming("not a list that can be read", csv.Error):
        entries = _from_json(content) if is_json else _from_csv(content)
    if not entries:
        raise InputError(f"{path}: the list is empty")
    loaders = [partial(_load, path.parent, entry, variable, convention) for entry in entries]
    return load_images(str(path), loaders, skip_bad=skip_bad)


def _from_json(content: Any) -> list[Entry]:
    if not isinstance(content, list):
        raise InputError("expected a list of objects with 'image' and 'fixations'")
    for number, entry in enumerate(content, 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry["image"]:
            raise InputError(f"entry {number} has no 'image'")
        if not isinstance(entry.get("fixations"), (str, list)):
            raise InputError(f"entry {number} has no 'fixations', neither a file nor points")
        for key in ("viewers", "times"):
            if not isinstance(entry.get(key, []), list):
                raise InputError(f"entry {number}: {key!r} must be a list; got {type(entry[key]).__name__}")
        for key in ("name", "category"):
            if not isinstance(entry.get(key, ""), (str, int)):
                raise InputError(f"entry {number}: {key!r} must be a string; got {type(entry[key]).__name__}")
    return content


def _from_csv(text: str) -> list[Entry]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = rows.fieldnames or ()
    if "image" not in columns or not ("fixations" in columns or {"x", "y"} <= set(columns)):
        raise InputError("expected a header with the columns image and fixations, or image, x and y")
    if len(set(columns)) < len(columns):
        raise InputError(f"the header has a column twice: {', '.join(columns)}")
    entries = []
    for row in rows:
        if None in row:
            raise InputError(f"line {rows.line_num} has {len(columns) + len(row[None])} cells; expected {len(columns)}")
        if not row["image"] or not row.get("fixations", "in columns"):
            raise InputError(f"line {rows.line_num} has no image or no fixations")
        entries.append({**row, "line": rows.line_num})
    return entries if "fixations" in columns else _merged(entries)


def _merged(rows: list[Entry]) -> list[Entry]:
    """One entry for each image of rows with a point each."""
    entries: dict[str, Entry] = {}
    known = {column: f"{column}s" for column in ("viewer", "time") if rows and column in rows[0]}
    for row in rows:
        try:
            point = [float(row["x"]), float(row["y"])]
        except (TypeError, ValueError) as error:
            got = f"{row['x']!r}, {row['y']!r}"
            raise InputError(f"line {row['line']}: x and y must be numbers; got {got}") from error
        entry = entries.setdefault(row["image"], {**row, "fixations": [], **{key: [] for key in known.values()}})
        for key in ("name", "category"):
            if row.get(key) != entry.get(key):
                raise InputError(
                    f"line {row['line']}: {key} {row[key]!r} of {row['image']}, which has {entry[key]!r} in line "
                    f"{entry['line']}"
                )
        entry["fixations"].append(point)
        for column, key in known.items():
            entry[key].append(row[column])
    return list(entries.values())


def _load(folder: Path, entry: Entry, variable: str, convention: str) -> FixationImage:
    image = folder / entry["image"]
    if isinstance(entry["fixations"], str):
        fixations = fixations_of(image, folder / entry["fixations"], variable)
    else:
        shape = read_image(image).shape[:2]
        with naming(image, InputError):
            extras = (entry.get("viewers"), entry.get("times"))
            fixations = fixations_of_points(entry["fixations"], shape, *extras, convention)
    if len(fixations) == 0:
        raise InputError(f"{image}: no fixations")
    name = str(entry.get("name") or _name(image, folder))
    return FixationImage(name, str(entry.get("category") or ""), fixations, image)


def _name(image: Path, folder: Path) -> str:
    from_list = os.path.relpath(os.path.abspath(image), os.path.abspath(folder))
    below = [part for part in Path(from_list).parts if part != os.pardir]
    return PurePath(*below).with_suffix("").as_posix()
