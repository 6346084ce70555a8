"""Exact conversion of a tensor from one kind of format to another."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any, TypeVar

from polyad.formats import _conversions as ways
from polyad.formats.composed.sum import Sum
from polyad.formats.format import Format
from polyad.formats.networks.block_term import BlockTerm
from polyad.formats.networks.cp import CP
from polyad.formats.networks.hadamard import Hadamard
from polyad.formats.networks.kronecker import Kronecker
from polyad.formats.networks.low_rank import LowRank
from polyad.formats.networks.multilinear import Multilinear
from polyad.formats.networks.network import Network
from polyad.formats.networks.symmetric_cp import SymmetricCP
from polyad.formats.networks.tensor_ring import TensorRing
from polyad.formats.networks.tensor_train import TensorTrain
from polyad.formats.networks.train_matrix import TrainMatrix
from polyad.formats.networks.tree_network import TreeNetwork
from polyad.formats.networks.tucker import Tucker
from polyad.formats.stored.dense import Dense
from polyad.formats.structured.block_tensor_train import BlockTensorTrain
from polyad.formats.structured.circulant import Circulant
from polyad.formats.structured.monarch import Monarch
from polyad.formats.structured.toeplitz import Toeplitz

Kind = TypeVar("Kind", bound=Format)

_WAYS: dict[tuple[type[Format], type[Format]], Callable[[Any], Format]] = {
    (BlockTerm, Tucker): ways.block_term_to_tucker,
    (CP, BlockTerm): ways.cp_to_block_term,
    (CP, TensorTrain): ways.cp_to_train,
    (CP, Tucker): ways.cp_to_tucker,
    (Circulant, Toeplitz): ways.circulant_to_toeplitz,
    (Dense, Network): ways.dense_to_network,
    (Hadamard, LowRank): Hadamard.low_rank,
    (Kronecker, TrainMatrix): ways.kronecker_to_train_matrix,
    (LowRank, CP): lambda x: CP((x.left, x.right.mT)),
    (LowRank, TensorTrain): lambda x: TensorTrain((x.left, x.right)),
    (Monarch, BlockTensorTrain): Monarch.block_tensor_train,
    (SymmetricCP, CP): SymmetricCP.cp,
    (TensorRing, TensorTrain): ways.ring_to_train,
    (TensorTrain, TensorRing): ways.train_to_ring,
    (TensorTrain, TreeNetwork): ways.train_to_tree,
    (TrainMatrix, Kronecker): ways.train_matrix_to_kronecker,
    (Tucker, BlockTerm): ways.tucker_to_block_term,
    (Tucker, TensorTrain): ways.tucker_to_train,
}

_OF_MATRICES: dict[tuple[type[Format], type[Format]], Callable[[Any], Format]] = {
    (CP, LowRank): ways.cp_to_low_rank,
    (TensorTrain, LowRank): lambda x: LowRank(*x.cores),
    (TensorTrain, TrainMatrix): ways.train_to_train_matrix,
    (Tucker, LowRank): ways.tucker_to_low_rank,
}
"""Further conversions, of tensors of two modes only."""


def convert(format: Format, kind: type[Kind]) -> Kind:
    """The same tensor as another kind of format: exact but for roundings, differentiable, and mostly larger.

    Every multilinear kind is a ``Network``, every format a ``Dense`` one; all others go along the table of this
    module, by the fewest steps. Bonds are those that always suffice: R for a ``CP`` of rank R as a train, and
    r_0 r_n for a ring as one; ``round`` finds smaller ones. Batches stay. A ``Sum`` is converted term by term where
    the kind can hold the sum of two.

    The shape stays too. A ``TrainMatrix`` is a train only over pairs of its modes, which is a tensor of another
    shape: ``TrainMatrix.train`` and ``from_train`` go there and back.

    Raises ValueError for conversions that do not exist or are not exact, naming those that do.

    >>> import torch
    >>> from polyad.formats import CP, TensorRing, TensorTrain
    >>> x = CP((torch.ones(3, 2), torch.ones(4, 2), torch.ones(5, 2)))
    >>> convert(x, TensorTrain).rank, convert(x, TensorRing).rank, convert(x, TensorTrain).round(tol=1e-6).rank
    ((2, 2), (1, 2, 2), (1, 1))
    """
    if isinstance(format, kind):
        return format
    if isinstance(format, Sum) and kind is not Dense:
        total = reduce(add, [convert(term, kind) for term in format.terms])
        if isinstance(total, kind):
            return total
        raise ValueError(f"the terms of {format!r} do not add up to one {kind.__name__}; convert them one by one")
    path = _paths(format).get(kind)
    if path is None:
        possible = ", ".join(sorted(reached.__name__ for reached in _paths(format)))
        raise ValueError(
            f"{format!r} cannot be converted to {kind.__name__} exactly; choose from {possible}, or approximate it "
            "by a "
            "decomposition of its to_dense()"
        )
    for step in path:
        format = step(format)
    assert isinstance(format, kind)
    return format


def _paths(format: Format) -> dict[type[Format], list[Callable[[Any], Format]]]:
    """The shortest chain of conversions to each kind that can be reached."""
    ways = _WAYS | _OF_MATRICES if _modes(format) == 2 else _WAYS
    chains: dict[type[Format], list[Callable[[Any], Format]]] = {type(format): []}
    for here in (queue := [type(format)]):
        near = {there: step for (start, there), step in ways.items() if start is here}
        if issubclass(here, Multilinear):
            near.setdefault(Network, lambda x: Network(*x.network()))
        for there, step in near.items():
            if there not in chains:
                chains[there] = [*chains[here], step]
                queue.append(there)
    del chains[type(format)]
    return {Dense: [lambda x: Dense(x.to_dense())], **chains}


def _modes(format: Format) -> int:
    return (
        format.order if isinstance(format, SymmetricCP) else format.ndim - getattr(format, "batch", format.ndim - 2)
    )
