"""Products of a sparse tensor with all factors but one, on entries that are sorted once a mode."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from polyad import _check
from polyad.decompose.alternating.seen_entries import check_mask, check_shows

_BLOCK = 170_000  # numbers of a block's gathered rows: two such blocks stay in the cache


@dataclass(frozen=True)
class _Block:
    """Consecutive entries in one mode's order: the rows they go to, whence they gather, their values as a matrix."""

    first: int
    last: int
    others: tuple[Tensor, ...]
    values: Tensor


class Entries:
    """A sparse tensor of coalesced index (N, nnz) and values (nnz,), arranged so that MTTKRPs read it in order.

    Each mode keeps the entries in its own order, cut into blocks. A block gathers the rows of the other factors,
    multiplies them and adds them up by row as a product with a sparse matrix that holds the entries' values. So no
    temporary grows with the number of entries, and the gathered rows do not leave the cache. A matrix needs no
    gathering: the other mode is the columns of its sparse matrix. Holds about 4 N + itemsize bytes an entry and mode.
    """

    def __init__(self, index: Tensor, values: Tensor, shape: tuple[int, ...], rank: int) -> None:
        self.shape = shape
        self.size = min(max(_BLOCK // rank, 4096), 16384)
        if len(self.shape) == 2:
            self.size = max(1, len(values))
        with warnings.catch_warnings():  # of compressed sparse matrices being new; what is used of them is tested
            warnings.filterwarnings("ignore", "Sparse", UserWarning)
            self.modes = [self._blocks(index, values, mode) for mode in range(len(self.shape))]

    def mttkrp(self, factors: list[Tensor], mode: int) -> Tensor:
        """``X₍ₙ₎ (⊙ of the other factors)`` (I_n, R) for contiguous factors (I_m, R): 2 N R operations an entry."""
        first, *others = [f for m, f in enumerate(factors) if m != mode]
        rank = first.shape[1]
        out = first.new_zeros(self.shape[mode], rank)
        product, gathered = [first.new_empty(self.size if others else 0, rank) for _ in range(2)]
        for block in self.modes[mode]:
            rows = first
            if others:
                rows = torch.index_select(first, 0, block.others[0], out=product[: len(block.others[0])])
            for factor, index in zip(others, block.others[1:], strict=True):
                rows.mul_(torch.index_select(factor, 0, index, out=gathered[: len(index)]))
            out[block.first : block.last].addmm_(block.values, rows)
        return out

    def sweep(self, factors: list[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Each mode and its product (1, R, I_n) with the other factors (1, R, I_m) as they are at that moment."""
        rows = [factor[0].mT.contiguous() for factor in factors]
        for mode in range(len(factors)):
            yield mode, self.mttkrp(rows, mode).mT.unsqueeze(0)
            rows[mode] = factors[mode][0].mT.contiguous()

    def _blocks(self, index: Tensor, values: Tensor, mode: int) -> list[_Block]:
        """The entries in the order of one mode, which the first mode of coalesced entries has already."""
        if mode:
            order = torch.argsort(index[mode], stable=True)
            index, values = index[:, order], values[order]
        row = index[mode].contiguous()
        others = [index[m].int() for m in range(len(self.shape)) if m != mode]
        place = torch.arange(self.size, dtype=torch.int32, device=row.device)
        blocks = []
        for start in range(0, len(row), self.size):
            cut = slice(start, min(start + self.size, len(row)))
            first, last = int(row[cut.start]), int(row[cut.stop - 1]) + 1
            target = torch.arange(first, last + 1, device=row.device)
            bounds = torch.searchsorted(row[cut], target).int()
            n, gathers = cut.stop - cut.start, len(others) > 1
            columns, width = (place[:n], n) if gathers else (others[0][cut], self.shape[1 - mode])
            matrix = torch.sparse_csr_tensor(
                bounds, columns, values[cut], (last - first, width), check_invariants=False
            )
            blocks.append(_Block(first, last, tuple([i[cut] for i in others]) if gathers else (), matrix))
        return blocks


def seen_entries(x: Tensor, mask: Tensor) -> Tensor:
    """The entries of a coalesced x at which a mask, dense or sparse, is True; zeros where x stores nothing."""
    check_mask(mask, x)
    sparse = (mask if mask.is_sparse else mask.to_sparse()).coalesce()
    index = sparse.indices()[:, sparse.values()]
    check_shows(index.shape[1] > 0)
    stored, wanted = (_flat(i, tuple(x.shape)) for i in (x.indices(), index))
    values = x.values().new_zeros(len(wanted))
    if len(stored):
        place = torch.searchsorted(stored, wanted).clamp(max=len(stored) - 1)
        values = torch.where(stored[place] == wanted, x.values()[place], 0)
    _check.finite("x.values() where mask is True,", values)
    return torch.sparse_coo_tensor(index, values, x.shape, is_coalesced=True, check_invariants=False)


def _flat(index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Positions in row-major order."""
    flat = index[0]
    for row, n in zip(index[1:], shape[1:], strict=True):
        flat = flat * n + row
    return flat
