#!/usr/bin/env python
r"""Says whether one classifier is better than another, image by image: how many
images each of them alone gets right, and McNemar's exact test of that.

    python tools/compare_classifiers.py \
        --network "SACT" output/sact/seed_0 output/sact/seed_1 \
        --minus "ResNet-101" output/plain/seed_0 output/plain/seed_1

Every folder is the OUTPUT_DIR of a training or evaluation by
tools/train_net.py, on one data set; the first of both are compared, the second
ones, and so on. With --output, the numbers are written as JSON as well.
"""

import argparse
from typing import Any, Optional, Sequence

from sact_det.base.errors import InputError
from sact_det.base.files import writable_file, write_json
from sact_det.base.markdown import markdown_table
from sact_det.base.processes import command_line
from sact_det.experiments.paired import compare_images, right_images


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    both: dict[str, Any] = {"nargs": "+", "required": True, "metavar": ("NAME", "DIR")}
    parser.add_argument("--network", **both, help="what it is called, and the folders of its evaluations")
    parser.add_argument("--minus", **both, help="the same of what it is compared with")
    parser.add_argument("--output", metavar="FILE.json", help="writes the numbers there as well")
    return parser.parse_args(argv)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    output = writable_file(args.output) if args.output else None
    (first, *folders), (second, *others) = args.network, args.minus
    if not folders or len(folders) != len(others):
        raise InputError(
            f"--network names {len(folders)} folders, --minus {len(others)}; expected as many, at least one"
        )
    pairs = [compare_images(right_images(one), right_images(other)) for one, other in zip(folders, others)]
    heads = ("", "images", "right by both", f"by {first} alone", f"by {second} alone", "difference (%)", "p")
    rows = [
        (one, pair.images, pair.both, pair.first, pair.second, f"{pair.difference:+.2f}", f"{pair.p_value:.2g}")
        for one, pair in zip(folders, pairs)
    ]
    print(markdown_table(heads, rows))
    if output:
        named = [
            {"network": one, "minus": other, **pair._asdict(), "difference": pair.difference, "p_value": pair.p_value}
            for one, other, pair in zip(folders, others, pairs)
        ]
        write_json(output, {"network": first, "minus": second, "pairs": named})


if __name__ == "__main__":
    main()
