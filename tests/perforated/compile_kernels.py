"""Compiles every kernel for compute capability 9.0 and prints, per kernel, what matters; needs no GPU."""

import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sact_det.perforated.cuda import kernels, position_lists, score_kernels

HOPPER = GPUTarget("cuda", 90, 32)
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
FEATURES = ("state", "weight", "inner", "middle")
MASKS = ("active", "exists")
INTS = ("tile_rows", "positions", "count", "offsets", "tile_counts", "writes", "reads", "num_reads")
NUMBERS = ("bucket", "height", "width", "image_size", "size", "tiles", "tiles_per_image")
NUMBERS += ("stride_n", "stride_y", "stride_x")


def type_of(name, features):
    for names, kind in ((FEATURES, features), (MASKS, "*u8"), (INTS, "*i32"), (NUMBERS, "i32")):
        if name in names:
            return kind
    return "*fp32"


def spilled(cubin):
    """Bytes of registers that a thread keeps in memory."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(CUOBJDUMP), "--dump-resource-usage", file.name]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", output)[1])


def show(kernel, warps, stages, features="*fp32", **constants):
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else type_of(name, features) for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()}, aligned)
    made = triton.compile(source, HOPPER, {"num_warps": warps, "num_stages": stages})
    unit = "wgmma" if "wgmma.mma_async" in made.asm["ptx"] else "-"
    print(kernel.__name__, unit, "spilled", spilled(made.asm["cubin"]), flush=True)


def show_product(kernel, itemsize, **constants):
    rows, columns, warps, stages = kernels.TILES[3]
    constants |= {"PRECISION": "tf32", "BLOCK_K": kernels.block_depth(itemsize), "BLOCK_M": rows, "BLOCK_N": columns}
    show(kernel.fn, warps, stages, {2: "*bf16", 4: "*fp32"}[itemsize], **constants)


show_product(kernels.conv1_kernel, 4, DEPTH=1024, COLUMNS=256)
show_product(kernels.conv2_kernel, 4, DEPTH=256, COLUMNS=256)
show_product(kernels.conv3_kernel, 2, DEPTH=256, COLUMNS=1024, ADAPTIVE=True)
rows, depth = score_kernels.PRODUCT_BLOCK
show(score_kernels.taps_kernel, 4, 3, C=1024, BLOCK_M=rows, BLOCK_K=depth)
show(score_kernels.scores_kernel, 4, 3, C=1024, BLOCK=score_kernels.SCORE_BLOCK, BLOCK_C=score_kernels.CHANNEL_BLOCK)
block = position_lists.MAX_BLOCK
show(position_lists.count_kernel, 4, 3, BLOCK=block)
show(position_lists.list_kernel, 4, 3, BLOCK=block, BLOCK_TILES=block)
