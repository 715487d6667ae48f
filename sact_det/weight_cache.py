"""What is made of a module's weights, kept until they change."""

from typing import Any, Callable, Optional, TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)
Made = TypeVar("Made")


class WeightCache:
    """Values derived from the parameters and buffers of modules.

    Every change that PyTorch records is noticed: in place, by an optimiser, by load_state_dict, by moving a module.
    What is written through `.data` is not recorded; whoever owns the cache clears it where such programs must pass
    (AdaptiveBlock does when it changes to training or evaluation). Copies and pickles start empty.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[nn.Module, Callable[..., Any]], tuple[Any, Any]] = {}

    def get(self, module: Module, make: Callable[[Module], Made]) -> Made:
        """make(module), anew if a weight has changed; `make` must be the same object from call to call."""
        state = _versions(module)
        known = self._entries.get((module, make))
        if known is None or known[0] != state:
            known = self._entries[module, make] = state, make(module)
        return known[1]

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()

    def __deepcopy__(self, memo: Any) -> "WeightCache":
        return WeightCache()

    def __reduce__(self) -> Any:
        return WeightCache, ()


def _versions(module: nn.Module) -> list[object]:
    """What changes when a weight does: where it lies and how often it was written."""
    # Not module.parameters(): this runs before every use, and that takes twenty times as long.
    modules: list[Optional[nn.Module]] = [module]
    tensors: list[Optional[Tensor]] = []
    for owner in modules:  # and whatever is appended meanwhile
        if owner is not None:
            tensors += owner._parameters.values()
            tensors += owner._buffers.values()
            modules += owner._modules.values()
    weights = [tensor for tensor in tensors if tensor is not None]
    try:
        versions: list[object] = [tensor._version for tensor in weights]
    except RuntimeError:  # tensors made in inference mode have none
        versions = [None if tensor.is_inference() else tensor._version for tensor in weights]
    return versions + [tensor.data_ptr() for tensor in weights]
