"""Contraction of networks of thirty tensors: polyad against cotengra's tree, quimb and opt_einsum's expression.

Run with the peers' Python: ``PYTHONPATH=src /work/venv-peers/bin/python benchmarks/decompose_networks.py``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

import inputs
from polyad.einsum import contract, operations

CASES = {
    "random 3-regular graph of 30": inputs.regular_network,
    "the same, another draw": lambda bond: inputs.regular_network(bond=bond, seed=2),
    "5 x 6 lattice": inputs.lattice_network,
}


def rows(repeats: int = 100) -> list[dict[str, Any]]:
    """One row a network, bond and peer: seconds of a call after the first, the least of alternating calls.

    The first call, with the search for the order, stands apart; so do the operations of the order. The floor is the
    time of the order's operations at the rate of one large matrix product.
    """
    found = []
    rate = _rate()
    for name, make in CASES.items():
        for bond in (3, 4):
            expression, operands = make(bond=bond)
            started = time.perf_counter()
            value = float(contract(expression, *operands))
            first = time.perf_counter() - started
            peers = _peers(expression, operands)
            calls = {"ours": lambda e=expression, x=operands: contract(e, *x)} | peers
            seconds = _alternate(calls, repeats)
            count = operations(expression, tuple(tuple(x.shape) for x in operands))
            for peer, call in peers.items():
                found.append(
                    {
                        "work": f"{name}, bond {bond}", "ours_seconds": seconds["ours"], "ours_first": first,
                        "operations": count, "peer": peer, "peer_seconds": seconds[peer],
                        "floor_seconds": count / rate, "error": abs(float(call()) - value) / abs(value),
                    }
                )  # fmt: skip
    return found


def _peers(expression: str, operands: list[torch.Tensor]) -> dict[str, Callable[[], Any]]:
    import cotengra
    import opt_einsum
    import quimb.tensor

    warnings.simplefilter("ignore")
    inputs_, output = expression.split("->")
    terms = [tuple(term) for term in inputs_.split(",")]
    sizes = {c: n for term, x in zip(terms, operands, strict=True) for c, n in zip(term, x.shape, strict=True)}
    search = cotengra.HyperOptimizer(max_repeats=32, parallel=False, progbar=False, reconf_opts={})
    tree = search.search(terms, tuple(output), sizes)
    shapes = [tuple(x.shape) for x in operands]
    known = opt_einsum.contract_expression(expression, *shapes, optimize=tree.get_path())
    network = quimb.tensor.TensorNetwork(
        [quimb.tensor.Tensor(x, term) for x, term in zip(operands, terms, strict=True)]
    )
    return {
        "cotengra": lambda: tree.contract(operands),
        "opt_einsum on cotengra's path": lambda: known(*operands),
        "quimb": lambda: network.contract(optimize=tree.get_path()),
    }


def _alternate(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - started)
    return least


def _rate() -> float:
    """Operations a second of a float64 matrix product of 512."""
    x = torch.ones(512, 512, dtype=torch.float64)
    return 2 * 512**3 / _alternate({"product": lambda: x @ x}, 20)["product"]


if __name__ == "__main__":
    for row in rows():
        print({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()})
