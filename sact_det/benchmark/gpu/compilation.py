"""Compiles the Triton kernels ahead of time, for a card that need not be there, and reads off what they take.

    python -m sact_det.benchmark.gpu.compilation --capability 8.0 9.0 [--all-tiles | --quick]

prints one JSON object a kernel. TRITON_INTERPRET must not be set.
"""

import argparse
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple, Optional, Sequence

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sact_det.execution.cuda import (
    gradient_kernels,
    halting,
    position_lists,
    roi_align,
    roi_align_kernel,
    score_kernels,
    tiles,
    training_kernels,
    training_passes,
    unit,
    unit_kernels,
)

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
WARP = 32
FEATURES = ("state", "weight", "inner", "middle", "grad_residual", "grad_middle", "grad_inner", "left", "right")
MASKS = ("active", "next_active", "exists")
LONGS = ("num_units",)
INTS = ("tile_rows", "arrived", "positions", "count", "offsets", "tile_counts", "writes", "reads", "num_reads")
NUMBERS = (
    "bucket",
    "multiprocessors",
    "height",
    "width",
    "image_size",
    "image_stride",
    "sum_programs",
    "size",
    "tiles",
    "tiles_per_image",
    "stride_n",
    "stride_y",
    "stride_x",
)
FLOATS = ("logit_shift", "threshold", "region_scale")
# Precision of a product: the type of features and weights, and how float32 is multiplied.
PRECISIONS = {
    "ieee": ("*fp32", "ieee"),
    "tf32": ("*fp32", "tf32"),
    "fp16": ("*fp16", "ieee"),
    "bf16": ("*bf16", "ieee"),
}
# Constants of RoIAlign, as detectors have them.
REGIONS = {"RATIO": 0, "ALIGNED": True, "BINS_H": 14, "BINS_W": 14, "OUT_H": 14, "OUT_W": 14, "STEP": 1, "SIDE": 1}


class Product(NamedTuple):
    """A kernel that multiplies matrices, in block 3 of ResNet-50 and ResNet-101.

    Attributes:
        kernel: tuned.
        tiles: what its tuner may choose.
        depth, columns: its constants of these names.
        others: its other constants.
        types: of arguments that are not of the type that their names say.
        precisions: of PRECISIONS, those that are compiled where not all of them are.
    """

    kernel: Any
    tiles: Sequence[tiles.Tile]
    depth: int
    columns: int
    others: Mapping[str, Any] = {}
    types: Mapping[str, str] = {}
    precisions: Sequence[str] = tuple(PRECISIONS)


def products() -> list[Product]:
    """Those of a unit's forward pass, and those of its backward pass."""
    largest = ("ieee", "tf32", "bf16")
    gradient, weight = tiles.GRADIENT_TILES, tiles.WEIGHT_TILES
    of_weight = gradient_kernels.weight_gradient_kernel
    conv1, conv2, conv3 = ({"CONV": conv, "SPLITS": 4} for conv in (1, 2, 3))
    return [
        Product(unit_kernels.conv1_kernel, tiles.CONV1_TILES, 1024, 256),
        Product(unit_kernels.conv2_kernel, tiles.CONV2_TILES, 256, 256),
        Product(unit_kernels.conv3_kernel, tiles.CONV3_TILES, 256, 1024, {"ADAPTIVE": True, "AT_POSITIONS": False}),
        Product(gradient_kernels.middle_gradient_kernel, gradient, 1024, 256, precisions=largest),
        Product(gradient_kernels.inner_gradient_kernel, gradient, 256, 256, precisions=largest),
        Product(gradient_kernels.state_gradient_kernel, tiles.STATE_TILES, 256, 1024, precisions=largest),
        Product(of_weight, weight, 256, 1024, conv1, {"right": "*fp32"}, largest),
        Product(of_weight, weight, 256, 256, conv2, precisions=largest),
        Product(of_weight, weight, 1024, 256, conv3, precisions=largest),
    ]


def _type_of(name: str, features: str) -> str:
    """Triton's type of an argument; what has none of these names points to float32."""
    kinds = {features: FEATURES, "*u8": MASKS, "*i64": LONGS, "*i32": INTS, "i32": NUMBERS, "fp32": FLOATS}
    return next((kind for kind, names in kinds.items() if name in names), "*fp32")


def _resources(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, bytes that it keeps in memory for want of registers, bytes of shared memory."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(CUOBJDUMP), "--dump-resource-usage", file.name]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: re.search(rf"{name}:(\d+)", output) for name in ("REG", "STACK", "SHARED")}
    assert all(found.values()), output
    return {name: int(match[1]) for name, match in found.items() if match is not None}


def compile_kernel(
    kernel: Any,
    target: GPUTarget,
    warps: int,
    stages: int,
    features: str = "*fp32",
    types: Mapping[str, str] = {},
    **constants: Any,
) -> dict[str, Any]:
    """What a kernel takes on a target: registers, spilled and shared bytes, tensor cores, seconds to compile.

    Args:
        kernel: a function decorated by triton.jit.
        target: of the compilation.
        warps, stages: of a program.
        features: Triton's type of features and weights.
        types: those of arguments that are of another one than their names say.
        constants: the kernel's constexpr arguments.
    """
    names = kernel.arg_names
    signature = {name: types.get(name, _type_of(name, features)) for name in names} | dict.fromkeys(
        constants, "constexpr"
    )
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()}, aligned)
    start = time.perf_counter()
    made = triton.compile(source, target, {"num_warps": warps, "num_stages": stages})
    seconds = time.perf_counter() - start
    taken = _resources(made.asm["cubin"])
    return {
        "kernel": kernel.__name__,
        "capability": target.arch / 10,
        "registers": taken["REG"],
        "spilled": taken["STACK"],
        "shared": max(int(made.metadata.shared), taken["SHARED"]),
        "tensor_cores": next((unit for unit in ("wgmma", "mma.sync") if unit in made.asm["ptx"]), None),
        "seconds": round(seconds, 2),
    }


def compile_all(capability: float, all_tiles: bool = False, only: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Every kernel, or those named; products at every precision, in the largest tiles, or all that are tried."""
    target = GPUTarget("cuda", round(10 * capability), WARP)
    for product in products():
        if only and product.kernel.fn.__name__ not in only:
            continue
        for precision in PRECISIONS if all_tiles else product.precisions:
            features, multiply = PRECISIONS[precision]
            for tile in tiles_of(product, precision, target.arch, all_tiles):
                constants: dict[str, Any] = {"DEPTH": product.depth, "COLUMNS": product.columns, "PRECISION": multiply}
                constants |= {"BLOCK_K": tiles.block_depth(4 if features == "*fp32" else 2)}
                kernel = product.kernel.fn
                constants |= {**tiles.constants_of(tile, kernel.arg_names), **product.others}
                taken = compile_kernel(kernel, target, tile.warps, tile.stages, features, product.types, **constants)
                yield {"precision": precision, "tile": f"{tile.rows}x{tile.columns}", **taken}
    rows, depth = score_kernels.PRODUCT_BLOCK
    block, channels = position_lists.MAX_BLOCK, score_kernels.CHANNEL_BLOCK
    sums = dict(zip(("BLOCK_T", "BLOCK_C"), score_kernels.SUM_BLOCK))
    rectangle = {"BLOCK_M": training_passes.ROWS, "BLOCK_C": training_passes.COLUMNS}
    others: list[tuple[Any, dict[str, Any]]] = [
        (score_kernels.taps_kernel, {"C": 1024, "BLOCK_M": rows, "BLOCK_K": depth, **sums}),
        (score_kernels.scores_kernel, {"C": 1024, "BLOCK": score_kernels.SCORE_BLOCK, "BLOCK_C": channels}),
        (score_kernels.sums_kernel, {"C": 1024, **sums}),
        *((halting.halting_kernel, {"LAST": last, "BLOCK": block}) for last in (False, True)),
        (position_lists.count_kernel, {"BLOCK": block}),
        (position_lists.list_kernel, {"BLOCK": block, "BLOCK_TILES": block}),
        (training_kernels.copy_kernel, {"C": 1024, **rectangle}),
        (training_kernels.squares_kernel, {"C": 1024, **rectangle}),
        (training_kernels.logits_kernel, {"BLOCK": block}),
        (training_kernels.local_gradient_kernel, {"C": 1024, "SPLITS": 4, **rectangle}),
        (gradient_kernels.residual_gradient_kernel, {"C": 1024, **rectangle}),
        (unit_kernels.rectify_kernel, {"C": 1024, **dict(zip(("BLOCK_M", "BLOCK_C"), unit.RECTIFIED_BLOCK))}),
        (roi_align_kernel.roi_align_kernel, {**REGIONS, "C": 1024, "BLOCK_C": roi_align.CHANNELS}),
    ]
    for kernel, constants in others:
        if only and kernel.__name__ not in only:
            continue
        yield {"precision": "fp32", "tile": "", **compile_kernel(kernel, target, 4, 3, **constants)}


def compile_quickly(capability: float) -> Iterator[dict[str, Any]]:
    """One product and one other kernel, in seconds, to show that compilation works."""
    target = GPUTarget("cuda", round(10 * capability), WARP)
    tile, kernel = tiles.CONV1_TILES[0], unit_kernels.conv1_kernel.fn
    sizes: dict[str, Any] = {"DEPTH": 64, "COLUMNS": 64, "BLOCK_K": 32, **tiles.constants_of(tile, kernel.arg_names)}
    product = compile_kernel(kernel, target, tile.warps, tile.stages, PRECISION="tf32", **sizes)
    yield {"precision": "tf32", "tile": f"{tile.rows}x{tile.columns}", **product}
    count = compile_kernel(position_lists.count_kernel, target, 4, 3, BLOCK=position_lists.MAX_BLOCK)
    yield {"precision": "fp32", "tile": "", **count}


def tiles_of(product: Product, precision: str, capability: int, all_tiles: bool) -> Sequence[tiles.Tile]:
    """The tiles of a product that the autotuner measures; without `all_tiles`, the largest."""
    fitting = tiles.fitting(product.tiles, product.columns, capability, precision == "ieee")
    return fitting if all_tiles else fitting[-1:]


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Prints what every kernel takes, a JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=float, nargs="+", default=[8.0, 8.9, 9.0])
    parser.add_argument("--all-tiles", action="store_true", help="all that the autotuner would measure")
    parser.add_argument("--only", nargs="+", metavar="KERNEL", default=[], help="these")
    parser.add_argument("--quick", action="store_true", help="two small kernels only")
    args = parser.parse_args(argv)
    for capability in args.capability:
        for taken in compile_quickly(capability) if args.quick else compile_all(capability, args.all_tiles, args.only):
            print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main()
