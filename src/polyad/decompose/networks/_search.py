"""The search that grows a tensor network edge by edge, with any method that refines one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from torch import Generator

from polyad._callback import Callback
from polyad.decompose.networks._moves import (
    grow_edge,
    growable_edges,
    node_merges,
    node_splits,
    parameters,
    shrink_edge,
)
from polyad.formats import Network

Refine = Callable[[Network, int, int], tuple[Network, float]]
"""(network, steps, first node) to the refined network and its loss."""

_KEPT = 0.9  # of what growing has gained, for an edge to be taken back
_GAIN = 1e-3  # least share by which a smaller network betters those of its size, so that no cycle arises
_SHARE = 1e-3  # of a node's squares that a split may lose before it is tried


class Search:
    """The network of the search, with the least loss so far for each number of parameters."""

    def __init__(self, refine: Refine, start: Network, *, target: float, budget: float, few: int, many: int) -> None:
        self.refine, self.target, self.budget, self.few, self.many = refine, target, budget, few, many
        self.evaluations, self.full, self.least_losses = 0, False, dict[int, float]()
        self.best = (math.inf, start)
        self.take(*self.evaluate(start, many))

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
                while self.rebuild():
                    pass
            if callback is not None:
                counts = {"parameters": parameters(self.network), "evaluations": self.evaluations}
                callback(step, None, {"loss": self.loss, **counts})
            step += 1
            if self.full and self.network is before:
                break
        return self.network if self.loss <= self.target else self.best[1]

    def evaluate(self, network: Network, steps: int, first: int = 0) -> tuple[Network, float]:
        """Refine a network and count the evaluation; the network and its loss."""
        self.evaluations += 1
        return self.refine(network, steps, first)

    def take(self, network: Network, loss: float) -> None:
        self.network, self.loss, size = network, loss, parameters(network)
        self.least_losses[size] = min(loss, self.least_losses.get(size, math.inf))
        if loss < self.best[0]:
            self.best = (loss, network)

    def grow(self, rank: int | None, generator: Generator) -> bool:
        """Make the edge that gains most one larger; False where none may grow."""
        best: tuple[float, int, Network, int] | None = None
        for edge in growable_edges(self.network, rank):
            larger = grow_edge(self.network, edge, generator)
            if (size := parameters(larger)) > self.budget:
                continue
            refined, loss = self.evaluate(larger, self.few, edge[0])
            if best is None or (loss, size) < best[:2]:
                best = (loss, size, refined, edge[0])
        if best is None:
            return False
        self.take(*self.evaluate(best[2], self.many, best[3]))
        return True

    def simplify(self) -> None:
        """Take smaller networks while they meet the target or lose little against the best of their size."""
        while self._simplify_once():
            pass

    def rebuild(self) -> bool:
        """Merge two nodes and split them otherwise, where that is smaller within the target; False if nowhere."""
        before, loss = self.network, self.loss
        for network in list(node_merges(before, 4 * parameters(before))):
            self.network, self.loss = network, loss
            self.simplify()
            if parameters(self.network) < parameters(before):
                return True
        self.network, self.loss = before, loss
        return False

    def _simplify_once(self) -> bool:
        for network in node_merges(self.network):
            self.take(network, self.loss)
            return True
        done = self.loss <= self.target
        for network in self._smaller():
            refined, loss = self.evaluate(network, self.many if done else self.few)
            least = min([v for n, v in self.least_losses.items() if n <= parameters(network)], default=math.inf)
            enough = min(self.loss + (1 - _KEPT) * (least - self.loss), least - _GAIN * abs(least))
            if loss <= self.target or (not done and loss <= enough):
                self.take(refined, loss)
                return True
        return False

    def _smaller(self) -> Iterator[Network]:
        if self.full or self.loss <= self.target:
            yield from node_splits(self.network, _SHARE)
        yield from sorted([shrink_edge(self.network, letter) for letter in self.network.rank], key=parameters)
