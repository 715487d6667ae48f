"""What is made of a module's weights, kept until they change."""

from typing import Any, Callable, Optional, TypeVar

from torch import Tensor, nn

Made = TypeVar("Made")


class WeightCache:
    """Values derived from the parameters and buffers of modules.

    Every change that PyTorch records is noticed: in place, by an optimiser, by load_state_dict, by moving a module.
    What is written through `.data` is not recorded; whoever owns the cache clears it where such programs must pass
    (a plan does when its part changes to training or evaluation). Copies and pickles start empty.

    Weights may be gone (sact_det/execution/release.py): on PyTorch's meta device, which has shapes without values.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[Any, ...], tuple[Any, Any]] = {}  # by module, function and arguments

    def get(self, module: nn.Module, make: Callable[..., Made], *arguments: object) -> Made:
        """make(module, *arguments), anew if a weight has changed; `make` must be the same object from call to call.

        Raises:
            RuntimeError: it is not known, and the module's weights are gone.
        """
        return self._known_or(lambda before: make(module, *arguments), module, make, *arguments)

    def renew(self, module: nn.Module, make: Callable[..., Made], *arguments: object) -> Made:
        """As `get`, by make(module, *arguments, before): what was made of earlier weights, or None.

        Raises:
            RuntimeError: as `get`.
        """
        return self._known_or(lambda before: make(module, *arguments, before), module, make, *arguments)

    def _known_or(self, made_after: Callable[[Any], Made], module: nn.Module, *rest: Any) -> Made:
        versions, made = self._entries.get((module, *rest), (None, None))
        if versions is None or versions != weight_versions(module):
            refuse_released(module, "to pack them")
            made = made_after(made)
            self.keep(made, module, *rest)
        return made

    def keep(self, made: Made, module: nn.Module, make: Callable[..., Made], *arguments: object) -> None:
        """Takes `made` for make(module, *arguments) until a weight changes."""
        self._entries[(module, make, *arguments)] = weight_versions(module), made

    def refuse_released(self, reason: str) -> None:
        """Raises RuntimeError if weights of a module whose values are kept are gone; see the function of that name."""
        for module, *_ in self._entries:
            refuse_released(module, reason)

    def clear(self) -> None:
        """Forgets everything that can be made again."""
        self._entries = {key: entry for key, entry in self._entries.items() if is_released(key[0])}

    def __deepcopy__(self, memo: Any) -> "WeightCache":
        return WeightCache()

    def __reduce__(self) -> Any:
        return WeightCache, ()


def is_released(module: nn.Module) -> bool:
    """Whether weights of the module are gone."""
    return any(parameter.is_meta for parameter in module.parameters())


def refuse_released(module: nn.Module, reason: str) -> None:
    """Raises RuntimeError if weights of the module are gone; `reason` says what they are needed for."""
    if is_released(module):
        raise RuntimeError(
            f"weights that release_weights let go of are needed {reason}: build the model and load its weights again"
        )


def weight_versions(module: nn.Module) -> list[object]:
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
