"""A folder of pictures whose names sort by ponder cost, with contact sheets and the numbers."""

import contextlib
import re
from pathlib import Path
from typing import Any, Optional, Sequence, Union

import numpy as np

from sact_det.base.errors import InputError
from sact_det.base.files import replacing, writable_folder, write_json
from sact_det.base.text_files import read_json
from sact_det.pictures.boxes import Mark
from sact_det.pictures.canvas import Canvas
from sact_det.pictures.contact_sheet import ContactSheet
from sact_det.pictures.style import FORMATS, ON_SCREEN, Style

_NUMBERS = "ponder.json"
_OWN_NAME = re.compile(rf"(\d+\.\d\d_[^/\0]+|sheet(_\d+)?)\.({'|'.join(FORMATS)})")


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
        style: of all pictures; an attribute, too.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Union[str, Path], sheet: bool = True, style: Style = ON_SCREEN):
        self._path = writable_folder(path)
        self.style = style
        self._sheet = ContactSheet(style=style) if sheet else None
        self._pictures: list[str] = []

    def save(
        self,
        stem: str,
        mean_cost: float,
        picture: Canvas,
        name: str,
        image: Optional[np.ndarray],
        ponder_map: np.ndarray,
        marks: Sequence[Mark] = (),
    ) -> str:
        """Saves a picture as <mean ponder cost>_<stem>.png, or of the style's format; returns this name.

        Args:
            stem, mean_cost: make the name.
            picture: of an image and its ponder map.
            name, image, ponder_map, marks: what the contact sheet shows, as of ContactSheet.add.
        """
        file = f"{sorted_name(mean_cost, stem)}.{self.style.format}"
        self._save(file, picture)
        self._pictures.append(file)
        if self._sheet is not None:
            self._sheet.add(name, image, ponder_map, mean_cost, marks)
        return file

    def save_numbers(self, **content: Any) -> None:
        """Saves the contact sheet, as sheet.png, or as sheet_1.png, ... if it has many pages; and ponder.json.

        `sheets` in ponder.json lists the pages. Removes the pictures of the one before.
        """
        sheets = []
        if self._sheet is not None:
            pages = self._sheet.number_of_pages
            for number, page in enumerate(self._sheet.canvases(), 1):
                which = "" if pages == 1 else f"_{number:0{len(str(pages))}}"
                sheets.append(f"sheet{which}.{self.style.format}")
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

    def _save(self, name: str, page: Canvas) -> None:
        with replacing(self._path / name) as temporary:
            page.save(temporary)
