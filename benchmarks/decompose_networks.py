"""Contraction of networks of thirty tensors: polyad against cotengra's tree, quimb and opt_einsum's expression."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmarks import inputs
from benchmarks.measuring import Row, clock, peer, take, within

from polyad.einsum import contract, operations

CASES: dict[str, Callable[..., Any]] = {
    "random 3-regular graph of 30": inputs.regular_network,
    "another 3-regular graph of 30": lambda bond: inputs.regular_network(bond=bond, seed=2),
    "5 x 6 lattice": inputs.lattice_network,
}


def contraction(name: str, bond: int) -> Row:
    """A call after the first, of fifty at a time. The first, with the search for the order, stands apart.

    The floor is the time of the order's operations at the rate of one large matrix product.
    """
    row: Row = {}
    expression, operands = CASES[name](bond=bond)
    started = time.perf_counter()
    value = float(contract(expression, *operands))
    first = time.perf_counter() - started
    peers = _peers(expression, operands, row)
    calls = {"ours": lambda: contract(expression, *operands)} | peers

    def fifty(call: Callable[[], Any]) -> Callable[[], float]:
        many = clock(lambda: [call() for _ in range(50)])
        return lambda: many() / 50

    x = torch.ones(512, 512, dtype=torch.float64)
    samples = take({name: fifty(call) for name, call in calls.items()} | {"product of 512": clock(lambda: x @ x)}, 15)
    count = operations(expression, tuple(tuple(x.shape) for x in operands))
    facts = {
        "first call": first, "operations": count, "floor": count * min(samples["product of 512"]) / (2 * 512**3),
        "differences": {name: abs(float(call()) - value) / abs(value) for name, call in peers.items()},
    }  # fmt: skip
    asked = [within(samples, "cotengra", 1.2)] if "cotengra" in samples else []
    return row | {"samples": samples, "facts": facts, "asked": asked}


def _peers(expression: str, operands: list[torch.Tensor], row: Row) -> dict[str, Callable[[], Any]]:
    cotengra, quimb = peer("cotengra", row), peer("quimb.tensor", row)
    if not cotengra:
        return {}
    import opt_einsum

    terms = expression.removesuffix("->").split(",")
    shapes = [tuple(x.shape) for x in operands]
    sizes = {c: n for term, shape in zip(terms, shapes, strict=True) for c, n in zip(term, shape, strict=True)}
    search = cotengra.HyperOptimizer(max_repeats=32, parallel=False, progbar=False, reconf_opts={})
    tree = search.search([tuple(term) for term in terms], (), sizes)
    known = opt_einsum.contract_expression(expression, *shapes, optimize=tree.get_path())
    calls = {
        "cotengra": lambda: tree.contract(operands),
        "opt_einsum on cotengra's path": lambda: known(*operands),
    }
    if quimb:
        network = quimb.TensorNetwork([quimb.Tensor(x, term) for x, term in zip(operands, terms, strict=True)])
        calls["quimb"] = lambda: network.contract(optimize=tree.get_path())
    return calls


ROWS: dict[str, Callable[[], Row]] = {
    f"contraction of a {name}, bond {bond}": functools.partial(contraction, name, bond)
    for name in CASES
    for bond in (3, 4)
}
