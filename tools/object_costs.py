#!/usr/bin/env python
r"""What detectors spend on objects: ponder cost inside and outside of boxes,
against the size of an object, and against their number in an image.

    python tools/object_costs.py --output output/objects \
        --row "SACT, tau 0.05" output/sact/inference/coco_2017_val/ponder.json

Every row is a detector and the ponder.json of its evaluation. OUTPUT receives
table.md, results.json and objects.png.
"""

import argparse
from dataclasses import asdict
from typing import Optional, Sequence

from sact_det.base.errors import InputError
from sact_det.base.files import writable_folder, write_json, write_text
from sact_det.base.markdown import markdown_table
from sact_det.base.processes import command_line
from sact_det.experiments.object_costs import draw_object_costs, object_table, read_object_costs
from sact_det.pictures.figures import save_figure
from sact_det.pictures.style import add_page_style, style_of


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results; made if missing")
    parser.add_argument(
        "--row",
        nargs=2,
        action="append",
        required=True,
        metavar=("NAME", "JSON"),
        help="a detector and its ponder.json; once for every row",
    )
    parser.add_argument("--title", metavar="TEXT", help="of the figure")
    add_page_style(parser)
    return parser.parse_args(argv)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    style = style_of(args)
    names = [name for name, _ in args.row]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--row: every row needs a name of its own; {twice!r} stands there twice")
    costs = {name: read_object_costs(path) for name, path in args.row}
    folder = writable_folder(args.output)
    table = markdown_table(*object_table(costs))
    write_json(folder / "results.json", {name: asdict(own) for name, own in costs.items()})
    write_text(folder / "table.md", f"{table}\n")
    save_figure(lambda: draw_object_costs(costs, args.title), folder / f"objects.{style.format}", style)
    print(table)


if __name__ == "__main__":
    main()
