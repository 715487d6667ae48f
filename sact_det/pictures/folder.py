"""A folder of pictures whose names sort by ponder cost, with contact sheets and the numbers."""

import contextlib
import re
from pathlib import Path
from typing import Any, Union

import numpy as np
from PIL import Image

from sact_det.base.errors import InputError
from sact_det.base.files import replacing, writable_folder, write_json
from sact_det.base.text_files import read_json
from sact_det.pictures.contact_sheet import ContactSheet

_NUMBERS = "ponder.json"
_OWN_NAME = re.compile(r"(\d+\.\d\d_[^/\0]+|sheet(_\d+)?)\.png")


def sorted_name(mean_cost: float, stem: str) -> str:
    """ "20.92_stem": the mean ponder cost first, zero-padded so that names sort by it (up to 99.99)."""
    return f"{mean_cost:05.2f}_{stem}"


class PictureFolder:
    """The folder of pictures, contact sheets and ponder.json; made if missing.

    Pictures that an earlier ponder.json in the folder lists, of another model say, give way to the new ones: those that
    have no successor are removed when the new ponder.json is written, and nothing else is.

    Args:
        path: of the folder.
        sheet: whether all images go to a contact sheet, too.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Union[str, Path], sheet: bool = True):
        self._path = writable_folder(path)
        self._sheet = ContactSheet() if sheet else None
        self._pictures: list[str] = []

    def save(
        self, stem: str, mean_cost: float, picture: np.ndarray, name: str, image: np.ndarray, ponder_map: np.ndarray
    ) -> str:
        """Saves a picture, uint8 RGB, as <mean ponder cost>_<stem>.png; returns this name.

        Args:
            stem, mean_cost: make the name.
            picture: of an image and its ponder map.
            name, image, ponder_map: what the contact sheet shows, as of ContactSheet.add.
        """
        file = f"{sorted_name(mean_cost, stem)}.png"
        self._save(file, picture)
        self._pictures.append(file)
        if self._sheet is not None:
            self._sheet.add(name, image, ponder_map, mean_cost)
        return file

    def save_numbers(self, **content: Any) -> None:
        """Saves the contact sheet, as sheet.png, or as sheet_1.png, ... if it has many pages; and ponder.json.

        `sheets` in ponder.json lists the pages. Removes the pictures of the one before.
        """
        sheets = []
        if self._sheet is not None:
            pages = self._sheet.number_of_pages
            for number, page in enumerate(self._sheet.pages(), 1):
                sheets.append("sheet.png" if pages == 1 else f"sheet_{number:0{len(str(pages))}}.png")
                self._save(sheets[-1], page)
        for name in self._earlier() - {*self._pictures, *sheets}:
            with contextlib.suppress(OSError):
                (self._path / name).unlink()
        write_json(self._path / _NUMBERS, {**content, "sheets": sheets})

    def _earlier(self) -> set[str]:
        """What ponder.json says that there is, as far as the names are such as are given here."""
        try:
            content = read_json(self._path / _NUMBERS)
            listed = [*(row["picture"] for row in content["images"]), *content.get("sheets", [])]
        except (InputError, AttributeError, KeyError, TypeError):  # there is none, or it is something else
            return set()
        return {name for name in listed if isinstance(name, str) and _OWN_NAME.fullmatch(name)}

    def _save(self, name: str, pixels: np.ndarray) -> None:
        with replacing(self._path / name) as temporary:
            Image.fromarray(pixels).save(temporary)
