"""Networks as files: what PyTorch records of a module, written and run again.

A recorded module has one argument, a tensor, and returns a dict of tensors. Some of the argument's axes are dynamic:
the file serves any size there.
"""

import contextlib
import importlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sact_det.base.errors import InputError, naming

ONNX_OPSET = 17
INPUT = "image"


class Axis(NamedTuple):
    """A dynamic axis: its name, and the least size that files of some kinds serve."""

    name: str
    least: int = 1


Axes = Mapping[int, Axis]
Program = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class ProgramFormat:
    """A kind of file.

    Attributes:
        suffix: of its files.
        packages: that must be installed beside PyTorch.
        write: a module in evaluation mode, an example of its argument, the dynamic axes, and a path.
        load: what runs a file.
        serves_any_size: whether the least sizes of dynamic axes do not bind it.
    """

    suffix: str
    packages: Sequence[str]
    write: Callable[[nn.Module, Tensor, Axes, Path], None]
    load: Callable[[Path], Program]
    serves_any_size: bool = True

    def check_installed(self) -> None:
        """Raises InputError, naming the extra, if a package is missing."""
        for package in self.packages:
            with naming(f"{package} is not installed; pip install 'sact_det[export]'", ImportError):
                importlib.import_module(package)

    def check_served(self, images: Sequence[Tensor], axes: Axes) -> None:
        """Raises InputError if an image is too small for a file of this kind."""
        for image in () if self.serves_any_size else images:
            for axis, (name, least) in axes.items():
                if image.shape[axis] < least:
                    raise InputError(
                        f"--images: with this format the model takes images whose {name} is {least} pixels or more; "
                        f"got one of {list(image.shape[-2:])}"
                    )


def write_onnx(
    model: nn.Module, example: Tensor, path: Union[str, Path], axes: Optional[Axes] = None, outputs: Sequence[str] = ()
) -> None:
    """Writes a module as ONNX, for inputs of the example's shape but in the dynamic axes.

    Args:
        model: of one argument; it returns a tensor or a tuple.
        example: the argument.
        path: of the file.
        axes: dynamic axes of the argument.
        outputs: names of what the module returns.
    """
    names: dict[str, Any] = {
        "input_names": [INPUT],
        "output_names": list(outputs),
        "dynamic_axes": {INPUT: {axis: own.name for axis, own in (axes or {}).items()}},
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
    write_onnx(_Values(model).eval(), example, path, axes, outputs)


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
    dynamic: dict[int, Any] = {}
    for axis, (name, least) in axes.items():
        dynamic[axis] = torch.export.Dim(name, min=least)
        missing = max(least, 2) - example.shape[axis]  # it takes a size of 1 for a constant
        if missing > 0:
            example = F.pad(example, (*(0, 0) * (example.dim() - 1 - axis), 0, missing))
    with recording():
        program = torch.export.export(model, (example,), dynamic_shapes=(dynamic,), strict=False)
        torch.export.save(program, str(path))


def _load_torch_export(path: Path) -> Program:
    with recording():
        module: Any = torch.export.load(str(path)).module()
    return module


FORMATS = {
    "onnx": ProgramFormat(".onnx", ("onnx", "onnxruntime"), _write_onnx, _load_onnx),
    "torch_export": ProgramFormat(".pt2", (), _write_torch_export, _load_torch_export, serves_any_size=False),
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
