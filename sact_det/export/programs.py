"""Networks as files: what PyTorch records of a module, written and run again.

A recorded module has one argument, a tensor, and returns a dict of tensors. Some of the argument's axes are dynamic:
the file serves any size there.
"""

import contextlib
import importlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from sact_det.base.errors import InputError, naming

ONNX_OPSET = 17
INPUT = "image"

Axes = Mapping[int, str]
Program = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class ProgramFormat:
    """A kind of file.

    Attributes:
        suffix: of its files.
        packages: that must be installed beside PyTorch.
        write: a module in evaluation mode, an example of its argument, the dynamic axes by name, and a path.
        load: what runs a file.
    """

    suffix: str
    packages: Sequence[str]
    write: Callable[[nn.Module, Tensor, Axes, Path], None]
    load: Callable[[Path], Program]

    def check_installed(self) -> None:
        """Raises InputError, naming the extra, if a package is missing."""
        for package in self.packages:
            with naming(f"{package} is not installed; pip install 'sact_det[export]'", ImportError):
                importlib.import_module(package)


def write_onnx(
    model: nn.Module, example: Tensor, path: Union[str, Path], axes: Optional[Axes] = None, outputs: Sequence[str] = ()
) -> None:
    """Writes a module as ONNX, for inputs of the example's shape but in the dynamic axes.

    Args:
        model: of one argument; it returns a tensor or a tuple.
        example: the argument.
        path: of the file.
        axes: dynamic axes of the argument by their names.
        outputs: names of what the module returns.
    """
    names: dict[str, Any] = {
        "input_names": [INPUT],
        "output_names": list(outputs),
        "dynamic_axes": {INPUT: dict(axes or {})},
    }
    with recording():
        torch.onnx.export(model, (example,), str(path), dynamo=False, opset_version=ONNX_OPSET, **names)


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """Without gradients and warnings: of exporters, that there are others; of tracing, that shapes are fixed."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


class _Values(nn.Module):
    """The values of a module's dict, for a format that names them otherwise."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(x).values())


def _write_onnx(model: nn.Module, example: Tensor, axes: Axes, path: Path) -> None:
    with torch.no_grad():
        outputs = list(model(example))
    write_onnx(_Values(model), example, path, axes, outputs)


def _load_onnx(path: Path) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(x: Tensor) -> dict[str, Tensor]:
        return dict(zip(names, map(torch.from_numpy, session.run(names, {INPUT: x.numpy()}))))

    return run


def _write_torchscript(model: nn.Module, example: Tensor, axes: Axes, path: Path) -> None:
    with recording():  # strict=False: it returns a dict
        torch.jit.save(torch.jit.trace(model, (example,), strict=False, check_trace=False), str(path))


def _load_torchscript(path: Path) -> Program:
    with recording():
        return torch.jit.load(str(path), map_location="cpu")


def _write_torch_export(model: nn.Module, example: Tensor, axes: Axes, path: Path) -> None:
    for axis in axes:
        if example.shape[axis] == 1:  # it takes a size of 1 for a constant
            example = torch.cat([example, example], axis)
    dynamic = {
        axis: torch.export.Dim(name, min=_LEAST_SIDE) if name in ("height", "width") else torch.export.Dim(name)
        for axis, name in axes.items()
    }
    with recording():
        program = torch.export.export(model, (example,), dynamic_shapes=(dynamic,), strict=False)
        torch.export.save(program, str(path))


def _load_torch_export(path: Path) -> Program:
    with recording():
        module: Any = torch.export.load(str(path)).module()
    return module


_LEAST_SIDE = 64  # of torch.export: a map of one position along a side would broadcast, which is another program

FORMATS = {
    "onnx": ProgramFormat(".onnx", ("onnx", "onnxruntime"), _write_onnx, _load_onnx),
    "torch_export": ProgramFormat(".pt2", (), _write_torch_export, _load_torch_export),
    "torchscript": ProgramFormat(".pt", (), _write_torchscript, _load_torchscript),
}


def write_program(name: str, model: nn.Module, example: Tensor, axes: Axes, path: Path) -> None:
    """Writes a module in a format of FORMATS.

    Raises:
        InputError: a package is missing, or PyTorch cannot record the module so.
    """
    program_format = FORMATS[name]
    program_format.check_installed()
    try:
        program_format.write(model, example, axes, path)
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:  # whatever an exporter raises
        raise InputError(f"--format {name}: PyTorch cannot record this model ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
