#!/usr/bin/env python
r"""Annotations in COCO format with supercategories as classes: COCO's 80
classes become 12.

    python tools/coco_supercategories.py \
        datasets/coco510/annotations/instances_train.json \
        output/coco510_supercategories/train.json
"""

import argparse
from pathlib import Path
from typing import Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
from sact_det.base.doing import doing
from sact_det.base.errors import InputError
from sact_det.base.files import write_json
from sact_det.base.processes import command_line
from sact_det.data.supercategories import merge_supercategories


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", help="json in COCO format whose categories name supercategories")
    parser.add_argument("output", help="json to write")
    return parser.parse_args(argv)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    if Path(args.output).resolve() == Path(args.annotations).resolve():
        raise InputError(f"{args.output}: would replace the annotations it is made from; choose another name")
    with doing(f"merging the categories of {args.annotations}"):
        merged = merge_supercategories(args.annotations)
    with doing(f"writing {args.output}"):
        write_json(args.output, merged)
    print(f"{args.output}: {len(merged['annotations'])} annotations in {len(merged['categories'])} classes")


if __name__ == "__main__":
    main()
