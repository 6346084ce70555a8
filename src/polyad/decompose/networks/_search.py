"""Growing a tensor network edge by edge, whatever refines it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from torch import Generator

from polyad.decompose.networks._moves import edges, grown, halved, merged, parameters, shrunk
from polyad.formats import Network

Refine = Callable[[Network, int, int], tuple[Network, float]]
"""A network after at most so many steps, beginning with a node, and its loss."""
Callback = Callable[[int, int | None, dict[str, float]], None]

_KEPT = 0.9  # of what growing has gained, for an edge to be taken back
_GAIN = 1e-3  # least share by which a smaller network betters those of its size, so that no cycle arises
_SHARE = 1e-3  # of a node's squares that a split may lose before it is tried


class Search:
    """A network on its way, with the least loss seen for each number of parameters."""

    def __init__(self, refine: Refine, start: Network, *, target: float, budget: float, few: int, many: int) -> None:
        self.refine, self.target, self.budget, self.few, self.many = refine, target, budget, few, many
        self.evaluations, self.full, self.seen = 0, False, dict[int, float]()
        self.best = (math.inf, start)
        self.take(*self.tried(start, many))

    def run(self, rank: int | None, most: int, generator: Generator, callback: Callback | None) -> Network:
        """The network within the target of the fewest numbers found, else the one of least loss.

        Ends without meeting the target where a network holds ``most`` numbers or where none may grow.
        """
        step = 0
        while self.loss > self.target and parameters(self.network) < most:
            before = self.network
            self.full = not self.grow(rank, generator)
            self.simplify()
            if self.loss <= self.target:
                while self.rebuilt():
                    pass
            if callback is not None:
                counts = {"parameters": parameters(self.network), "evaluations": self.evaluations}
                callback(step, None, {"loss": self.loss, **counts})
            step += 1
            if self.full and self.network is before:
                break
        return self.network if self.loss <= self.target else self.best[1]

    def tried(self, network: Network, steps: int, first: int = 0) -> tuple[Network, float]:
        self.evaluations += 1
        return self.refine(network, steps, first)

    def take(self, network: Network, loss: float) -> None:
        self.network, self.loss, size = network, loss, parameters(network)
        self.seen[size] = min(loss, self.seen.get(size, math.inf))
        if loss < self.best[0]:
            self.best = (loss, network)

    def grow(self, rank: int | None, generator: Generator) -> bool:
        """One more on the edge that gains most; False where none may grow."""
        best: tuple[float, int, Network, int] | None = None
        for edge in edges(self.network, rank):
            larger = grown(self.network, edge, generator)
            if (size := parameters(larger)) > self.budget:
                continue
            found, loss = self.tried(larger, self.few, edge[0])
            if best is None or (loss, size) < best[:2]:
                best = (loss, size, found, edge[0])
        if best is None:
            return False
        self.take(*self.tried(best[2], self.many, best[3]))
        return True

    def simplify(self) -> None:
        """Smaller networks, while they meet the target or lose little of what those of their size did not have."""
        while self._simpler():
            pass

    def rebuilt(self) -> bool:
        """Whether two nodes contracted to one, and taken apart otherwise, give a smaller one in the target."""
        before, loss = self.network, self.loss
        for network in list(merged(before, 4 * parameters(before))):
            self.network, self.loss = network, loss
            self.simplify()
            if parameters(self.network) < parameters(before):
                return True
        self.network, self.loss = before, loss
        return False

    def _simpler(self) -> bool:
        for network in merged(self.network):
            self.take(network, self.loss)
            return True
        done = self.loss <= self.target
        for network in self._smaller():
            found, loss = self.tried(network, self.many if done else self.few)
            known = min([v for n, v in self.seen.items() if n <= parameters(network)], default=math.inf)
            enough = min(self.loss + (1 - _KEPT) * (known - self.loss), known - _GAIN * abs(known))
            if loss <= self.target or (not done and loss <= enough):
                self.take(found, loss)
                return True
        return False

    def _smaller(self) -> Iterator[Network]:
        if self.full or self.loss <= self.target:
            yield from halved(self.network, _SHARE)
        yield from sorted([shrunk(self.network, letter) for letter in self.network.rank], key=parameters)
