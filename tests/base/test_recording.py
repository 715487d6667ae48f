"""What PyTorch records of a model holds for other images, however deep the example's positions went."""

import copy
import importlib
import io
import warnings
from typing import Callable

import pytest
import torch
from small_networks import randomize
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from sact_det import build_classifier
from sact_det.execution.release import release_weights

HEIGHT, WIDTH = 64, 80
NETWORKS = [("imagenet", "sact", 1), ("imagenet", "sact", 2), ("imagenet", "act", 1), ("cifar", "sact", 1)]
HALTS_EARLY = 2.5  # bias of the halting scores: an empty image needs no second unit


def photographs(height: int = HEIGHT, width: int = WIDTH, step: int = 4) -> Tensor:
    """Crops of two photographs that scikit-learn ships, [6, 3, height, width] in [-1, 1]."""
    datasets = pytest.importorskip("sklearn.datasets")
    crops = [
        torch.tensor(photograph[y : y + step * height : step, x : x + step * width : step]).permute(2, 0, 1)
        for photograph in datasets.load_sample_images().images
        for y, x in ((0, 0), (100, 200), (140, 300))
    ]
    return torch.stack(crops).float() / 127.5 - 1


class Numbers(nn.Module):
    """A classifier whose output is a tuple of tensors: logits, FLOPs, units and ponder cost of every block."""

    def __init__(self, family: str, halting: str, tile: int):
        super().__init__()
        units = (1, 3, 2) if family == "cifar" else (1, 3, 1, 2)
        self.model = build_classifier(units, halting=halting, num_classes=5, base_channels=4, tile=tile, family=family)
        randomize(self.model, photographs(), halting_bias=HALTS_EARLY)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x: [N, 3, H, W]."""
        output = self.model(x)
        blocks = output.ponder.blocks.values()
        return (output.logits, output.ponder.flops, *(part for b in blocks for part in (b.num_units, b.ponder_cost)))


def traced(model: nn.Module, example: Tensor) -> Callable:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that it is deprecated
        return torch.jit.trace(model, example)


def exported(model: nn.Module, example: Tensor) -> Callable:
    return torch.export.export(model, (example,)).module()


def exported_strictly(model: nn.Module, example: Tensor) -> Callable:
    return torch.export.export(model, (example,), strict=True).module()


def recorded_as_a_graph(model: nn.Module, example: Tensor) -> Callable:
    return make_fx(model)(example)


def compiled(model: nn.Module, example: Tensor) -> Callable:
    torch._dynamo.reset()
    program = torch.compile(model, backend="eager", fullgraph=True)
    program(example)
    return program


def to_onnx(model: nn.Module, example: Tensor, dynamo: bool) -> Callable:
    for package in ("onnx", "onnxruntime", *["onnxscript"] * dynamo):
        pytest.importorskip(package, reason=f"ONNX needs {package}")
    runtime = importlib.import_module("onnxruntime")
    axes = {} if dynamo else {"input_names": ["x"], "dynamic_axes": {"x": {0: "images", 2: "height", 3: "width"}}}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (example,), None if dynamo else file, dynamo=dynamo, verbose=False, **axes)
    content = program.model_proto.SerializeToString() if dynamo else file.getvalue()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: tuple(map(torch.from_numpy, session.run(None, {name: x.numpy()})))


def to_onnx_by_tracing(model: nn.Module, example: Tensor) -> Callable:
    return to_onnx(model, example, dynamo=False)


def to_onnx_by_export(model: nn.Module, example: Tensor) -> Callable:
    return to_onnx(model, example, dynamo=True)


RECORDERS = [exported, exported_strictly, recorded_as_a_graph, compiled, to_onnx_by_tracing, to_onnx_by_export]
CASES = [
    *((traced, network) for network in NETWORKS),
    *((record, NETWORKS[0]) for record in RECORDERS),  # which take longer
]


def name_of(part: object) -> str:
    return part.__name__ if callable(part) else "-".join(map(str, part))


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float = 1e-5) -> None:
    """Integers are equal; other numbers differ by no more than the tolerance, in times the largest."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected):
        atol = tolerance * float(other.abs().max()) if other.is_floating_point() else 0
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


@torch.no_grad()
@pytest.mark.parametrize(("record", "network"), CASES, ids=name_of)
def test_a_recording_on_an_empty_image_holds_for_photographs(record, network):
    model = Numbers(*network).eval()
    example, images = torch.zeros(6, 3, HEIGHT, WIDTH), photographs()
    deepest = [int(units.max()) for units in model(example)[2::2]]
    expected = model(images)
    assert any(int(units.max()) > depth for units, depth in zip(expected[2::2], deepest))  # or this would test nothing
    tolerance = 1e-4 if record.__name__.startswith("to_onnx") else 1e-5  # of another library's convolutions
    assert_same(record(model, example)(images), expected, tolerance)


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS, ids=name_of)
@pytest.mark.parametrize("size", [(65, 97), (62, 71)])
def test_a_trace_holds_for_other_sizes_and_numbers_of_images(network, size):
    model = Numbers(*network).eval()
    images = photographs(*size, step=2)
    assert_same(traced(model, torch.zeros(1, 3, HEIGHT, WIDTH))(images), model(images))


@torch.no_grad()
@pytest.mark.parametrize("record", [traced, exported, recorded_as_a_graph, compiled])
def test_a_recording_has_no_kernels_whatever_the_execution(record):
    model = Numbers("imagenet", "sact", 1).eval()
    example, images = torch.zeros(6, 3, HEIGHT, WIDTH), photographs()
    expected = model(images)
    model.model.set_execution("auto")
    assert_same(record(model, example)(images), expected)
    assert_same(model(images), expected)  # and afterwards they are back


@torch.no_grad()
def test_released_weights_cannot_be_recorded():
    model = Numbers("imagenet", "sact", 1).eval()
    model.model.set_execution("auto")
    try:
        release_weights(model)
    except ValueError as reason:
        pytest.skip(str(reason))
    with pytest.raises(RuntimeError, match="needed to trace, export or compile the model"):
        traced(copy.copy(model), torch.zeros(6, 3, HEIGHT, WIDTH))
