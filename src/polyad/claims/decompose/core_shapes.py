"""Core shapes chosen from spectra against greedy and exhaustive choices, on images, measurements and weights.

About two minutes. The paper's knowledge graphs are in no package installed here; small parts of tensors are taken, so
that every shape can be tried.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from polyad._callback import Callback
from polyad.claims.record import Result
from polyad.decompose import core_shapes, hierarchical_tucker, st_hosvd
from polyad.models import load

MINUTES = 2
SIZE = (12, 20, 16)
SHARES = (0.05, 0.15, 0.4)


def weight_stacks() -> dict[str, Tensor]:
    """Corners of one layer's weights in twelve layers, (12, 20, 16), for three of SmolLM2's matrices."""
    layers = load("smollm2", dtype=torch.float32).model.layers[: SIZE[0]]
    paths = {"keys": "self_attn.k_proj", "output": "self_attn.o_proj", "down": "mlp.down_proj"}
    return {
        name: torch.stack([layer.get_submodule(path).weight.detach()[: SIZE[1], : SIZE[2]] for layer in layers])
        for name, path in paths.items()
    }


def measurements() -> dict[str, Tensor]:
    """Parts of tensorly's data: a stack of pictures in sixteen colours, and fluorescence over time."""
    from tensorly.datasets import load_indian_pines, load_kinetic

    pines = torch.from_numpy(load_indian_pines().tensor).float()
    kinetic = torch.from_numpy(load_kinetic().tensor).float().nan_to_num()
    return {"pictures": pines[::12, ::7, ::12][:12, :20, :16], "fluorescence": kinetic[::4, 0, :, ::3]}


def error(x: Tensor, rank: tuple[int, ...]) -> float:
    """The relative error of the Tucker decomposition of these ranks."""
    return float((st_hosvd(x, rank, sketch=False).to_dense() - x).norm() / x.norm())


def number_count(rank: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """The numbers that a Tucker tensor of these ranks holds."""
    return math.prod(rank) + sum(n * r for n, r in zip(shape, rank, strict=True))


def greedy(x: Tensor, budget: int) -> tuple[tuple[int, ...], int]:
    """Ranks grown one at a time by what decomposing again shows to be lost, and how often that was done."""
    rank, count = (1, 1, 1), 0
    while True:
        larger = [tuple(r + (i == mode) for i, r in enumerate(rank)) for mode in range(3)]
        fits = [
            all(a <= n for a, n in zip(r, x.shape, strict=True)) and number_count(r, tuple(x.shape)) <= budget
            for r in larger
        ]
        larger = list(itertools.compress(larger, fits))
        if not larger:
            return rank, count
        count += len(larger)
        rank = min(larger, key=lambda r: error(x, r))


def of_tree(name: str, x: Tensor, budget: int) -> dict[str, Any]:
    """The bonds chosen for the tree (0, (1, 2)), their error, and that of the best bonds found by growing."""
    tree, bonds = (0, (1, 2)), (1, 1, 1, 1)

    def left(bonds: tuple[int, ...]) -> tuple[float, int]:
        network = hierarchical_tucker(x, bonds, tree=tree)
        return float((network.to_dense() - x).norm() / x.norm()), network.parameters

    count = 0
    while True:  # the two bonds of the root are one
        tried = [
            (r + i, r + i, a + j, b + k)
            for r, _, a, b in [bonds]
            for i, j, k in torch.eye(3, dtype=torch.long).tolist()
        ]
        better = [(left(one), one) for one in tried if one[0] <= x.shape[0] and one[2] <= x.shape[1]]
        better = [one for one in better if one[0][1] <= budget and one[0][0] < left(bonds)[0]]
        count += len(tried)
        if not better:
            break
        bonds = min(better)[1]
    chosen = core_shapes(x, budget, tree=tree)
    ours, theirs = left(chosen)[0], left(bonds)[0]
    return {"tensor": name, "budget": budget, "chosen": chosen, "error": ours, "greedy": bonds,
            "greedy's error": theirs, "over greedy": ours / theirs, "greedy's decompositions": count}  # fmt: skip


def worst_of(details: Iterable[Mapping[str, Any]], tensor: str) -> dict[str, float]:
    """The largest ratios of errors over the budgets of one tensor."""
    keys = ("over the best", "over greedy", "measured over the best")
    return {key: max(case[key] for case in details if case["tensor"] == tensor) for key in keys}


def claim(callback: Callback | None = None) -> Result:
    """Ranks from spectra alone lose hardly more than the best of all ranks."""
    details, worst, trees = list[dict[str, Any]](), 0.0, list[dict[str, Any]]()
    tensors = measurements() | weight_stacks()
    for place, (name, x) in enumerate(tensors.items()):
        every = {rank: error(x, rank) for rank in itertools.product(*[range(1, n + 1) for n in x.shape])}
        for share in SHARES:
            budget = round(share * x.numel())
            clock = time.perf_counter()
            chosen = core_shapes(x, budget)
            seconds = time.perf_counter() - clock
            grown, decompositions = greedy(x, budget)
            best = min(
                (rank for rank in every if number_count(rank, tuple(x.shape)) <= budget), key=lambda rank: every[rank]
            )
            worst = max(worst, every[chosen] / every[best])
            checked = core_shapes(x, budget, measured=True)
            details.append({
                "tensor": name, "budget": budget, "chosen": chosen, "error": every[chosen], "seconds": seconds,
                "greedy": grown, "greedy's error": every[grown], "greedy's decompositions": decompositions,
                "best": best, "best's error": every[best], "over the best": every[chosen] / every[best],
                "over greedy": every[chosen] / every[grown], "measured": checked,
                "measured over the best": every[checked] / every[best], "shapes tried for the best": len(every),
            })  # fmt: skip
            trees.append(of_tree(name, x, budget))
        if callback is not None:
            callback(place + 1, len(tensors), {"stage": "tensors"})
    digest = {name: hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest() for name, x in tensors.items()}
    return Result(
        "the ranks chosen from the spectra of the modes alone leave a relative error within 2 % of that of the best "
        "ranks within the budget, found by trying all, on pictures, measurements and weights",
        worst, "<=", 1.02, digest, 0,
        {"worst by tensor": {name: worst_of(details, name) for name in tensors}, "cases": details, "trees": trees},
    )  # fmt: skip
