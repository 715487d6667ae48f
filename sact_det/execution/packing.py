"""What is made of a module's weights, kept until they change."""

from dataclasses import dataclass
from typing import Any, Callable, Optional, Sequence, TypeVar

from torch import Tensor, nn

Made = TypeVar("Made")

MAX_SETTINGS = 8  # under which what is made of the same weights is kept


@dataclass(frozen=True, eq=False)
class _Settings:
    """Buffers that are no part of a module's weights, as they were: other statistics of norms. It keeps them alive."""

    buffers: Sequence[Optional[Tensor]]
    versions: Sequence[object]

    def same(self, other: "_Settings") -> bool:
        """Whether both have the same tensors, which nothing has written since."""
        alike = len(self.buffers) == len(other.buffers) and self.versions == other.versions
        return alike and all(own is another for own, another in zip(self.buffers, other.buffers))


@dataclass(frozen=True, eq=False)
class _Entry:
    """What was made of the weights of these versions, by settings, that which was used last at the end."""

    versions: list[object]
    made: list[tuple[_Settings, Any]]


class WeightCache:
    """Values derived from the parameters and buffers of modules.

    Every change that PyTorch records is noticed: in place, by an optimiser, by load_state_dict, by moving a module.
    What is written through `.data` is not recorded; whoever owns the cache clears it where such programs must pass
    (a plan does when its part changes to training or evaluation). Copies and pickles start empty.

    Buffers that are no part of a state dict are settings, which come and go: of the same weights a few values are kept,
    one for each.

    Weights may be gone (sact_det/execution/release.py): on PyTorch's meta device, which has shapes without values.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[Any, ...], _Entry] = {}  # by module, function and arguments

    def get(self, module: nn.Module, make: Callable[..., Made], *arguments: object) -> Made:
        """make(module, *arguments), anew if a weight has changed; `make` must be the same object from call to call.

        Raises:
            RuntimeError: it is not known, and the module's weights are gone.
        """

        def made_anew(before: object) -> Made:
            refuse_released(module, "to pack them")
            return make(module, *arguments)

        return self._known_or(made_anew, module, make, *arguments)

    def renew(self, module: nn.Module, make: Callable[..., Made], *arguments: object) -> Made:
        """As `get`, by make(module, *arguments, before): what was made last of earlier weights or settings, or None.

        It is left to `make` to refuse weights that are gone, and need not be where `before` has what was made of them.
        """
        return self._known_or(lambda before: make(module, *arguments, before), module, make, *arguments)

    def _known_or(self, made_after: Callable[[Any], Made], module: nn.Module, *rest: Any) -> Made:
        entry, (versions, settings) = self._entries.get((module, *rest)), _look_at(module)
        if entry is None or entry.versions != versions:
            made = made_after(None if entry is None else entry.made[-1][1])
            self.keep(made, module, *rest)
            return made
        for number, (known, made) in reversed(list(enumerate(entry.made))):
            if known.same(settings):
                entry.made.append(entry.made.pop(number))
                return made
        entry.made.append((settings, made_after(entry.made[-1][1])))
        del entry.made[:-MAX_SETTINGS]
        return entry.made[-1][1]

    def keep(self, made: Made, module: nn.Module, make: Callable[..., Made], *arguments: object) -> None:
        """Takes `made` for make(module, *arguments), under the present settings, until a weight changes."""
        versions, settings = _look_at(module)
        self._entries[(module, make, *arguments)] = _Entry(versions, [(settings, made)])

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
    return _look_at(module)[0]


def _look_at(module: nn.Module) -> tuple[list[object], _Settings]:
    """The versions of parameters and buffers of a state dict, and the buffers that are in none."""
    # Not module.parameters(): this runs before every use, and that takes twenty times as long.
    modules: list[Optional[nn.Module]] = [module]
    weights: list[Optional[Tensor]] = []
    others: list[Optional[Tensor]] = []
    for owner in modules:  # and whatever is appended meanwhile
        if owner is not None:
            weights += owner._parameters.values()
            for name, buffer in owner._buffers.items():
                (others if name in owner._non_persistent_buffers_set else weights).append(buffer)
            modules += owner._modules.values()
    present = [tensor for tensor in weights if tensor is not None]
    settings = _Settings(others, _written([buffer for buffer in others if buffer is not None]))
    return _written(present) + [tensor.data_ptr() for tensor in present], settings


def _written(tensors: Sequence[Tensor]) -> list[object]:
    """How often each tensor was written."""
    try:
        return [tensor._version for tensor in tensors]
    except RuntimeError:  # tensors made in inference mode do not count it
        return [None if tensor.is_inference() else tensor._version for tensor in tensors]
