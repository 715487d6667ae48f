#!/usr/bin/env python
"""Converts weights of other programs to our weight files, and says what a weight file holds.

The original SACT program:    python tools/convert_weights.py sact-tf CHECKPOINT OUT.pth
TF-Slim's resnet_v2:          python tools/convert_weights.py tf-slim CHECKPOINT OUT.pth
  the same, frozen (npz):     python tools/convert_weights.py tf-slim SRC.npz OUT.pth
timm's resnetv2:              python tools/convert_weights.py timm SRC.safetensors OUT.pth
What a file holds:            python tools/convert_weights.py inspect FILE.pth

CHECKPOINT is a folder with a file `checkpoint`, a prefix, an .index file, or the one file of an old checkpoint.
All print the config keys (KEY VALUE, for a yaml or the command line) that the weights need.
"""

import argparse
import shlex
from pathlib import Path
from typing import Any, Optional, Sequence

from torch import Tensor

from sact_det.errors import InputError
from sact_det.files import file_sha256
from sact_det.processes import command_line
from sact_det.weights.sact_tf import convert_sact_tf
from sact_det.weights.tf_checkpoint import open_checkpoint
from sact_det.weights.tf_slim import convert_tf_slim, read_npz
from sact_det.weights.tf_slim_checkpoint import convert_tf_slim_checkpoint
from sact_det.weights.timm import convert_timm, read_timm
from sact_det.weights.weight_file import load_weights, save_weights

DESCRIPTION = ("units", "base_channels")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SHOWN = 3

# State dict, metadata, and the files that they come from.
Converted = tuple[dict[str, Tensor], dict[str, Any], list[Path]]


def from_sact_tf(args: argparse.Namespace) -> Converted:
    checkpoint = open_checkpoint(args.source)
    return *convert_sact_tf(checkpoint), checkpoint.files


def from_tf_slim(args: argparse.Namespace) -> Converted:
    if args.source.suffix == ".npz":
        return *convert_tf_slim(read_npz(args.source)), [args.source]
    checkpoint = open_checkpoint(args.source)
    return *convert_tf_slim_checkpoint(checkpoint), checkpoint.files


def from_timm(args: argparse.Namespace) -> Converted:
    return *convert_timm(read_timm(args.source), args.mean, args.std), [args.source]


CONVERSIONS = {"sact-tf": from_sact_tf, "tf-slim": from_tf_slim, "timm": from_timm}


def config_lines(path: Path, metadata: dict[str, Any]) -> list[str]:
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
        keys["MODEL.CLASSIFIER.NUM_CLASSES"] = metadata["num_classes"]
    keys["MODEL.PIXEL_MEAN"] = list(metadata.get("pixel_mean", [127.5] * 3))
    keys["MODEL.PIXEL_STD"] = list(metadata.get("pixel_std", [127.5] * 3))
    keys["INPUT.FORMAT"] = "RGB"
    return [f"{key} {shlex.quote(str(value))}" for key, value in keys.items()]


def inspect(path: Path) -> None:
    state_dict, metadata = load_weights(path)
    print(f"{path}: sha256 {file_sha256(path)}")
    for key, value in metadata.items():
        if key not in ("missing", "unused"):
            print(f"{key}: {value}")
    print(f"parameters: {sum(v.numel() for k, v in state_dict.items() if not k.endswith(STATISTICS)):,}")
    if not metadata.keys() >= set(DESCRIPTION):
        print("The file does not describe its network.")
        return
    try:
        lines = config_lines(path, metadata)
        unused = list(map(str, metadata.get("unused", [])))
        missing = ", ".join(metadata.get("missing", []))
    except TypeError as error:
        raise InputError(f"{path}: 'sact' does not describe a network as our weight files do ({error})") from error
    print(f"missing, will start fresh: {missing or 'nothing'}")
    if unused:
        more = f" and {len(unused) - SHOWN} more" if len(unused) > SHOWN else ""
        print(f"not used from the source: {', '.join(unused[:SHOWN])}{more}")
    print("config:", *lines, sep="\n  ")


def convert(args: argparse.Namespace) -> None:
    state_dict, metadata, files = CONVERSIONS[args.command](args)
    metadata["source"] += ", from " + ", ".join(f"{file.name}, sha256 {file_sha256(file)}" for file in files)
    save_weights(args.output, state_dict, metadata)


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sources = {
        "sact-tf": ("the original SACT program's networks: plain, ACT, SACT; ImageNet, CIFAR-10", "checkpoint"),
        "tf-slim": ("TF-Slim's resnet_v2_50, _101 or _152", "checkpoint, or npz of frozen variables, whole or in part"),
        "timm": ("timm's resnetv2_50, _101 or _152", "state dict (.safetensors, .pth)"),
    }
    for name, (what, source) in sources.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("source", metavar="SRC", type=Path, help=source)
        command.add_argument("output", metavar="OUT", type=Path, help="weight file to write (.pth)")
        if name == "timm":
            for statistic in ("mean", "std"):
                command.add_argument(
                    f"--{statistic}",
                    type=float,
                    nargs=3,
                    default=[0.5] * 3,
                    metavar=("R", "G", "B"),
                    help=f"{statistic} of the pixels in timm's pretrained_cfg, as shares of 1 (default: 0.5 each)",
                )
    inspected = commands.add_parser("inspect", help="what a weight file holds")
    inspected.add_argument("file", metavar="FILE", type=Path)
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    with command_line():
        if args.command == "inspect":
            inspect(args.file)
        else:
            convert(args)
            inspect(args.output)  # what was converted is no longer in memory


if __name__ == "__main__":
    main()
