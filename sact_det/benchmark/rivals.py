"""The fastest ways to run the plain network: PyTorch in several forms, TensorRT, ONNX Runtime, OpenVINO.

All compute the same function with the same weights, on as many threads as PyTorch has; that is checked before anything
is timed.
"""

import copy
import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from sact_det.base.errors import one_line
from sact_det.benchmark.networks import folded
from sact_det.benchmark.setting import Outputs, Setting, relative_difference
from sact_det.execution.cuda.graphs import capture_graph
from sact_det.export.programs import write_onnx
from sact_det.network.resnet_v2 import Stem, same_max_pool, same_max_pool_of
from sact_det.rule.padding import strided_size

INSTALL = "not installed; pip install 'sact_det[bench]'"


class Unavailable(Exception):
    """A rival cannot take part; the message says why."""


@dataclass(frozen=True)
class Rival:
    """A way to run the plain network.

    Attributes:
        name: a key of RIVALS.
        convert: brings an input, [N, C, H, W], into the form that `forward` likes best.
        forward: of converted inputs -> what the network gives: features [N, D, h, w], or several such tensors.
        any_shape: whether it serves inputs of other shapes than that which it was built for.
    """

    name: str
    convert: Callable[[Tensor], Any]
    forward: Callable[[Any], Outputs]
    any_shape: bool = False

    def __call__(self, x: Tensor) -> Any:
        """x: [N, C, H, W] -> what `forward` gives, float32, on the same device."""
        return to_each(self.forward(self.convert(x)), lambda y: y.to(x.device, torch.float32))


def to_each(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Any:
    """The outputs of a network, each changed."""
    return change(outputs) if isinstance(outputs, Tensor) else tuple(map(change, outputs))


def _from_numpy(arrays: Sequence[Any]) -> Outputs:
    """What a runtime gives as what the network in PyTorch does: a tensor alone, or several."""
    tensors = tuple(map(torch.from_numpy, arrays))
    return tensors[0] if len(tensors) == 1 else tensors


@dataclass(frozen=True)
class TorchRival:
    """The plain network in PyTorch.

    Attributes:
        name: of the rival.
        layout: of features in memory.
        folds: whether norms are folded into convolutions where that is possible.
        compilation: arguments of torch.compile; None: the network runs as it is.
        graph: whether its launches are one CUDA graph.
        check: raises Unavailable where it cannot run.
    """

    name: str
    layout: torch.memory_format = torch.channels_last
    folds: bool = True
    compilation: Optional[Mapping[str, Any]] = None
    graph: bool = False
    check: Callable[[Setting], None] = lambda setting: None

    def __call__(self, part: nn.Module, x: Tensor, setting: Setting) -> Rival:
        """Copies the network. Raises Unavailable."""
        self.check(setting)
        dtype = setting.half or torch.float32
        network = folded(part) if self.folds else copy.deepcopy(part)
        forward: Callable[[Tensor], Outputs] = network.to(setting.device, dtype, memory_format=self.layout)  # type: ignore
        if self.compilation is not None:
            forward = torch.compile(forward, fullgraph=True, dynamic=False, **self.compilation)

        def convert(x: Tensor) -> Tensor:
            return x.to(setting.device, dtype).contiguous(memory_format=self.layout)

        if self.graph:
            forward = _as_graph(forward, convert(x))
        return Rival(self.name, convert, forward, any_shape=self.compilation is None and not self.graph)


def _as_graph(network: Callable[[Tensor], Outputs], x: Tensor) -> Callable[[Tensor], Outputs]:
    """A network for inputs like x, whose launches are one CUDA graph; results last until the next call."""
    own = x.clone()
    for _ in range(3):  # cuDNN looks for its fastest algorithms
        network(own)
    recording = capture_graph(lambda x: [network(x)], [own], x.device)  # type: ignore[list-item]

    def forward(x: Tensor) -> Outputs:
        own.copy_(x)
        recording.replay()
        return recording.outputs[0]

    return forward


@dataclass(frozen=True)
class ExportedRival:
    """A runtime that reads the network from an ONNX file.

    Attributes:
        check: raises Unavailable where it cannot run.
        load: from a path and a setting to the rival.
    """

    check: Callable[[Setting], None]
    load: Callable[[Union[str, Path], Setting], Rival]

    def __call__(self, part: nn.Module, x: Tensor, setting: Setting) -> Rival:
        """Exports the network and loads it again. Raises Unavailable."""
        self.check(setting)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.onnx"
            export_onnx(part, x, path)
            return self.load(path, setting)


def _check_cuda(setting: Setting) -> None:
    if setting.device.type != "cuda":
        raise Unavailable("for CUDA only")


def _check_tensorrt(setting: Setting) -> None:
    _check_cuda(setting)
    try:
        import torch_tensorrt  # noqa: F401  (registers itself with torch.compile)
    except ImportError as error:
        raise Unavailable("torch_tensorrt is not installed") from error


def _check_installed(*modules: str) -> None:
    try:
        for name in ("onnx", *modules):  # the export needs onnx
            importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(INSTALL) from error


def _check_onnxruntime(setting: Setting) -> None:
    if setting.device.type == "cuda":
        raise Unavailable("inputs and outputs would pass through the host's memory")
    if setting.half is not None:
        raise Unavailable(f"computes float32 only on a CPU, not {setting.precision}")
    _check_installed("onnxruntime")


def _load_onnxruntime(path: Union[str, Path], setting: Setting) -> Rival:
    """ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would slow the others
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def forward(x: Any) -> Outputs:
        return _from_numpy(session.run(None, {name: x}))

    return Rival("onnxruntime", lambda x: x.contiguous().numpy(), forward)


def _check_openvino(setting: Setting) -> None:
    if setting.device.type != "cpu":
        raise Unavailable("for CPUs only")
    _check_installed("openvino")


def _load_openvino(path: Union[str, Path], setting: Setting) -> Rival:
    """OpenVINO's CPU plugin."""
    import openvino

    precision = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[setting.precision]
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
        "INFERENCE_PRECISION_HINT": precision,  # the default is bfloat16 where the processor has it
    }
    request = openvino.compile_model(str(path), "CPU", options).create_infer_request()

    def forward(x: Any) -> Outputs:
        # Inputs are read and outputs handed over in place.
        return _from_numpy(list(request.infer([x], share_inputs=True, share_outputs=True).values()))

    return Rival("openvino", lambda x: x.contiguous().numpy(), forward)


EXPORTED = {
    "onnxruntime": ExportedRival(_check_onnxruntime, _load_onnxruntime),
    "openvino": ExportedRival(_check_openvino, _load_openvino),
}
FOR_CUDA = ("cuda-graph", "compile-graphs", "max-autotune", "tensorrt")  # of RIVALS, those for GPUs alone

Maker = Callable[[nn.Module, Tensor, Setting], Rival]

_IN_TORCH = (
    TorchRival("eager", torch.contiguous_format, folds=False),
    TorchRival("channels-last", folds=False),
    TorchRival("folded"),
    TorchRival("cuda-graph", graph=True, check=_check_cuda),
    TorchRival("compile", compilation={"mode": "default"}),
    TorchRival("compile-graphs", compilation={"mode": "reduce-overhead"}, check=_check_cuda),  # as a CUDA graph
    TorchRival("max-autotune", compilation={"mode": "max-autotune"}, check=_check_cuda),  # likewise, in minutes
    TorchRival("tensorrt", compilation={"backend": "tensorrt"}, check=_check_tensorrt),
)
RIVALS: dict[str, Maker] = {**{rival.name: rival for rival in _IN_TORCH}, **EXPORTED}


def export_onnx(part: nn.Module, x: Tensor, path: Union[str, Path]) -> None:
    """Writes the folded network, for inputs of x's shape, as ONNX."""
    with torch.no_grad():
        model = folded(part).cpu()
    for stem in model.modules():
        if isinstance(stem, Stem) and stem.pool is same_max_pool:  # it need not serve every size
            stem.pool = same_max_pool_of(*strided_size((x.shape[2], x.shape[3]), 2))
    write_onnx(model, x.detach().cpu().contiguous(), path)


def build_rivals(
    part: nn.Module, x: Tensor, setting: Setting, names: Sequence[str], makers: Mapping[str, Maker] = RIVALS
) -> tuple[list[Rival], dict[str, float], dict[str, str]]:
    """The rivals that can run and agree with PyTorch's own result at x.

    Args:
        part: the plain network, float32, on the CPU or the device.
        x: [N, C, H, W].
        setting: device and precision.
        names: keys of `makers`.
        makers: what builds them.

    Returns:
        the rivals; by name their relative differences from PyTorch in float32; and by name why others do not take part,
        whatever they raised.
    """
    built, differences, absent = [], {}, {}
    with torch.no_grad():
        reference = copy.deepcopy(part).to(setting.device)(x.to(setting.device))
        for name in names:
            setting.note(f"Preparing {name}")
            try:
                rival = makers[name](part, x, setting)
                outputs = to_each(rival.forward(rival.convert(x)), lambda y: y.to(setting.device))
                difference = relative_difference(outputs, reference)
            except Unavailable as reason:
                absent[name] = str(reason)
                continue
            except Exception as error:  # a compiler's: the others are measured without it
                absent[name] = f"failed: {type(error).__name__}: {one_line(error)}"
                continue
            if not difference <= setting.tolerance:
                absent[name] = f"computes something else: off by {difference:.1e} of the largest output"
                continue
            built.append(rival)
            differences[name] = difference
    return built, differences, absent
