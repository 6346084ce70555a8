"""Choose modules of a model, put others in their place, and undo it exactly."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from polyad.layers import Embedding, Factors, Linear
from polyad.models.layer_matrices import linear_types

Which = str | Sequence[str] | Callable[[str, nn.Module], bool]
"""Modules by glob pattern on their dotted path (``*.mlp.*``), by several patterns, or by a predicate."""


def select(model: nn.Module, which: Which, *, of: tuple[type[nn.Module], ...] = (nn.Linear,)) -> dict[str, nn.Module]:
    """The modules of the types ``of`` that ``which`` names, by path, in the model's order.

    A pattern that matches nothing is refused, with the paths that come nearest.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> list(select(model, "0"))
    ['0']
    """
    candidates = {path: module for path, module in model.named_modules() if isinstance(module, of)}
    present = tuple(kind for kind in of if any(isinstance(module, kind) for module in candidates.values()))
    return select_by_path(candidates, which, f"{_names(present or of)} modules")


def select_by_path(candidates: Mapping[str, nn.Module], which: Which, what: str) -> dict[str, nn.Module]:
    """Those of the candidates that ``which`` names, in their order; patterns that match nothing are refused."""
    if callable(which):
        chosen = {path: module for path, module in candidates.items() if which(path, module)}
        if not chosen:
            raise ValueError(f"the predicate chose none of the model's {len(candidates)} {what}")
        return chosen
    patterns = [which] if isinstance(which, str) else list(which)
    for pattern in patterns:
        if not any(matches(path, pattern) for path in candidates):
            near = difflib.get_close_matches(pattern, candidates, n=3, cutoff=0.3) or list(candidates)[:3]
            raise ValueError(
                f"the pattern {pattern!r} matches none of the model's {len(candidates)} {what}; "
                f"their paths look like {', '.join(near) or '(there are none)'}"
            )
    named = (p for p in candidates if any(matches(p, pattern) for pattern in patterns))
    return {path: candidates[path] for path in named}


def matches(path: str, pattern: str) -> bool:
    """True where a pattern matches a path, or is the path itself, whatever signs are in it.

    >>> matches("a[0].b", "a[0].b"), matches("a0.b", "a[0].b"), matches("a.b", "*.c")
    (True, True, False)
    """
    return path == pattern or fnmatch.fnmatchcase(path, pattern)


def decoder_linears(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer but the output head: those that are compressed by default."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # pyright: ignore
    return select(model, lambda _path, module: module is not head, of=(*linear_types(), Linear))


class Undo:
    """Puts back what ``replace`` took out. Calling it twice does no harm."""

    def __init__(self, model: nn.Module, before: dict[str, nn.Module], described: Sequence[nn.Module] = ()) -> None:
        self._model, self._before, self._described = model, before, described

    def __call__(self) -> None:
        from polyad.interop.transformers import detach_quantizer

        for path, module in self._before.items():
            self._model.set_submodule(path, module)
        detach_quantizer(self._described)
        self._described = ()

    def then(self, earlier: Undo) -> Undo:
        """One that undoes this and then what was done before it."""
        return Undo(self._model, {**self._before, **earlier._before}, (*earlier._described, *self._described))


def replace(model: nn.Module, modules: Mapping[str, nn.Module]) -> Undo:
    """Put modules in place of others, by path. Returns what undoes it.

    Where a replaced layer shares its weight with others (an embedding and the output head), these get the
    new layer's ``Factors`` too, so that what was tied stays tied; a module that stands at several places is replaced
    at all of them.
    """
    from polyad.interop.transformers import attach_quantizer

    modules = dict(modules)
    missing = [path for path in modules if not _has(model, path)]
    if missing:
        raise ValueError(f"the model has no module at {', '.join(missing[:3])}; nothing was replaced")
    places = Places(model)
    for path, new in list(modules.items()):
        factors = getattr(new, "weight", None)
        if isinstance(factors, Factors):
            for other in places.sharing_weight(path):
                modules.setdefault(other, _counterpart(model.get_submodule(other), factors))
    for path, new in list(modules.items()):
        for other in places.others(path):
            modules.setdefault(other, new)
    before = {path: model.get_submodule(path) for path in modules}
    for path, module in modules.items():
        module.train(before[path].training)
        model.set_submodule(path, module)
    return Undo(model, before, attach_quantizer(model))


class Places:
    """The paths at which each module of a model stands, and of the modules that share a weight, found in one walk."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._paths: dict[int, list[str]] = {}
        self._sharing: dict[int, dict[int, str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self._paths.setdefault(id(module), []).append(path)
            weight = getattr(module, "weight", None)
            if isinstance(weight, nn.Parameter | Factors):
                self._sharing.setdefault(id(weight), {}).setdefault(id(module), path)

    def others(self, path: str) -> list[str]:
        """The other paths at which the very module at ``path`` stands, through modules that stand twice too."""
        return [other for other in self._paths[id(self.model.get_submodule(path))] if other != path]

    def sharing_weight(self, path: str) -> list[str]:
        """Paths of the other modules that share the weight of the module at ``path``."""
        module = self.model.get_submodule(path)
        sharing = self._sharing.get(id(getattr(module, "weight", None)), {})
        return [other for key, other in sharing.items() if key != id(module)]


def _counterpart(module: nn.Module, factors: Factors) -> nn.Module:
    if isinstance(module, nn.Embedding | Embedding):
        return Embedding(factors)
    bias = getattr(module, "bias", None)
    return Linear(factors, bias)


def _has(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def _names(kinds: tuple[type[nn.Module], ...]) -> str:
    return "/".join(kind.__name__ for kind in kinds)
