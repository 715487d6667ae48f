"""Data sets that are a plain list: JSON or CSV of images with their fixations.

JSON is a list of objects with "image" and "fixations", the latter a file (.mat or an image, see read_fixations) or a
list of points [[x, y], ...]; "category" and "name" may be given. CSV has a header: image,fixations with one row per
image, or image,x,y with one row per fixation; category and name may be columns too. Files are relative to the list.
"""

import csv
from functools import partial
from pathlib import Path
from typing import Any, Union

from sact_det.errors import InputError, one_line
from sact_det.text_files import read_json, read_text
from saliency.dataset import FixationDataset, FixationImage, check_same_shape, image_shape, load_images
from saliency.fixations import MAT_VARIABLE, Fixations, read_fixations

Entry = dict[str, Any]


def read_image_list(
    path: Union[str, Path],
    *,
    variable: str = MAT_VARIABLE,
    skip_bad: bool = False,
    progress: bool = False,
) -> FixationDataset:
    """Reads a list, .json or .csv. Arguments as `read_cat2000`'s.

    Raises:
        InputError: the list cannot be read or is none; an image or its fixations cannot be used.
    """
    path = Path(path)
    if path.suffix.lower() not in (".json", ".csv"):
        raise InputError(f"{path}: a list of images must be a .json or a .csv file")
    is_json = path.suffix.lower() == ".json"
    content = (read_json if is_json else read_text)(path, missing="no such list of images")
    try:
        entries = _from_json(content) if is_json else _from_csv(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except csv.Error as error:
        raise InputError(f"{path}: not a list that can be read: {one_line(error)}") from error
    if not entries:
        raise InputError(f"{path}: the list is empty")
    loaders = [partial(_load, path.parent, entry, variable) for entry in entries]
    return load_images(str(path), loaders, skip_bad=skip_bad, progress=progress)


def _from_json(content: Any) -> list[Entry]:
    if not isinstance(content, list):
        raise InputError("expected a list of objects with 'image' and 'fixations'")
    for number, entry in enumerate(content, 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise InputError(f"entry {number} has no 'image'")
        if not isinstance(entry.get("fixations"), (str, list)):
            raise InputError(f"entry {number} has no 'fixations', neither a file nor points")
    return content


def _from_csv(text: str) -> list[Entry]:
    rows = csv.DictReader(text.splitlines())
    columns = set(rows.fieldnames or ())
    if "image" not in columns or not ("fixations" in columns or {"x", "y"} <= columns):
        raise InputError("expected a header with the columns image and fixations, or image, x and y")
    if "fixations" in columns:
        entries = list(rows)
        for number, entry in enumerate(entries, 2):
            if not entry["image"] or not entry["fixations"]:
                raise InputError(f"line {number} has no image or no fixations")
        return entries
    merged: dict[str, Entry] = {}
    for number, row in enumerate(rows, 2):
        try:
            point = [float(row["x"]), float(row["y"])]
        except (TypeError, ValueError) as error:
            raise InputError(f"line {number}: x and y must be numbers; got {row['x']!r}, {row['y']!r}") from error
        merged.setdefault(row["image"], {**row, "fixations": []})["fixations"].append(point)
    return list(merged.values())


def _load(folder: Path, entry: Entry, variable: str) -> FixationImage:
    image = folder / entry["image"]
    name = str(entry.get("name") or Path(entry["image"]).with_suffix(""))
    if isinstance(entry["fixations"], str):
        source = folder / entry["fixations"]
        fixations = read_fixations(source, variable)
        check_same_shape(fixations, source, image)
    else:
        try:
            fixations = Fixations.from_points(entry["fixations"], image_shape(image))
        except InputError as error:
            text = str(error)
            raise InputError(text if text.startswith(str(image)) else f"{image}: {text}") from error
    if len(fixations) == 0:
        raise InputError(f"{image}: no fixations")
    return FixationImage(name, str(entry.get("category") or ""), fixations, image)
