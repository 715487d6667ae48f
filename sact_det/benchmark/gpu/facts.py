"""Stage "facts": the card, the versions, and what its compiler makes of the kernels."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from tabulate import tabulate

from sact_det.benchmark.gpu.stage import Machine, Report, output_of
from sact_det.benchmark.machine import describe_machine

QUERY = "name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit"
WITHOUT_A_CARD = (8.0, 8.9, 9.0)  # capabilities to compile for
COLUMNS = ("kernel", "precision", "tile", "capability", "registers", "spilled", "shared", "tensor_cores", "seconds")
UNITS_KERNELS = (
    *("conv1_kernel", "conv2_kernel", "conv3_kernel", "middle_gradient_kernel", "inner_gradient_kernel"),
    *("state_gradient_kernel", "weight_gradient_kernel"),
)
OTHER_KERNELS = ("taps_kernel", "scores_kernel", "halting_kernel", "list_kernel", "roi_align_kernel")


def run(machine: Machine, report: Report) -> None:
    """Notes "facts" and the table of kernels; a fault where a kernel of the units spills registers."""
    facts = describe_machine(machine.device)
    if not machine.tiny:
        properties = torch.cuda.get_device_properties(machine.device)
        facts["capability"] = f"{properties.major}.{properties.minor}"
        facts["multiprocessors"] = properties.multi_processor_count
        facts["memory_gib"] = round(properties.total_memory / 2**30, 1)
        facts["cudnn"] = torch.backends.cudnn.version()
        facts["nvidia_smi"] = _nvidia_smi()
    report.note("facts", facts)
    capabilities = WITHOUT_A_CARD if machine.tiny else (float(facts["capability"]),)
    with report.part("compilation"):
        report.note("kernels", compiled(capabilities, machine.tiny, report.left))
        rows = [[kernel[column] for column in COLUMNS] for kernel in report.values["kernels"]]
        report.note("tables", [tabulate(rows, COLUMNS, tablefmt="pipe")])
        for kernel in report.values["kernels"]:
            if kernel["kernel"] in UNITS_KERNELS:
                name = f"{kernel['kernel']} {kernel['precision']} {kernel['tile']} on {kernel['capability']}"
                report.check("no spilled registers", kernel["spilled"] == 0, f"{name}: {kernel['spilled']} bytes")


def compiled(capabilities: tuple[float, ...], quick: bool, seconds: float) -> list[dict[str, Any]]:
    """What compilation.py prints, for `quick` of two kernels, else of all, a process for each at once.

    Raises: as output_of does.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "sact_det.benchmark.gpu.compilation", "--capability", *map(str, capabilities)]

    def printed(*arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in output_of([*command, *arguments], seconds, environment).splitlines()]

    if quick:
        return printed("--quick")
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda kernel: printed("--only", kernel), [*UNITS_KERNELS, *OTHER_KERNELS])
        return [kernel for kernels in found for kernel in kernels]


def _nvidia_smi() -> str:
    """What the driver's own tool says of the card, or why it says nothing."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi: {error}"
