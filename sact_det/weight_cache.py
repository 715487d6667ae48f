"""What is made of a module's weights, kept until they change."""

from typing import Any, Callable, TypeVar

from torch import nn

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
    # Not module.parameters(): this runs before every use, and that takes ten times as long.
    versions: list[object] = []
    for tensors in (module._parameters, module._buffers):
        for tensor in tensors.values():
            if tensor is not None:
                versions += (tensor.data_ptr(), None if tensor.is_inference() else tensor._version)
    for child in module._modules.values():
        if child is not None:
            versions += _versions(child)
    return versions
