"""Instances that a kind's ``random`` does not draw: the other layouts, widths and nestings of polyad's own kinds."""

from __future__ import annotations

import torch

from polyad.formats import (
    BlockTensorTrain,
    Circulant,
    Dense,
    Format,
    Householder,
    Kronecker,
    LowDisplacement,
    LowRank,
    Monarch,
    Network,
    Product,
    Quantized,
    Sparse,
    Sum,
    Toeplitz,
    TreeNetwork,
)
from polyad.formats.stored.packing import pack
from polyad.testing._contract import normal, seeded_generator


def variants() -> dict[str, Format]:
    """Formats by name that the contracts are held on besides every kind's own examples; all of float32.

    >>> variants()["sparse_index"]
    Sparse(shape=(24, 8), dtype=float32, parameters=1, bytes=8)
    """
    low, dense = LowRank(normal(6, 2), normal(2, 4)), Dense(normal(6, 4))
    sparse = Sparse.from_dense(normal(6, 4), normal(6, 4, seed=3) > 0.5)
    formats: dict[str, Format] = {
        "sparse_index": Sparse(normal(1), torch.tensor([101], dtype=torch.int32), (24, 8)),
        "sparse_index_int64": Sparse(normal(2), torch.tensor([3, 380]), (24, 16)),
        "sparse_empty": Sparse.from_dense(torch.zeros(6, 4)),
        "sparse_full": Sparse.from_dense(torch.ones(6, 4)),
        "kronecker_prime": Kronecker(normal(1, 5, 1), normal(1, 1, 7)),
        "low_rank_view": LowRank(normal(2, 6).mT, normal(4, 2).mT),
        "low_rank_one": LowRank(normal(6, 1), normal(1, 4)),
        "dense_transposed": Dense(normal(4, 6).mT),
        "quantised_and_corrected": Sum((random_codes((6, 4), 2, (1, 4)), low, sparse)),
        "quantised_factors": Product((random_codes((6, 2), 4, (6, 1)), random_codes((2, 4), 3, (1, 3)))),
        "nested": Product(
            (Sum((dense, low)), Product((Dense(normal(4, 4)), Kronecker(normal(1, 2, 2), normal(1, 2, 3)))))
        ),
        "chain": Product((Dense(normal(5, 3)), Dense(normal(3, 6)), low)),
        "sparse_product": Product((Dense(normal(5, 6)), sparse)),
        "network_fused": Network("apx,bqx,x->(ab)(pq)", (normal(2, 2, 3), normal(3, 2, 3), normal(3))),
        "network_one": Network("ba->ab", (normal(4, 6),)),
        "network_apart": Network("ax,x,by,y->ab", (normal(6, 2), normal(2), normal(4, 3), normal(3))),
        "tree_swapped": TreeNetwork((1, 0), (normal(3, 2), normal(4, 3), normal(6, 2))),
        "mixed_sum": Sum((Dense(normal(6, 4)).to(torch.bfloat16), low)),
        "mixed_product": Product((Dense(normal(5, 6)).to(torch.bfloat16), low)),
    }
    for bits in range(1, 9):
        formats[f"quantised_{bits}_bits"] = random_codes((6, 12), bits, (1, 4))
    formats |= {
        "quantised_ragged": random_codes((7, 10), 3, (4, 3)),
        "quantised_wide_block": random_codes((4, 10), 4, (8, 16)),
        "quantised_whole": random_codes((6, 4), 5, (6, 4)),
        "quantised_centred": random_codes((6, 4), 4, (1, 4), zero=None),
        "quantised_centred_1_bit": random_codes((6, 4), 1, (1, 4), zero=None),
        "quantised_float_zero": random_codes((6, 4), 4, (2, 2), zero=torch.float32),
        "quantised_half_scale": random_codes((6, 4), 4, (1, 2), scale=torch.float16),
    }
    return formats | pattern_variants()


def pattern_variants() -> dict[str, Format]:
    """Matrices of a pattern in the layouts that ``random`` does not draw."""
    zero = torch.cat((normal(6, 2), torch.zeros(6, 1)), 1)
    return {
        "monarch_columns": Monarch(normal(2, 3, 4), normal(4, 2, 1), "columns"),
        "monarch_one_block": Monarch(normal(1, 6, 1), normal(1, 1, 4)),
        "block_tensor_train_columns": BlockTensorTrain(normal(3, 2, 2, 5), normal(2, 5, 3, 4), "columns"),
        "circulant": Circulant(normal(7)),
        "circulant_of_scalars": Circulant(normal(6, 4, 1)),
        "toeplitz_square": Toeplitz(normal(11), 6),
        "low_displacement_square": LowDisplacement(normal(6, 3), normal(6, 3)),
        "low_displacement_transposed": LowDisplacement(normal(8, 2), normal(6, 2), (0.5, -1.0), True),
        "low_displacement_wide_transposed": LowDisplacement(normal(4, 1), normal(6, 1), (1.0, 1.0), True),
        "householder_full": Householder(normal(6, 6), (6, 6)),
        "householder_idle": Householder(zero, (6, 4)),
    }


def random_codes(
    size: tuple[int, ...],
    bits: int,
    block: tuple[int, ...],
    *,
    zero: torch.dtype | None = torch.uint8,
    scale: torch.dtype = torch.float32,
) -> Quantized:
    """Random codes of this width, with one random scale and, unless ``zero`` is None, one zero point a block."""
    codes = torch.randint(0, 2**bits, size, generator=seeded_generator(), dtype=torch.uint8)
    grid = tuple(-(-n // b) for n, b in zip(size, block, strict=True))
    zeros = None if zero is None else ((2**bits - 1) * normal(*grid, seed=4).sigmoid()).to(zero)
    return Quantized(pack(codes, bits), 0.5 + normal(*grid).sigmoid().to(scale), zeros, bits, size, block)
