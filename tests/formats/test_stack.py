"""Weights below each other: their product is the concatenation of theirs, or there is none."""

import pytest
import torch

from polyad.formats import Dense, Format, LowRank, Quantized, Sum, stack_rows
from polyad.quantize import round_to_nearest


def weights(rows, columns=96):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, columns, generator=generator) for n in rows]


def quantised(rows, **grid):
    return [round_to_nearest(w, **grid) for w in weights(rows)]


def sums(rows):
    return [Sum((q, Dense(w))) for q, w in zip(quantised(rows, bits=4, group=32), weights(rows), strict=True)]


FITTING = {
    "tensors": weights((5, 3)), "parameter and tensor": [torch.nn.Parameter(weights((2,))[0]), weights((3,))[0]],
    "dense": [Dense(w) for w in weights((5, 3))], "groups": quantised((5, 3, 3), bits=4, group=32),
    "three bits, short groups": quantised((5, 3), bits=3, group=40), "rows": quantised((5, 3), bits=8, group=None),
    "sums": sums((4, 7)),
}  # fmt: skip


@pytest.mark.parametrize("parts", FITTING.values(), ids=list(FITTING))
def test_the_product_is_the_concatenation(parts):
    whole = stack_rows(parts)
    x = torch.randn(2, 96, generator=torch.Generator().manual_seed(1))
    expected = [p.linear(x) if isinstance(p, Format) else x @ p.mT for p in parts]
    result = whole.linear(x) if isinstance(whole, Format) else x @ whole.mT
    torch.testing.assert_close(result, torch.cat(expected, -1))


@pytest.mark.parametrize(
    "parts",
    [
        [weights((2,))[0], weights((2,), 95)[0]],
        [weights((2,))[0], weights((2,))[0].double()],
        [*quantised((4,), bits=4, group=32), *quantised((4,), bits=3, group=32)],
        [*quantised((4,), bits=4, group=32), *quantised((4,), bits=4, group=48)],
        [Dense(weights((2,))[0]), weights((2,))[0]],
        [LowRank(torch.ones(4, 1), torch.ones(1, 96))] * 2,
    ],
)
def test_none_where_they_do_not_fit(parts):
    assert stack_rows(parts) is None


def test_no_weights_are_refused():
    with pytest.raises(ValueError, match="weights is empty"):
        stack_rows([])


def test_rows_that_share_a_scale_stack_where_blocks_are_whole():
    w = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    codes = (w.sign() > 0).to(torch.uint8)
    block = Quantized(codes, torch.ones(2, 1), None, 8, (4, 8), (2, 8))
    ragged = Quantized(codes[:3], torch.ones(2, 1), None, 8, (3, 8), (2, 8))
    assert stack_rows([block, ragged]).size == (7, 8)
    assert stack_rows([ragged, block]) is None
