"""The ranks of a Tucker decomposition, or of a tree of tensors, that make the most of a budget."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.decompose.ranks._tree_shapes import tree_shapes
from polyad.decompose.ranks.spectra import mode_spectra
from polyad.formats.networks.binary_tree import Tree, leaves
from polyad.linalg import left_singular, mode_product, near_unit, unfold

_CHUNK = 1 << 20  # partial shapes looked at together


@method(
    "solve",
    example={
        "arguments": lambda g: {"x": torch.randn(4, 5, 3, generator=g, dtype=torch.float64), "budget": 40},
        "off": lambda ranks, x, budget: _regret(ranks, x, budget),
        "scale": ("x",),
    },
    instead=(
        "On tensors whose modes are far from independent, where the spectra of the modes alone choose ranks "
        "up to an eighth worse than the best: `measured=True`, which decomposes the candidates and stays "
        "within 2 %."
    ),
    papers=(
        Paper(
            "Ghadiri, Fahrbach, Fu, Mirrokni",
            2023,
            "Approximately Optimal Core Shapes for Tensor Decompositions",
            "arXiv:2302.03886",
            handle="core-shapes",
            adds="ranks from the spectra of the modes alone, as an integer programme over the numbers stored",
        ),
    ),
)
def core_shapes(x: Tensor, budget: int, *, tree: Tree | None = None, measured: bool = False) -> tuple[int, ...]:
    """The ranks of a Tucker decomposition with at most ``budget`` numbers that keep most of the modes' spectra.

    x has shape (I₁, …, I_N), N >= 2. The ranks R maximise the squared singular values of the unfoldings that they
    keep, summed over modes, subject to ``∏ R_n + Σ I_n R_n <= budget``; so they minimise the bound that the
    higher-order singular value decomposition sets on the squared error, and one decomposition of each unfolding is
    all that is computed. The programme is solved exactly, where the paper calls a solver or approximates: partial
    shapes grow mode by mode, those that cannot beat a greedy shape even if every other mode had all of what is left
    are dropped, and the last rank follows. With three modes that is at most I₁ I₂ partial shapes.

    With ``measured``, which departs from the paper, the ranks minimise the error of that decomposition itself, cut to
    them: its core is computed once, and the squares in each of its corners are the error's complement. Costs
    2 numel(x) Σ I_n operations more and two tensors of x's size; worth it where spectra are flat, as of weights.

    With ``tree``, which nests pairs of mode numbers, the ranks are those that ``hierarchical_tucker`` takes, a number
    for each node but the root, and the spectra those of the unfoldings at every bond. Solved by fronts of numbers
    and losses from the leaves up, to about a hundredth of the loss a level.

    Raises ValueError where not even ranks of one fit.

    >>> x = torch.zeros(6, 6, 6)
    >>> x[:3, :2, 0] = torch.tensor([[3.0, 1.0], [0.0, 2.0], [0.0, 0.1]])
    >>> core_shapes(x, 35), core_shapes(x, 19), core_shapes(x, 35, tree=(0, (1, 2)))
    ((2, 2, 1), (1, 1, 1), (1, 1, 2, 1))
    """
    _check.floating("x", x)
    _check.finite("x", _check.dimensions("x", x, 2))
    shape = tuple(x.shape)
    if tree is not None:
        return _tree_ranks(x, budget, tree, measured)
    if budget < 1 + sum(shape):
        raise ValueError(f"budget={budget} does not hold ranks of one, which store {1 + sum(shape)} numbers")
    if measured:
        return _largest_corner(x, budget)
    gains = [torch.cat((s.new_zeros(1), s.cumsum(0))) for s in mode_spectra(x)]
    best, value = _greedy(gains, shape, budget)
    better = _search(gains, shape, budget, value)
    return best if better is None else better


def _tree_ranks(x: Tensor, budget: int, tree: Tree, measured: bool) -> tuple[int, ...]:
    if isinstance(tree, int) or sorted(leaves(tree)) != list(range(x.ndim)):
        raise ValueError(f"tree={tree} must nest the {x.ndim} modes of x, 0 to {x.ndim - 1}, in pairs")
    if measured:
        raise ValueError("measured=True is for Tucker decompositions; leave it out, or leave out tree")
    least = x.ndim - 1 + sum(x.shape)
    if budget < least:
        raise ValueError(f"budget={budget} does not hold bonds of one, which store {least} numbers")
    work, _ = near_unit(x.detach().double(), x.ndim)
    return tree_shapes(work / work.norm().clamp_min(torch.finfo(torch.float64).tiny), budget, tree)


def _largest_corner(x: Tensor, budget: int) -> tuple[int, ...]:
    """The ranks whose corner of the higher-order singular value decomposition's core holds most within the budget."""
    core, _ = near_unit(x.detach().double(), x.ndim)
    stored, product = torch.zeros((), dtype=torch.long), torch.ones((), dtype=torch.long)
    for mode, n in enumerate(x.shape):
        core = mode_product(core, left_singular(unfold(core, mode), n, exact=True)[0].mT, mode)
    squares = core.square()
    for mode, n in enumerate(x.shape):
        squares = squares.cumsum(mode)
        rank = torch.arange(1, n + 1).reshape(-1, *[1] * (x.ndim - 1 - mode))
        stored, product = stored + n * rank, product * rank
    squares = squares.masked_fill((stored + product > budget).to(x.device), -1)
    place, ranks = int(squares.argmax()), list[int]()
    for n in reversed(x.shape):
        place, r = divmod(place, n)
        ranks.append(r + 1)
    return tuple(reversed(ranks))


def _greedy(gains: list[Tensor], shape: tuple[int, ...], budget: int) -> tuple[tuple[int, ...], float]:
    """Grow ranks one at a time by gain for each number stored; the ranks and the squares that they keep."""
    ranks = [1] * len(shape)

    def storage(ranks: list[int]) -> int:
        core = 1
        for r in ranks:
            core *= r
        return core + sum(n * r for n, r in zip(shape, ranks, strict=True))

    while True:
        tried: list[tuple[float, int]] = []
        for mode, r in enumerate(ranks):
            larger = [*ranks[:mode], r + 1, *ranks[mode + 1 :]]
            if r < shape[mode] and storage(larger) <= budget:
                tried.append((float(gains[mode][r + 1] - gains[mode][r]) / (storage(larger) - storage(ranks)), mode))
        if not tried:
            return tuple(ranks), sum(float(g[r]) for g, r in zip(gains, ranks, strict=True))
        ranks[max(tried)[1]] += 1


def _search(gains: list[Tensor], shape: tuple[int, ...], budget: int, value: float) -> tuple[int, ...] | None:
    """Search the shape that keeps most, depth first over chunks; None where none keeps more than ``value``."""
    best: tuple[int, ...] | None = None
    stack = [torch.zeros((1, 0), dtype=torch.long)]
    while stack:
        partial = stack.pop()
        mode = partial.shape[1]
        core, spent, gained = _sums(partial, gains, shape)
        rest = budget - spent - sum(shape[mode:])  # once every open mode has its rank of one
        bound = gained.clone()
        for other in range(mode, len(shape)):
            most = ((rest + shape[other]) // (core + shape[other])).clamp(max=shape[other])
            bound += gains[other][most.clamp(min=0)]
            bound[most < 1] = -torch.inf
        open_ = bound > value * (1 + 1e-12)
        partial, core, spent, bound = partial[open_], core[open_], spent[open_], bound[open_]
        if not len(partial):
            continue
        if mode == len(shape) - 1:  # the bound is what the shape keeps
            top = int(bound.argmax())
            last = min(int((budget - spent[top]) // (core[top] + shape[-1])), shape[-1])
            value, best = float(bound[top]), (*partial[top].tolist(), last)
            continue
        partial = partial[bound.argsort()]  # the most promising comes off the stack first
        step = max(1, _CHUNK // shape[mode])
        choices = torch.arange(1, shape[mode] + 1)
        for part in partial.split(step):
            stack.append(torch.cat((part.repeat_interleave(len(choices), 0), choices.repeat(len(part))[:, None]), 1))
    return best


def _sums(partial: Tensor, gains: list[Tensor], shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """The product of ranks, the numbers in the factors, and the squares kept, of partial shapes (count, modes)."""
    modes = partial.shape[1]
    core = partial.prod(1)
    spent = (partial * torch.tensor(shape[:modes], dtype=torch.long)).sum(1)
    gained = torch.zeros(len(partial), dtype=torch.float64)
    for mode in range(modes):
        gained += gains[mode][partial[:, mode]]
    return core, spent, gained


def _regret(ranks: tuple[int, ...], x: Tensor, budget: int) -> float:
    """The part that the best shape within the budget keeps beyond these ranks; two where these pass the budget."""
    gains = [s.double().cumsum(0) for s in mode_spectra(x)]
    every = torch.cartesian_prod(*[torch.arange(1, n + 1) for n in x.shape])
    stored = every.prod(1) + (every * torch.tensor(x.shape)).sum(1)
    energy = torch.stack([gain[every[:, mode] - 1] for mode, gain in enumerate(gains)]).sum(0)
    chosen = (every == torch.tensor(ranks)).all(1)
    if not bool(chosen.any()) or int(stored[chosen]) > budget:
        return 2.0
    return float((energy[stored <= budget].max() - energy[chosen]) / energy.max()) / 1e-6
