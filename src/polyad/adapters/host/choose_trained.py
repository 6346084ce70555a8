"""The choice of tensors that an adapter trains whole, and the tensors that should have been chosen."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from polyad.adapters.adapter import Adapter, Bank
from polyad.adapters.host.stand_in import StandIn
from polyad.adapters.host.trained import TrainedPlace
from polyad.models.surgery import matches, select_by_path
from polyad.models.wrappers import plain_path, unwrap

MARK = "_is_hf_initialized"
"""The mark by which transformers tells tensors that were loaded, and modules that it has drawn numbers for."""


def trained_places(
    model: nn.Module, trained: str | Sequence[str], *, tied: bool
) -> tuple[list[str], list[TrainedPlace]]:
    """The modules and parameters that ``trained`` names, by path, and a place for each of their tensors.

    The adapter's tensors begin as copies of the model's.
    """
    patterns = [trained] if isinstance(trained, str) else trained
    if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise TypeError(f"trained={trained!r} names no modules; give paths or patterns, as trained=('classifier',)")
    owners = list(_owners(model))
    modules = {path: module for path, module in owners if path}
    tensors = {f"{path}.{leaf}".removeprefix("."): (m, leaf) for path, m in owners for leaf in _leaves(m)}
    names: dict[str, None] = {}
    for pattern in patterns:
        among: Mapping[str, Any] = modules if any(matches(path, pattern) for path in modules) else modules | tensors
        names |= dict.fromkeys(select_by_path(among, pattern, "modules and parameters"))
    chosen = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
    inside = {path: at for path, at in tensors.items() if any(path == c or path.startswith(f"{c}.") for c in chosen)}
    if patterns and not inside:
        raise ValueError(
            f"trained={trained!r} names modules without parameters ({', '.join(chosen[:3])}); leave it out"
        )
    _refuse_untrainable(inside, owners, tied=tied)
    return chosen, [TrainedPlace(path, module, leaf, _copy(module, leaf)) for path, (module, leaf) in inside.items()]


def _owners(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a model by path, the layers themselves where adapters stand on them, and no adapters."""
    inside: tuple[str, ...] = ()
    for full, module in model.named_modules(remove_duplicate=False):
        path = plain_path(full)
        if isinstance(module, Adapter | Bank) or (inside and f"{path}.".startswith(inside)):
            continue
        if isinstance(module, StandIn):
            inside = (*inside, f"{path}.adapters.")
        inner = unwrap(module)
        yield path, inner.layer if isinstance(inner, StandIn) else inner


def _leaves(module: nn.Module) -> list[str]:
    """The names of a module's own parameters, and of its buffers that are saved."""
    buffers = [name for name in module._buffers if name not in module._non_persistent_buffers_set]
    return [name for name in (*module._parameters, *buffers) if getattr(module, name) is not None]


def _copy(module: nn.Module, leaf: str) -> Tensor:
    parameter = leaf in module._parameters
    tensor = getattr(module, leaf).detach().clone()
    tensor = nn.Parameter(tensor) if parameter else tensor
    setattr(tensor, MARK, True)  # its numbers are kept, wherever they came from
    return tensor


def _refuse_untrainable(
    inside: Mapping[str, tuple[nn.Module, str]], owners: Iterable[tuple[str, nn.Module]], *, tied: bool
) -> None:
    """Refuse parameters of whole numbers, and those that other modules share."""
    counts = Counter(id(p) for module in {id(m): m for _, m in owners}.values() for p in module._parameters.values())
    for path, (module, leaf) in inside.items():
        parameter = module._parameters.get(leaf)
        if parameter is not None and not parameter.is_floating_point():
            raise ValueError(f"trained= names {path}, which holds {parameter.dtype}; only floating point is trained")
        if parameter is not None and counts[id(parameter)] > 1 and not tied:
            raise ValueError(
                f"trained= names {path}, which another module shares; with tied=True this one gets numbers of "
                "its own while the adapter acts"
            )


def trains_weight(chosen: Iterable[str], path: str, parameter: str) -> bool:
    """True where the weight of a layer is trained whole, so that it takes no adapter."""
    return any(path == c or path.startswith(f"{c}.") or f"{path}.{parameter}" == c for c in chosen)


def warn_of_random(model: nn.Module) -> None:
    """Warn of frozen numbers that transformers drew at random when it loaded the model."""
    tensors = {f"{path}.{leaf}": (m, getattr(m, leaf)) for path, m in _owners(model) for leaf in m._parameters
               if getattr(m, leaf) is not None}  # fmt: skip
    if 2 * sum(hasattr(tensor, MARK) for _, tensor in tensors.values()) <= len(tensors):
        return  # not loaded, but made: all of it is random, and somebody knows
    random = [n for n, (m, t) in tensors.items() if getattr(m, MARK, False) and not hasattr(t, MARK)]
    homes = list(dict.fromkeys(name.rpartition(".")[0] for name in random))
    if homes:
        warnings.warn(
            f"{', '.join(homes[:3])} {'has' if len(homes) == 1 else 'have'} random numbers, which transformers drew "
            "as the model's files have none, and attaching freezes them: they are neither trained nor saved with the "
            f"adapter. Attach with trained={tuple(homes[:3])!r}",
            stacklevel=5,
        )
