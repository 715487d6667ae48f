"""The page: sections of tables, plots and galleries, in one file of HTML."""

import itertools
import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Sequence, Union

import jinja2

import sact_det
from sact_det.base.files import replacing
from sact_det.report.bars import BarChart
from sact_det.report.gallery import PackedGallery, colours
from sact_det.report.plots import COLOURS, Plot


@dataclass(frozen=True)
class Table:
    """A table: the first cell of a row is what it is of. `note` stands below."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    kind = "table"


Part = Union[Table, Plot, BarChart, PackedGallery]


@dataclass(frozen=True)
class Section:
    """A section of the page, which its table of contents names.

    Attributes:
        title: of the section.
        text: a sentence or two below it.
        parts: plots that follow each other stand beside each other.
    """

    title: str
    text: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Page:
    """All of it.

    Attributes:
        title: of the page.
        headlines: (number, what it is) that stand out at its top.
        sections: in order.
        footer: where it comes from.
    """

    title: str
    sections: Sequence[Section]
    headlines: Sequence[tuple[str, str]] = ()
    footer: Sequence[str] = field(default=())

    def write(self, path: Union[str, Path]) -> None:
        """Writes the file, whole or not at all. Raises OSError if it cannot be written."""
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("sact_det.report"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.filters["as_json"] = as_json
        environment.filters["groupby_runs"] = runs_of_plots
        stream = environment.get_template("page.html").stream(
            page=self,
            colours=colours(),
            number_of_colours=COLOURS,
            version=sact_det.__version__,
            date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        )
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.writelines(stream)


def runs_of_plots(parts: Sequence[Part]) -> list[tuple[bool, list[Part]]]:
    """Parts in order, plots that follow each other together: (whether they are plots, the parts)."""
    grouped = itertools.groupby(parts, lambda part: isinstance(part, (Plot, BarChart)))
    return [(drawn, list(own)) for drawn, own in grouped]


def as_json(value: Any) -> Any:
    """JSON that may stand within a <script>; NaN and infinities, which JSON does not know, become null."""
    plain = json.loads(json.dumps(value), parse_constant=lambda constant: None)
    text = json.dumps(plain, separators=(",", ":")).replace("<", "\\u003c")
    return jinja2.utils.markupsafe.Markup(text)
