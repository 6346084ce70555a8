"""The steps of ``convert``: each gives the same tensor in another kind."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyad.einsum import symbol
from polyad.formats.networks.block_term import BlockTerm
from polyad.formats.networks.cp import CP
from polyad.formats.networks.kronecker import Kronecker
from polyad.formats.networks.low_rank import LowRank
from polyad.formats.networks.network import Network
from polyad.formats.networks.tensor_ring import TensorRing
from polyad.formats.networks.tensor_train import TensorTrain
from polyad.formats.networks.train_matrix import TrainMatrix
from polyad.formats.networks.tree_network import TreeNetwork
from polyad.formats.networks.tucker import Tucker
from polyad.formats.stored.dense import Dense
from polyad.formats.structured.circulant import Circulant
from polyad.formats.structured.toeplitz import Toeplitz


def _factors_with_weights(x: CP) -> tuple[Tensor, ...]:
    """The factors of a CP, with its weights in the first."""
    first = x.factors[0] if x.weights is None else x.factors[0] * x.weights.unsqueeze(-2)
    return (first, *x.factors[1:])


def _identity(n: int, lead: tuple[int, ...], like: Tensor) -> Tensor:
    """Identities (*lead, n, n)."""
    return torch.eye(n, dtype=like.dtype, device=like.device).repeat(*lead, 1, 1)


def cp_to_tucker(x: CP) -> Tucker:
    """A core with the weights on its diagonal: R^N numbers."""
    n, r = len(x.factors), x.rank
    weights = x.factors[0].new_ones(*x.factors[0].shape[:-2], r) if x.weights is None else x.weights
    at = torch.arange(r, device=x.device) * sum([r**i for i in range(n)])
    core = weights.new_zeros(*weights.shape[:-1], r**n).index_copy(-1, at, weights)
    return Tucker(core.unflatten(-1, (r,) * n), x.factors)


def cp_to_block_term(x: CP) -> BlockTerm:
    """Terms of ranks one."""
    first, *others = _factors_with_weights(x)
    factors = tuple([factor.mT.unsqueeze(-1) for factor in (first, *others)])
    return BlockTerm(first.new_ones(*first.shape[:-2], x.rank, *[1] * len(factors)), factors)


def cp_to_train(x: CP) -> TensorTrain:
    """Diagonal cores, all bonds of size R."""
    first, *others = _factors_with_weights(x)
    if not others:
        return TensorTrain((first.sum(-1),))
    inner = [torch.diag_embed(factor).transpose(-3, -2).contiguous() for factor in others[:-1]]
    return TensorTrain((first, *inner, others[-1].mT))


def cp_to_low_rank(x: CP) -> LowRank:
    """The factors of two modes, the weights with the first."""
    left, right = _factors_with_weights(x)
    return LowRank(left, right.mT)


def tucker_to_low_rank(x: Tucker) -> LowRank:
    """The core goes to the side that leaves the lower rank."""
    left, right = x.factors[0], x.factors[1].mT
    return LowRank(left, x.core @ right) if x.rank[0] <= x.rank[1] else LowRank(left @ x.core, right)


def tucker_to_block_term(x: Tucker) -> BlockTerm:
    """One term."""
    at = x.batch
    return BlockTerm(x.core.unsqueeze(at), tuple([factor.unsqueeze(at) for factor in x.factors]))


def tucker_to_train(x: Tucker) -> TensorTrain:
    """Factors on both sides of the core pass on to it the bonds of those further out: products of their ranks."""
    ranks, n = x.rank, len(x.factors)
    before = [math.prod(ranks[:i]) for i in range(n + 1)]
    after = [math.prod(ranks[i:]) for i in range(n + 1)]
    sizes = [factor.shape[-2] for factor in x.factors]

    def numbers(middle: int) -> int:
        left = sum([before[i] * sizes[i] * before[i + 1] for i in range(middle)])
        right = sum([after[i] * sizes[i] * after[i + 1] for i in range(middle + 1, n)])
        return left + before[middle] * sizes[middle] * after[middle + 1] + right

    middle = min(range(n), key=numbers)
    cores = []
    for i, factor in enumerate(x.factors):
        if i == middle:
            core = x.core.reshape(*x.core.shape[: x.batch], before[i], ranks[i], after[i + 1])
            cores.append(torch.einsum("...akb,...ik->...aib", core, factor))
        else:
            passed = torch.eye(before[i] if i < middle else after[i + 1], dtype=x.dtype, device=x.device)
            core = torch.einsum("ab,...ik->...aibk" if i < middle else "ab,...ik->...kaib", passed, factor)
            cores.append(core.flatten(-2) if i < middle else core.flatten(-4, -3))
    return TensorTrain.from_three_way(cores, x.core)


def block_term_to_tucker(x: BlockTerm) -> Tucker:
    """A core with the terms' cores along its diagonal."""
    n = len(x.factors)
    core = x.core.new_zeros(*x.core.shape[: x.batch], *[x.terms * r for r in x.rank])
    for k in range(x.terms):
        core[(..., *[slice(k * r, (k + 1) * r) for r in x.rank])] = x.core.select(-n - 1, k)
    return Tucker(core, tuple([factor.transpose(-3, -2).flatten(-2) for factor in x.factors]))


def train_to_ring(x: TensorTrain) -> TensorRing:
    """A first bond of size one."""
    if len(x.cores) == 1:
        return TensorRing(x.cores)
    first, *inner, last = x.cores
    return TensorRing((first.unsqueeze(x.batch), *inner, last.unsqueeze(-1)))


def ring_to_train(x: TensorRing) -> TensorTrain:
    """The index of the first bond is carried to the last core: bonds r_0 r_n."""
    if len(x.cores) == 1:
        return TensorTrain(x.cores)
    first, *inner, last = x.cores
    passed = torch.eye(x.rank[0], dtype=x.dtype, device=x.device)
    between = [torch.einsum("ab,...ris->...aribs", passed, core).flatten(-2).flatten(-4, -3) for core in inner]
    return TensorTrain((first.transpose(-3, -2).flatten(-2), *between, last.movedim(-1, -3).flatten(-3, -2)))


def train_to_tree(x: TensorTrain) -> TreeNetwork:
    """The tree (0, (1, (2, …))); a core becomes an inner node or its leaf, whichever has the fewer numbers."""
    if len(x.cores) == 1:
        return TreeNetwork(0, x.cores)
    first, *inner, last = x.cores
    lead = tuple(first.shape[:-2])
    nodes = [_identity(first.shape[-1], lead, first), first]
    for core in inner:
        r, n, s = core.shape[-3:]
        if n <= r * s:
            nodes += [core.movedim(-3, -1), _identity(n, lead, core)]
        else:
            nodes += [_identity(s * r, lead, core).unflatten(-1, (s, r)), core.movedim(-3, -1).flatten(-2)]
    n = len(x.cores)
    tree: object = n - 1
    for mode in reversed(range(n - 1)):
        tree = (mode, tree)
    return TreeNetwork(tree, (*nodes, last.mT))  # pyright: ignore[reportArgumentType]


def train_to_train_matrix(x: TensorTrain) -> TrainMatrix:
    """Rows split into (n, 1) and columns into (1, m)."""
    first, last = x.cores
    return TrainMatrix((first.unsqueeze(-2), last.unsqueeze(-2)))


def kronecker_to_train_matrix(x: Kronecker) -> TrainMatrix:
    """Two cores, and the number of terms for a bond."""
    return TrainMatrix((x.first.movedim(-3, -1), x.second))


def train_matrix_to_kronecker(x: TrainMatrix) -> Kronecker:
    """Two cores, and a term for each number of their bond."""
    if len(x.cores) != 2:
        raise ValueError(f"{x!r} has {len(x.cores)} cores; only one of two cores is a sum of Kronecker products")
    return Kronecker(x.cores[0].movedim(-1, -3), x.cores[1])


def circulant_to_toeplitz(x: Circulant) -> Toeplitz:
    """One block, its column read twice along the diagonals."""
    if x.columns.shape[-3:-1] != (1, 1):
        raise ValueError(
            f"{x!r} has blocks of size {x.block}; only a circulant matrix of one block is a Toeplitz one"
        )
    column = x.columns[..., 0, 0, :]
    return Toeplitz(torch.cat((column[..., 1:], column), -1), x.block)


def dense_to_network(x: Dense) -> Network:
    """A network of one tensor."""
    letters = "".join([symbol(i) for i in range(x.ndim)])
    return Network(f"{letters}->{letters}", (x.weight,))
