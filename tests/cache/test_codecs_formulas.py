"""Codecs of few coordinates against dense computations of what their docstrings state, in float64."""

import math

import pytest
import torch

from polyad._card import card
from polyad.cache import XKV, MatryoshkaKV, Metric, Palu, Place, StreamingLLM, fisher_ranks, token_alignment
from polyad.formats import Dense, LowRank
from polyad.quantize import round_to_nearest

HEADS, WIDTH, TOKENS = 2, 4, 60
SIZE = HEADS * WIDTH


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(seed=0, offset=0.0):
    """Keys or values of all heads side by side (tokens, H d), no two directions of one size, and as a cache's."""
    x = seeded(TOKENS, SIZE, seed=seed) @ seeded(SIZE, SIZE, seed=seed + 1) + offset * seeded(SIZE, seed=seed + 2)
    return x, x.unflatten(-1, (HEADS, WIDTH)).transpose(0, 1)[None]


def side_by_side(x):
    return x[0].transpose(0, 1).flatten(1)


def place(**seen):
    return Place(0, torch.nn.Identity(), 2 * HEADS, HEADS, seen)


def near(result, expected, tol=1e-8):
    torch.testing.assert_close(result, expected, rtol=tol, atol=tol)


def leading(moment, rank):
    """The projection onto the eigenvectors of the largest eigenvalues."""
    values, vectors = torch.linalg.eigh(moment)
    assert values.diff().min() > 1e-6
    return vectors[:, -rank:] @ vectors[:, -rank:].mT


def half(matrix, power):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values**power @ vectors.mT


@pytest.mark.parametrize(("rank", "value_rank"), [(3, 5), (1, 1), (8, 8), (3, None)])
def test_metric_keeps_the_coordinates_that_make_the_error_of_scores_least(rank, value_rank):
    (keys, k), (values, v) = rows(0), rows(5)
    blocks = torch.stack([seeded(WIDTH, WIDTH, seed=20 + h) for h in range(HEADS)])
    blocks = blocks @ blocks.mT + 0.1 * torch.eye(WIDTH)
    seen = {"keys": keys.mT @ keys / TOKENS, "values": values.mT @ values / TOKENS, "metric": blocks}
    codec = Metric(place(**seen), rank=rank, value_rank=value_rank)
    M = torch.block_diag(*blocks)
    root, inverse = half(M, 0.5), half(M, -0.5)
    kept = leading(root @ seen["keys"] @ root, rank)
    stored = codec.encode(k, v, k)
    near(side_by_side(codec.keys(stored[0])), keys @ root @ kept @ inverse)
    expected = values if value_rank is None else values @ leading(seen["values"], value_rank)
    near(side_by_side(codec.values(stored[1])), expected)
    for name in ("rank", "value_rank"):
        with pytest.raises(ValueError, match=f"^{name}={SIZE + 1} exceeds"):
            Metric(place(**seen), **{"rank": 2, name: SIZE + 1})


def test_metric_rounds_keys_by_channel_and_values_by_token():
    (keys, k), (values, v) = rows(0), rows(5)
    metric = torch.eye(WIDTH, dtype=torch.float64).expand(HEADS, -1, -1)
    seen = {"keys": keys.mT @ keys, "values": values.mT @ values, "metric": metric}
    exact = Metric(place(**seen), rank=4, value_rank=4).encode(k, v, k)
    coded = Metric(place(**seen), rank=4, value_rank=4, bits=3, value_bits=5, group=4).encode(k, v, k)
    for whole, one, bits, block in zip(exact, coded, (3, 5), ((4, 1), 4), strict=True):
        rounded = round_to_nearest(whole.left, bits, group=block, zero_dtype=torch.float16).to_dense()
        near(one.to_dense(), rounded @ whole.right)
    plain = Metric(place(**seen), rank=4, value_bits=5, group=4)
    expected = round_to_nearest(v, 5, group=4, zero_dtype=torch.float16).to_dense()
    near(plain.values(plain.encode(k, v, k)[1]), expected)
    assert Metric(place(**seen), rank=4, bits=3, group=4).block == 4
    assert Metric(place(**seen), rank=4, value_bits=3, group=4).block == 1


@pytest.mark.parametrize(("rank", "value_rank"), [(2, 3), (2, None), ((1, 3), (4, 2)), ((2, 2), 1)])
def test_matryoshka_keeps_the_principal_coordinates_around_the_mean(rank, value_rank):
    """Of the covariance: with a mean larger than the spread, its direction would be the first of the moments'."""
    (keys, k), (values, v) = rows(0, 3.0), rows(5, 3.0)
    seen = {}
    for name, x in (("key", keys), ("value", values)):
        seen |= {f"{name}s": x.mT @ x / TOKENS, f"{name}_mean": x.mean(0)}
    codec = MatryoshkaKV(place(**seen), rank=rank, value_rank=value_rank)
    stored = codec.encode(k, v, k)
    sides = (codec.keys(stored[0]), codec.values(stored[1]))
    for x, ranks, back in zip((keys, values), (rank, rank if value_rank is None else value_rank), sides, strict=True):
        ranks = (ranks,) * HEADS if isinstance(ranks, int) else ranks
        centred = x - x.mean(0)
        kept = [leading(c.mT @ c, r) for c, r in zip(centred.split(WIDTH, 1), ranks, strict=True)]
        near(side_by_side(back), x.mean(0) + centred @ torch.block_diag(*kept))


def test_matryoshka_takes_the_first_columns_of_trained_bases_and_refuses_ranks_beyond_them():
    _, x = rows(0)
    bases = torch.stack([torch.linalg.qr(seeded(WIDTH, WIDTH, seed=h)).Q for h in range(HEADS)])
    seen = {"key_basis": bases, "value_basis": bases.flip(0), "key_mean": seeded(SIZE), "value_mean": seeded(SIZE)}
    codec = MatryoshkaKV(place(**seen), rank=3)
    mean = seeded(SIZE).view(HEADS, 1, WIDTH)
    for back, basis in zip((codec.keys, codec.values), (bases, bases.flip(0)), strict=True):
        stored = codec.encode(x, x, x)[0 if back == codec.keys else 1]
        near(back(stored)[0], mean + (x[0] - mean) @ basis[..., :3] @ basis[..., :3].mT)
    assert MatryoshkaKV(place(**seen), rank=(4, 1)).encode(x, x, x)[0].left.shape[-1] == 5
    with pytest.raises(ValueError, match=r"^rank=5 exceeds the channels of a head of layer 0"):
        MatryoshkaKV(place(**seen), rank=(1, 5))
    with pytest.raises(ValueError, match=r"ranks \(1, 1, 1\) must give one for each of the 2 key heads"):
        MatryoshkaKV(place(**seen), rank=(1, 1, 1))


@pytest.mark.parametrize("heads", [1, 2, None])
@pytest.mark.parametrize(("rank", "value_rank"), [(3, 2), (2, None)])
def test_palu_keeps_the_leading_directions_of_each_group_of_heads(heads, rank, value_rank):
    (keys, k), (values, v) = rows(0), rows(5)
    seen = {"keys": keys.mT @ keys, "values": values.mT @ values}
    codec = Palu(place(**seen), rank=rank, value_rank=value_rank, heads=heads)
    together = WIDTH * (HEADS if heads is None else heads)
    stored = codec.encode(k, v, k)
    sides = (codec.keys(stored[0]), codec.values(stored[1]))
    for x, r, back in zip((keys, values), (rank, rank if value_rank is None else value_rank), sides, strict=True):
        kept = [leading(part.mT @ part, r) for part in x.split(together, 1)]
        near(side_by_side(back), x @ torch.block_diag(*kept))
    for name in ("rank", "value_rank"):
        Palu(place(**seen), heads=heads, **{"rank": 2, name: together})
        with pytest.raises(ValueError, match=f"^{name}={together + 1} exceeds the {together} channels of"):
            Palu(place(**seen), heads=heads, **{"rank": 2, name: together + 1})


@pytest.mark.parametrize("rank", [4, 6, 7])
def test_palu_rounds_by_token_after_a_rotation_of_as_many_neighbours_as_a_power_of_two_divides(rank):
    keys, k = rows(0)
    seen = {"keys": keys.mT @ keys, "values": keys.mT @ keys}
    exact = Palu(place(**seen), rank=rank).encode(k, k, k)[0]
    coded = Palu(place(**seen), rank=rank, bits=4, group=2 if rank < 7 else 1).encode(k, k, k)
    width = rank & -rank
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(int(math.log2(width))):
        hadamard = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), hadamard) / 2**0.5
    turn = torch.block_diag(*[hadamard] * (rank // width))
    latent = round_to_nearest(exact.left @ turn, 4, group=2 if rank < 7 else 1, zero_dtype=torch.float16).to_dense()
    for one in coded:
        near(one.to_dense(), latent @ turn.mT @ exact.right)


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e6])
def test_ranks_follow_the_root_of_the_information_and_what_is_capped_goes_to_the_others(size):
    """The information of layer and side, then the ranks in proportion to its root, up to full rank."""
    roots = [1.0, 1.0, 1.0, 9.0, 2.0, 2.0]
    found = [
        {"key_fisher": size * k**2 * torch.eye(8), "value_fisher": size * v**2 * torch.eye(8)}
        for k, v in zip(roots[::2], roots[1::2], strict=True)
    ]
    ranked = fisher_ranks([{"kept": torch.ones(1)}, {}, {}], found, 0.5)
    ranks = [int(layer[f"{side}_rank"]) for layer in ranked for side in ("key", "value")]
    assert sum(ranks) == 24
    assert ranks[3] == 8  # 13.5 would be its share; what is left of it goes to the others
    assert ranks == [2, 2, 2, 8, 5, 5]
    assert "kept" in ranked[0]
    mixed = [{"key_fisher": torch.diag(torch.tensor([0.0, 2.0])), "value_fisher": torch.eye(2)}]
    ((key, value),) = [(int(s["key_rank"]), int(s["value_rank"])) for s in fisher_ranks([{}], mixed, 0.5)]
    assert (key, value) == (1, 1)  # the mean of the diagonal counts


@pytest.mark.parametrize(
    ("keep", "groups", "unit"), [(0.3, 1, 2), (0.5, 2, 1), (0.9, 1, 3), (1.0, 1, 4), (0.05, 1, 2)]
)
def test_fisher_ranks_are_units_within_the_budget(keep, groups, unit):
    found = [{"key_fisher": torch.eye(8) * (1 + i), "value_fisher": torch.eye(8) * 0.1} for i in range(3)]
    ranked = fisher_ranks([{}] * 3, found, keep, groups=groups, unit=unit)
    ranks = [int(layer[f"{side}_rank"]) for layer in ranked for side in ("key", "value")]
    full = 8 // groups
    assert all(unit <= r <= full and (r % unit == 0 or r == full) for r in ranks)
    assert sum(ranks) <= max(keep * 6 * full, 6 * unit)
    if keep > 0.1:
        assert sum(ranks) > keep * 6 * full - unit - 1
    order = sorted(range(3), key=lambda i: ranks[2 * i])
    assert [ranks[2 * i] for i in order] == [ranks[0], ranks[2], ranks[4]]


def test_xkv_gives_values_the_rank_of_keys_unless_told_and_leaves_few_tokens_exact():
    entries = [(rows(i)[1], rows(9 + i)[1]) for i in range(4)]
    for value_rank in (None, 3):
        codec = XKV(place(), rank=5, value_rank=value_rank)
        pairs = codec.encode_layers(entries, [k for k, _ in entries])
        for side, rank in ((0, 5), (1, 5 if value_rank is None else value_rank)):
            whole = torch.cat([side_by_side(e[side]) for e in entries], -1)
            u, s, v = torch.linalg.svd(whole, full_matrices=False)
            best = (u[:, :rank] * s[:rank] @ v[:rank]).split(SIZE, -1)
            for pair, expected in zip(pairs, best, strict=True):
                assert isinstance(pair[side], LowRank)
                assert pair[side].left.shape[-1] == rank
                near(side_by_side((codec.keys, codec.values)[side](pair[side])), expected)
    for count, kind in ((4, Dense), (5, LowRank), (6, LowRank)):
        few = [(k[..., :count, :], v[..., :count, :]) for k, v in entries]
        assert isinstance(XKV(place(), rank=5).encode_layers(few, [k for k, _ in few])[0][0], kind)


@pytest.mark.parametrize("name", ["rank", "value_rank", "block"])
def test_xkv_names_what_is_below_one(name):
    with pytest.raises(ValueError, match=f"^{name}=0 is below 1"):
        XKV(place(), **{"rank": 2, name: 0})
    assert XKV(place(), **{"rank": 1, name: 1}).block == 1


@pytest.mark.parametrize("sinks", [0, 1, 4, 7])
def test_streaming_keeps_its_sinks_also_of_tokens_that_come_one_by_one(sinks):
    codec = StreamingLLM(place(), sinks=sinks)
    assert codec.block == max(1, sinks)
    assert codec.keep == 1
    first = torch.zeros(2, HEADS, 9)
    first[0, :, :3] = -1  # padding, which is passed over
    chosen = codec.choose([(torch.zeros(2, HEADS, 9, WIDTH),) * 2], [first], 0, [0])[0]
    after = [*range(3, 9), *range(3)][:sinks]  # padding stays only where there is nothing else
    assert chosen[0].tolist() == [sorted(after)] * HEADS
    assert chosen[1].tolist() == [list(range(sinks))] * HEADS
    for left, held in ((9, sinks), (9, 0), (0, 1)):
        assert codec.choose([(torch.zeros(2, HEADS, 9, WIDTH),) * 2], [first], left, [held])[0].shape[-1] == 0


@pytest.mark.parametrize("sort", [True, False])
def test_ksort_orders_the_channels_of_each_head_by_size_and_keeps_the_order_of_equal_ones(sort):
    sizes = torch.tensor([[1.0, 3.0, 3.0, 2.0, *[3.0] * 30], [5.0, 1.0, 5.0, 9.0, *[5.0] * 30]])
    codec = card("ksort_bfp").function(place(keys=sizes.flatten().diag()), group=2, sort=sort)
    for head, order in zip(sizes.tolist(), codec.order.tolist(), strict=True):
        assert order == (sorted(range(34), key=lambda i: -head[i]) if sort else list(range(34)))


def test_staircase_gives_each_part_of_the_tokens_its_bits():
    x = seeded(2, 20, 8)
    steps = card("staircase").function(x, (2, 3, 8), share=(0.25, 0.5, 0.25), group=8)
    for step, (first, end, bits) in zip(steps, ((0, 5, 2), (5, 15, 3), (15, 20, 8)), strict=True):
        assert step.bits == bits
        assert torch.equal(step.to_dense(), round_to_nearest(x[:, first:end], bits, group=8).to_dense())
    assert [q.bits for q in card("staircase").function(x, (2, 4), share=(0.0, 1.0), group=8)] == [4]
    for share in ((0.5, 0.6), (0.5,), (1.5, -0.5), (0.5, 0.4)):
        with pytest.raises(ValueError, match=r"must give bits=\(2, 4\) a part each, that sum to 1"):
            card("staircase").function(x, (2, 4), share=share)


def test_alignment_is_the_mean_squared_cosine_of_leading_directions_of_tokens_and_refuses_more_than_there_are():
    x = torch.stack([rows(seed)[0][:12] for seed in (0, 5, 9)])
    u = torch.linalg.svd(x, full_matrices=False)[0][..., :3]
    expected = torch.stack([torch.stack([(a.mT @ b).square().sum() / 3 for b in u]) for a in u])
    near(token_alignment(x, rank=3), expected)
    assert token_alignment(x, rank=SIZE).shape == (3, 3)
    with pytest.raises(ValueError, match=f"^rank={SIZE + 1} exceeds the smaller side of x"):
        token_alignment(x, rank=SIZE + 1)


def test_vidkv_saves_the_tokens_that_the_last_64_queries_attend_to_most():
    """In the mean over them and over the query heads of a key head; one query more would choose another token."""
    keys, values = seeded(1, HEADS, 64, 8), seeded(1, HEADS, 64, 8, seed=1)
    queries = 0.5 * seeded(1, 2 * HEADS, 80, 8, seed=2)
    weights = (queries[:, :, -64:] @ keys.repeat_interleave(2, 1).mT / 8**0.5).softmax(-1).mean(2)
    expected = weights.unflatten(1, (HEADS, 2)).mean(2).argsort(-1, descending=True)
    for head in range(HEADS):  # all of its attention to a token that is not among the most attended
        queries[0, 2 * head : 2 * head + 2, -65] = 1e4 * keys[0, head, expected[0, head, 20]]
    most = (queries[0, ::2, -65].unsqueeze(1) @ keys[0].mT).argmax(-1).flatten()
    codec = card("vidkv").function(group=8, protect=0.125)
    plain = card("vidkv").function(group=8, protect=0.0)
    found, other = (c.values(c.encode(keys, values, queries)[1]) for c in (codec, plain))
    saved = round_to_nearest(
        values.gather(2, expected[..., :8, None].expand(-1, -1, -1, 8)), 2, group=(8, 1), zero_dtype=torch.float16
    )
    for head in range(HEADS):
        chosen = expected[0, head, :8]
        assert int(most[head]) not in chosen.tolist()
        near(found[0, head, chosen].sort(0).values, saved.to_dense()[0, head].sort(0).values, 1e-6)
    assert other.shape == found.shape
