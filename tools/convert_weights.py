#!/usr/bin/env python
"""Converts weights of other programs to our weight files, and says what a weight file holds.

TF-Slim's resnet_v2 (npz):    python tools/convert_weights.py tf-slim SRC.npz OUT.pth
What a file holds:            python tools/convert_weights.py inspect FILE.pth

Both print the config keys (KEY VALUE, for a yaml or the command line) that the weights need.
"""

import argparse
import hashlib
import shlex
from pathlib import Path
from typing import Any, Optional, Sequence

from sact_det.errors import errors_to_exit_code
from sact_det.weights.tf_slim import convert_tf_slim, read_npz
from sact_det.weights.weight_file import load_weights, save_weights

DESCRIPTION = ("units", "base_channels", "dilation")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def config_lines(path: Path, metadata: dict[str, Any]) -> list[str]:
    """KEY VALUE of the network that the metadata describes, quoted for a shell."""
    keys = {
        "MODEL.WEIGHTS": path,
        "MODEL.SACT.UNITS": tuple(metadata["units"]),
        "MODEL.SACT.BASE_CHANNELS": metadata["base_channels"],
        "MODEL.SACT.DILATION": tuple(metadata["dilation"]),
        "MODEL.PIXEL_MEAN": [127.5] * 3,
        "MODEL.PIXEL_STD": [127.5] * 3,
        "INPUT.FORMAT": "RGB",
    }
    return [f"{key} {shlex.quote(str(value))}" for key, value in keys.items()]


def inspect(path: Path) -> None:
    state_dict, metadata = load_weights(path)
    missing = metadata.pop("missing", [])
    print(f"{path}: sha256 {sha256(path)}")
    for key, value in metadata.items():
        print(f"{key}: {value}")
    print(f"parameters: {sum(v.numel() for k, v in state_dict.items() if not k.endswith(STATISTICS)):,}")
    if not metadata.keys() >= set(DESCRIPTION):
        print("The file does not describe its network.")
        return
    print(f"missing, will start fresh: {', '.join(missing) or 'nothing'}")
    print("config:", *config_lines(path, metadata), sep="\n  ")


def convert(source: Path, output: Path) -> None:
    state_dict, metadata = convert_tf_slim(read_npz(source))
    metadata["source"] += f", from {source.name}, sha256 {sha256(source)}"
    save_weights(output, state_dict, metadata)
    inspect(output)


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    tf_slim = commands.add_parser("tf-slim", help="TF-Slim's resnet_v2_50, _101 or _152, whole or in part")
    tf_slim.add_argument("source", metavar="SRC", type=Path, help="npz of the variables")
    tf_slim.add_argument("output", metavar="OUT", type=Path, help="weight file to write (.pth)")
    inspected = commands.add_parser("inspect", help="what a weight file holds")
    inspected.add_argument("file", metavar="FILE", type=Path)
    args = parser.parse_args(argv)
    with errors_to_exit_code():
        if args.command == "tf-slim":
            convert(args.source, args.output)
        else:
            inspect(args.file)


if __name__ == "__main__":
    main()
