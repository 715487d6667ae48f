"""The precision in which PyTorch computes products, and how halting scores stay exact whatever it is.

float32 factors may be rounded before they are multiplied: on CUDA to TF32 (10 bits, cuDNN's default in convolutions),
on CPUs to bfloat16 or TF32 where a user has allowed it. A halting score decides where computation ends, and its logits
are sums of thousands of products: such rounding would move the decision.
"""

import contextlib
from typing import Any, Iterator, Union

import torch
from torch import Tensor

EXACT = ("ieee", "none", False)  # values of a switch with which float32 is multiplied as float32


def score_type(dtype: torch.dtype) -> torch.dtype:
    """The type of halting scores and statistics for features of `dtype`: float64 for float64, else float32."""
    return torch.promote_types(dtype, torch.float32)


def widened(x: Tensor) -> Tensor:
    """x in its score_type."""
    return x.to(score_type(x.dtype))


def compute_type(x: Tensor) -> torch.dtype:
    """The type in which PyTorch would convolve x: autocast's where it is on, else that of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def float32_switches(device_type: str) -> dict[str, tuple[Any, str]]:
    """PyTorch's switches of how float32 is multiplied: (owner, attribute) for "conv" and "matmul", if there are any."""
    backends = torch.backends
    if hasattr(backends.cuda.matmul, "fp32_precision"):  # PyTorch 2.9; mixing in the older names is an error there
        owners: Any = (backends.cudnn.conv, backends.cuda.matmul)  # type: ignore[attr-defined]
        if device_type == "cpu":
            owners = (backends.mkldnn.conv, backends.mkldnn.matmul)  # type: ignore[attr-defined]
        return {name: (owner, "fp32_precision") for name, owner in zip(("conv", "matmul"), owners)}
    if device_type != "cuda":
        return {}
    return {"conv": (backends.cudnn, "allow_tf32"), "matmul": (backends.cuda.matmul, "allow_tf32")}


def convolution_precision() -> str:
    """How PyTorch's convolutions multiply float32 on CUDA: "tf32" or "ieee"."""
    owner, name = float32_switches("cuda")["conv"]
    return "ieee" if getattr(owner, name) in EXACT else "tf32"


@contextlib.contextmanager
def switched(values: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Sets attributes, (owner, name, value), and sets them back."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in values]
    try:
        for owner, name, value in values:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextlib.contextmanager
def exact_float32(device: Union[torch.device, str]) -> Iterator[None]:
    """Products of float32 tensors on a device (or type of it) are computed in float32: no autocast, TF32 or bfloat16.

    The switches are PyTorch's and count for the whole process; a graph that is being compiled keeps its own.
    """
    kind = device if isinstance(device, str) else device.type
    switches = {} if torch.compiler.is_compiling() else float32_switches(kind)
    exact = [(owner, name, _exact(name)) for owner, name in switches.values() if getattr(owner, name) not in EXACT]
    with torch.autocast(kind, enabled=False), switched(exact):
        yield


def _exact(name: str) -> Any:
    """The value of a switch of that name with which products are exact."""
    return False if name == "allow_tf32" else "ieee"


@contextlib.contextmanager
def products_as_convolutions() -> Iterator[None]:
    """Matrix products on CUDA round float32 as its convolutions do: one precision whatever computes a layer."""
    (conv, conv_name), (matmul, name) = (float32_switches("cuda")[kind] for kind in ("conv", "matmul"))
    wanted, present = getattr(conv, conv_name), getattr(matmul, name)
    same = (wanted in EXACT) == (present in EXACT)
    with switched([] if same else [(matmul, name, _exact(name) if wanted in EXACT else wanted)]):
        yield
