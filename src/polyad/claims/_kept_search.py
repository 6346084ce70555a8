"""A search over settings that runs once and is kept with its claim's result."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from polyad.claims._result_files import read_result


def search_once(handle: str, key: str, names: Iterable[str], measure: Callable[[str], float]) -> dict[str, float]:
    """The loss of every setting by name: those that the stored result of a claim keeps under ``key`` in its details.

    Where it keeps none, or another grid's, or the claim or its method was defined otherwise then, each is measured. A
    claim puts what this returns into its details under the same key.
    """
    grid = list(names)
    try:
        stored = read_result(handle)
    except ValueError:  # a damaged file keeps nothing
        stored = None
    losses = {} if stored is None or stored.changed else stored.details.get(key, {})
    if isinstance(losses, dict) and set(losses) == set(grid):
        return {name: float(losses[name]) for name in grid}
    return {name: measure(name) for name in grid}
