#!/usr/bin/env python
"""Converts weights of other programs to our weight files, packs ours, makes
their halting steeper, and says what a weight file holds.

The original SACT program, TF-Slim's resnet_v2 (also frozen, as npz), timm's
resnetv2:

    python tools/convert_weights.py sact-tf CHECKPOINT OUT.pth
    python tools/convert_weights.py tf-slim CHECKPOINT OUT.pth
    python tools/convert_weights.py timm SRC.safetensors OUT.pth

Ours in a byte each, and back:

    python tools/convert_weights.py compact SRC.pth OUT.npz
    python tools/convert_weights.py from-compact SRC.npz OUT.pth

With logits of the halting branches four times as large, so that features come
nearly from the unit alone where a position halts. FLOPs change with it, until a
budget is calibrated or a training draws budgets:

    python tools/convert_weights.py sharpen SRC.pth OUT.pth --factor 4

What a file holds, and published weights by name:

    python tools/convert_weights.py inspect FILE
    python tools/convert_weights.py names

CHECKPOINT is a folder with a file `checkpoint`, a prefix, an .index file, or
the one file of an old checkpoint. What is read may also be a tar of it, an
address of either (https://..., file://...), or sact://NAME: it is fetched once
and kept in the cache folder. MODEL.WEIGHTS takes sact://NAME as it is, without
a conversion. All print the config keys (KEY VALUE, for a yaml or the command
line) that the weights need.
"""

import argparse
import math
import os
import shlex
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from torch import Tensor

from sact_det.base.doing import doing
from sact_det.base.download import is_url
from sact_det.base.errors import InputError, naming
from sact_det.base.files import file_sha256, writable_file
from sact_det.base.processes import command_line
from sact_det.weights.compact import save_compact
from sact_det.weights.conversion import CONVERSIONS, Converted, from_timm, recognise
from sact_det.weights.named import local_source
from sact_det.weights.published import PUBLISHED, SCHEME, TIMM_NETWORKS
from sact_det.weights.sharpened import sharpened
from sact_det.weights.timm import IMAGE_MEAN
from sact_det.weights.weight_file import load_weights, save_weights

DESCRIPTION = ("units", "base_channels")
SUFFIX = ".npz"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SHOWN = 3


def config_lines(path: Path, metadata: dict[str, Any], detector: bool) -> list[str]:
    """KEY VALUE of the network that the metadata describes, quoted for a shell."""
    keys = {
        "MODEL.WEIGHTS": path,
        "MODEL.SACT.UNITS": tuple(metadata["units"]),
        "MODEL.SACT.BASE_CHANNELS": metadata["base_channels"],
    }
    if metadata.get("halting", "none") != "none":
        keys["MODEL.SACT.HALTING"] = metadata["halting"]
    if metadata.get("family") == "cifar":
        keys["MODEL.CLASSIFIER.FAMILY"] = "cifar"
    else:
        keys["MODEL.SACT.DILATION"] = tuple(metadata.get("dilation", (1, 1, 1, 1)))
        keys["MODEL.SACT.STEM_POOL"] = metadata.get("stem_pool", "same")
    if metadata.get("num_classes"):
        keys[f"MODEL.{'ROI_HEADS' if detector else 'CLASSIFIER'}.NUM_CLASSES"] = metadata["num_classes"]
    keys["MODEL.PIXEL_MEAN"] = list(metadata.get("pixel_mean", [127.5] * 3))
    keys["MODEL.PIXEL_STD"] = list(metadata.get("pixel_std", [127.5] * 3))
    keys["INPUT.FORMAT"] = "RGB"
    return [f"{key} {shlex.quote(str(value))}" for key, value in keys.items()]


def is_detector(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is that of a detector rather than of a classifier."""
    return any(name.startswith("roi_heads.") for name in state_dict)


def inspect(source: str) -> None:
    with local_source(source) as path:
        inspect_file(path, source)


def inspect_file(path: Path, source: str) -> None:
    command = recognise(path)
    if command is None:
        print(f"{path}: sha256 {file_sha256(path)}")
        describe(path, *load_weights(path))
        return
    converted = CONVERSIONS[command](path)
    for file in converted.files:
        print(f"{file}: sha256 {file_sha256(file)}")
    print(f"to be converted: python tools/convert_weights.py {command} {shlex.quote(source)} OUT.pth")
    if converted.choice:
        print(converted.choice)
    describe(Path("OUT.pth"), converted.state_dict, converted.metadata)


def describe(path: Path, state_dict: Mapping[str, Tensor], metadata: dict[str, Any]) -> None:
    """Prints what a weight file holds, and the config that it needs."""
    detector = is_detector(state_dict)
    if detector:
        print("network: a detector")
    for key, value in metadata.items():
        if key not in ("missing", "unused"):
            print(f"{key}: {value}")
    print(f"parameters: {sum(v.numel() for k, v in state_dict.items() if not k.endswith(STATISTICS)):,}")
    if not metadata.keys() >= set(DESCRIPTION):
        print("The file does not describe its network.")
        return
    unused = list(map(str, metadata.get("unused", [])))
    print(f"missing, will start fresh: {', '.join(metadata.get('missing', [])) or 'nothing'}")
    if unused:
        more = f" and {len(unused) - SHOWN} more" if len(unused) > SHOWN else ""
        print(f"not used from the source: {', '.join(unused[:SHOWN])}{more}")
    print("config:", *config_lines(path, metadata, detector), sep="\n  ")


def read_source(args: argparse.Namespace, path: Path) -> Converted:
    """What the command makes of its source, which lies at `path`. Raises InputError, which names the source."""
    try:
        if args.command == "timm":
            return from_timm(path, args.mean, args.std, args.ema)
        return CONVERSIONS[args.command](path)
    except InputError as error:
        if args.source in str(error):
            raise
        raise InputError(f"{error} (in {args.source})") from error


def convert(args: argparse.Namespace) -> None:
    writable_file(args.output)
    with local_source(args.source) as path:
        with doing(f"converting {args.source}"):
            converted = read_source(args, path)
        write(args, *converted)


def pack(source: Path, output: Path) -> None:
    """Writes a weight file of ours in a byte a weight (sact_det/weights/compact.py)."""
    if output.suffix != SUFFIX:
        raise InputError(f"{output}: is not named as weights in a byte each are; expected NAME{SUFFIX}")
    writable_file(output)
    if recognise(source) is not None:
        raise InputError(f"{source}: expected a weight file of ours; others are converted first")
    with doing(f"packing {source}"):
        save_compact(output, *load_weights(source))
    print(f"{output}: {output.stat().st_size:,} bytes of {source.stat().st_size:,}, sha256 {file_sha256(output)}")


def sharpen(source: Path, output: Path, factor: float) -> None:
    """Writes a weight file of ours with steeper halting scores (sact_det/weights/sharpened.py)."""
    writable_file(output)
    if not 0 < factor < math.inf:
        raise InputError(f"--factor must be positive and finite; got {factor:g}")
    state_dict, metadata = load_weights(source)
    refuse_replacing(output, [source])
    with naming(source, ValueError):
        steeper = sharpened(state_dict, factor)
    if (shifts := metadata.get("shifts")) and not metadata.get("prices"):  # of a price logits have their part already
        metadata["shifts"] = {block: factor * shift for block, shift in shifts.items()}
    origin = f"{source.name}, sha256 {file_sha256(source)}, halting logits times {factor:g}"
    save_weights(
        output, steeper, {**metadata, "source": ", from ".join(filter(None, (metadata.get("source"), origin)))}
    )
    print(f"{output}: sha256 {file_sha256(output)}")


def refuse_replacing(output: Path, files: Sequence[Path]) -> None:
    """Raises InputError if the output is one of the files that it is made from."""
    if output.exists() and any(os.path.samefile(output, file) for file in files):
        raise InputError(f"{output}: would replace what it is made from; choose another name")


def write(
    args: argparse.Namespace, state_dict: dict[str, Tensor], metadata: dict[str, Any], files: list[Path], choice: Any
) -> None:
    refuse_replacing(args.output, files)
    metadata["source"] = (
        metadata.get("source", "weights of ours")
        + ", from "
        + ", ".join(f"{file.name}, sha256 {file_sha256(file)}" for file in files)
    )
    save_weights(args.output, state_dict, metadata)
    if choice:
        print(f"{args.source}: {choice}")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    sources = {
        "sact-tf": ("the original SACT program's networks: plain, ACT, SACT; ImageNet, CIFAR-10", "checkpoint"),
        "tf-slim": ("TF-Slim's resnet_v2_50, _101 or _152", "checkpoint, or npz of frozen variables, whole or in part"),
        "timm": ("timm's resnetv2_50, _101 or _152", "state dict (.safetensors, .pth)"),
        "from-compact": ("a weight file of ours that `compact` wrote", "file (.npz)"),
    }
    for name, (what, source) in sources.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("source", metavar="SRC", help=source)
        command.add_argument("output", metavar="OUT", type=Path, help="weight file to write (.pth)")
        if name == "timm":
            for statistic in ("mean", "std"):
                command.add_argument(
                    f"--{statistic}",
                    type=float,
                    nargs=3,
                    default=IMAGE_MEAN,
                    metavar=("R", "G", "B"),
                    help=f"{statistic} of the pixels in timm's pretrained_cfg, as shares of 1 (default: 0.5 each)",
                )
            command.add_argument(
                "--ema",
                action=argparse.BooleanOptionalAction,
                help="whether to take the moving averages of the weights from a training's checkpoint (default: if it "
                "has them, as timm's own loader)",
            )
    compact = commands.add_parser("compact", help="a weight file of ours in a byte a weight")
    compact.add_argument("source", metavar="SRC", type=Path, help="weight file, or checkpoint of a training")
    compact.add_argument("output", metavar="OUT", type=Path, help="file to write (.npz)")
    steeper = commands.add_parser("sharpen", help="a weight file of ours with steeper halting scores")
    steeper.add_argument("source", metavar="SRC", type=Path, help="weight file, or checkpoint of a training")
    steeper.add_argument("output", metavar="OUT", type=Path, help="weight file to write (.pth)")
    steeper.add_argument("--factor", type=float, required=True, metavar="K", help="that logits are multiplied by")
    inspected = commands.add_parser("inspect", help="what a weight file, or a file that can be converted, holds")
    inspected.add_argument("file", metavar="FILE")
    commands.add_parser("names", help="published weights that MODEL.WEIGHTS takes by name")
    return parser.parse_args(argv)


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    if args.command == "inspect":
        inspect(args.file)
    elif args.command == "names":
        for own in PUBLISHED.values():
            print(f"{SCHEME}{own.name}: {own.what}; {own.url if is_url(own.url) else 'comes with sact_det'}")
        print(f"{SCHEME}timm/NAME: timm's {', '.join(TIMM_NETWORKS)}, NAME as on the hub: resnetv2_50.a1h_in1k, say")
    elif args.command == "compact":
        pack(args.source, args.output)
    elif args.command == "sharpen":
        sharpen(args.source, args.output, args.factor)
    else:
        convert(args)
        inspect(str(args.output))  # what was converted is no longer in memory


if __name__ == "__main__":
    main()
