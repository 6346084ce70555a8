"""Codecs of few coordinates: what their papers state in numbers."""

from functools import partial

import pytest
import torch

import tiny
from polyad.cache import (
    XKV,
    KSortBFP,
    MatryoshkaKV,
    Metric,
    Palu,
    Place,
    TransformCoding,
    cache_for,
    fisher,
    fisher_ranks,
    matryoshka_bases,
    matryoshka_ranks,
    observe,
    token_alignment,
    water_filling,
)
from polyad.cache.codecs.palu import mix_neighbours
from polyad.cache.maker import maker
from polyad.evaluation.caches import cache_quality
from polyad.quantize import block_floating_point, least_distortion, round_to_nearest


def seeded(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def keys_of(model, ids, layer=0):
    """Keys before rotation (tokens, H d), and the inputs of their projection."""
    seen = []
    attention = model.model.layers[layer].self_attn
    handle = attention.k_proj.register_forward_hook(lambda _m, args, out: seen.append((args[0][0], out[0])))
    tiny.logits(model, ids)
    handle.remove()
    inputs, keys = seen[0]
    return keys.detach(), inputs.detach(), attention.k_proj.weight.detach()


def test_palu_is_the_svd_of_the_projection_whitened_by_its_inputs():
    model, ids = tiny.model().double(), tiny.ids(1, 60)
    seen = observe(model, Palu, [ids])
    keys, inputs, weight = keys_of(model, ids)
    factor = torch.linalg.cholesky(inputs.mT @ inputs)
    u, _, _ = torch.linalg.svd(weight @ factor)
    expected = keys @ u[:, :5] @ u[:, :5].mT
    codec = Palu(Place(0, model.model.layers[0].self_attn, 4, 2, seen[0]), rank=5)
    x = keys.unflatten(-1, (2, 8)).transpose(0, 1)[None]
    found = codec.keys(codec.encode(x, x, x)[0])
    assert torch.allclose(found[0].transpose(0, 1).flatten(1), expected, atol=1e-8)


def test_joint_groups_lose_less_than_heads_alone_and_rotation_helps_rounding():
    common = seeded(500, 6) @ seeded(6, 16, seed=1)  # what heads have in common
    x = (common + 0.1 * seeded(500, 16, seed=2)).unflatten(-1, (2, 8)).transpose(0, 1)[None]
    rows = x[0].transpose(0, 1).flatten(1)
    place = Place(0, torch.nn.Identity(), 2, 2, {"keys": rows.mT @ rows, "values": rows.mT @ rows})

    def error(**more):
        codec = Palu(place, **more)
        return float((codec.keys(codec.encode(x, x, x)[0]) - x).norm())

    assert error(rank=6) < 0.7 * error(rank=3, heads=1)
    u = torch.eye(16)[None, :, :8]
    assert torch.allclose(mix_neighbours(u).mT @ mix_neighbours(u), torch.eye(8), atol=1e-6)
    size = torch.tensor([30.0] * 4 + [1.0] * 60)  # few coordinates are large, as leading ones are
    x = seeded(200, 64, seed=3) * size
    around = mix_neighbours(torch.eye(64))
    plain = round_to_nearest(x, 3, group=64, zero_dtype=torch.float16).to_dense() - x
    turned = round_to_nearest(x @ around, 3, group=64, zero_dtype=torch.float16).to_dense() - x @ around
    assert turned.norm() < 0.8 * plain.norm()


def test_fisher_ranks_meet_the_budget_and_follow_the_information():
    generator = torch.Generator().manual_seed(3)
    found = [
        {"key_fisher": torch.eye(16) * float(torch.rand((), generator=generator)) ** 4, "value_fisher": torch.eye(16)}
        for _ in range(5)
    ]
    ranked = fisher_ranks([{}] * 5, found, 0.5, unit=2)
    ranks = [(int(r["key_rank"]), int(r["value_rank"])) for r in ranked]
    assert sum(map(sum, ranks)) <= 0.5 * 160
    assert sum(map(sum, ranks)) >= 0.5 * 160 - 2
    order = sorted(range(5), key=lambda i: float(found[i]["key_fisher"][0, 0]))
    assert [ranks[i][0] for i in order] == sorted(k for k, _ in ranks)
    with pytest.raises(ValueError, match="keep=0"):
        fisher_ranks([{}] * 5, found, 0)


def test_fisher_information_predicts_the_divergence_of_small_errors():
    model, ids = tiny.model().double(), tiny.ids(4, 24)
    information = fisher(model, Metric, list(ids) * 30, generator=torch.Generator().manual_seed(1))
    right = tiny.logits(model, ids).log_softmax(-1)
    some = (torch.arange(16) % 8 < 4).double()  # a rotation mixes these channels with the others
    for layer, side in ((0, "k_proj"), (2, "k_proj"), (0, "v_proj"), (1, "v_proj")):
        projection = getattr(model.model.layers[layer].self_attn, side)
        total = 0.0
        for seed in range(60):
            noise = 1e-3 * some * seeded(4, 24, 16, seed=seed, dtype=torch.float64)
            handle = projection.register_forward_hook(lambda _m, _a, out, noise=noise: out + noise)
            wrong = tiny.logits(model, ids).log_softmax(-1)
            handle.remove()
            total += float((right.exp() * (right - wrong)).sum()) / 60
        matrix = information[layer]["key_fisher" if side == "k_proj" else "value_fisher"]
        predicted = 0.5 * 1e-6 * float(matrix.diagonal() @ some) * 4 * 24
        assert predicted == pytest.approx(total, rel=0.25), (layer, side)


def test_xkv_is_the_best_rank_r_of_the_layers_side_by_side_and_shares_its_tokens():
    entries = [(seeded(1, 2, 40, 8, seed=i), seeded(1, 2, 40, 8, seed=9 + i)) for i in range(4)]
    codec = XKV(Place(0, torch.nn.Identity(), 2, 2, {}), rank=6, value_rank=10)
    pairs = codec.encode_layers(entries, [e[0] for e in entries])
    for side, rank in ((0, 6), (1, 10)):
        whole = torch.cat([e[side].transpose(1, 2).flatten(2)[0] for e in entries], -1)
        tail = torch.linalg.svdvals(whole)[rank:].norm()
        found = [(codec.keys, codec.values)[side](pair[side]) for pair in pairs]
        error = torch.stack([f - e[side] for f, e in zip(found, entries, strict=True)]).norm()
        assert error == pytest.approx(float(tail), rel=1e-4)
        assert len({pair[side].left.data_ptr() for pair in pairs}) == 1


def test_the_shared_tokens_of_xkv_count_once():
    model = tiny.model()
    cache = cache_for(model, partial(XKV, rank=5), window=0)
    tiny.logits(model, tiny.ids(2, 24), past_key_values=cache)
    shared, own = 2 * 2 * 24 * 5 * 4, 3 * 2 * 2 * 5 * 16 * 4
    assert cache.nbytes == shared + own + 24 * 4 + sum(layer.recent.nbytes for layer in cache.held)
    before = cache.nbytes
    cache.reorder_cache(torch.tensor([1, 0]))
    assert cache.nbytes == before  # what layers share stays one
    tiny.logits(model, tiny.ids(2, 1), past_key_values=cache)
    assert cache.get_seq_length() == 25


def test_alignment_of_tokens_is_one_for_one_basis_and_small_for_none():
    x = seeded(2, 400, 8)
    found = token_alignment(x, rank=4)
    assert torch.allclose(found.diagonal(), torch.ones(2), atol=1e-4)
    assert float(found[0, 1]) < 0.1
    mixed_up = torch.stack([x[0], x[0] @ seeded(8, 8, seed=4)])
    assert float(token_alignment(mixed_up, rank=8)[0, 1]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_block_floating_point_rounds_to_a_power_of_two_below_the_largest(bits, dtype):
    x = (seeded(5, 24) * torch.logspace(-20, 20, 5).unsqueeze(1)).to(dtype)
    x[2, :8] = 0
    q = block_floating_point(x, bits, group=8)
    largest = x.double().abs().unflatten(-1, (3, 8)).amax(-1)
    step = q.scale.double()
    assert torch.equal(step.log2(), step.log2().round())
    some = largest > 0
    assert (largest < step * 2 ** (bits - 1))[some].all()
    assert (largest >= step * 2 ** (bits - 2))[some].all()
    assert not q.to_dense()[2, :8].any()
    with pytest.raises(ValueError, match="bits=1"):
        block_floating_point(x, 1)


def test_sorted_channels_round_better_in_long_blocks_and_scores_do_not_change():
    size = torch.logspace(0, 2, 16)[torch.randperm(16, generator=torch.Generator().manual_seed(0))]
    x = seeded(1, 2, 50, 16) * size
    rows = x[0].transpose(0, 1).flatten(1)
    place = Place(0, torch.nn.Identity(), 2, 2, {"keys": rows.mT @ rows})

    def error(**more):
        codec = KSortBFP(place, bits=4, **more)
        return (((codec.keys(codec.encode(x, x, x)[0]) - x) / size).norm()).item()

    assert error(group=8) < error(group=8, sort=False)
    assert error(group=8) < 1.2 * error(group=4, sort=False)
    codec, query = KSortBFP(place, bits=8, group=4), seeded(1, 2, 3, 16, seed=5)
    keys = codec.encode(x, x, x)[0]
    assert torch.allclose(codec.scores(query, keys, None), query @ codec.keys(keys).mT, atol=1e-3)


@pytest.mark.parametrize(("bits", "bound"), [(1, 0.3634), (2, 0.1188), (3, 0.0374), (4, 0.0115)])
def test_least_distortion_reaches_max_s_table_on_normal_numbers(bits, bound):
    x = seeded(64, 4096)
    q = least_distortion(x, bits, scale_dtype=torch.float8_e4m3fn)
    assert float((q.to_dense() - x).square().mean()) < 1.03 * bound
    spanned = round_to_nearest(x, bits, zero_dtype=torch.float16)
    assert float((q.to_dense() - x).square().mean()) < float((spanned.to_dense() - x).square().mean())
    with pytest.raises(ValueError, match="scale_dtype"):
        least_distortion(x, bits, scale_dtype=torch.uint8)


def test_transform_coding_takes_its_rate_and_more_bits_lose_less():
    model, ids = tiny.model(), tiny.ids(1, 60)
    seen = observe(model, TransformCoding, [tiny.ids(1, 60, seed=s) for s in range(8)], sinks=1)
    expected = tiny.logits(model, ids)[:, 50:]
    errors = []
    for rate in (3.0, 4.0, 6.0):
        cache = cache_for(model, partial(TransformCoding, block=1), window=0, sinks=1, seen=water_filling(seen, rate))
        tiny.logits(model, ids[:, :50], past_key_values=cache)
        stored = sum(layer.stored.nbytes(layer.codec.bases) for layer in cache.held)
        assert stored <= rate / 8 * 3 * 2 * 16 * 49
        errors.append(float((tiny.logits(model, ids[:, 50:], past_key_values=cache) - expected).norm()))
    assert errors[0] > errors[1] > errors[2]
    with pytest.raises(ValueError, match=r"rate=0\.1"):
        water_filling(seen, 0.1)


def test_single_tokens_join_what_is_stored():
    model = tiny.model()
    seen = observe(model, TransformCoding, [tiny.ids(1, 60)])
    cache = cache_for(model, partial(TransformCoding, rate=4.0, block=2), window=4, seen=seen)
    tiny.logits(model, tiny.ids(1, 20), past_key_values=cache)
    for seed in range(6):
        tiny.logits(model, tiny.ids(1, 1, seed=seed), past_key_values=cache)
    assert all(len(list(layer.stored.read())) == 1 for layer in cache.held)


@pytest.mark.parametrize("rotated", [False, True])
def test_sinks_stay_exact_and_are_counted(rotated):
    model, ids = tiny.model(), tiny.ids(2, 40)
    make = partial(Metric, rank=2) if rotated else partial(KSortBFP, bits=2, group=8)
    seen = observe(model, make, [tiny.ids(1, 60)])
    cache = cache_for(model, make, window=6, sinks=3, seen=seen)
    exact = cache_for(model)
    for one in (cache, exact):
        tiny.logits(model, ids, past_key_values=one)
    layer, right = cache.held[0], exact.held[0]
    assert (layer.first.length, layer.stored.length, layer.recent.length) == (3, 31, 6)
    for found, expected in zip(layer.read(), right.read(), strict=True):
        assert torch.equal(found[..., :3, :], expected[..., :3, :])
        assert torch.equal(found[..., -6:, :], expected[..., -6:, :])
    assert not torch.equal(layer.read()[0], right.read()[0])
    before = [t.clone() for t in layer.read()]
    for length in (38, 20, 2):
        cache.crop(length - cache.get_seq_length())
        assert cache.get_seq_length() == length
        for after, old in zip(layer.read(), before, strict=True):
            assert torch.allclose(after, old[..., :length, :], atol=1e-5)
    assert tiny.logits(model, tiny.ids(2, 30, seed=3), past_key_values=cache).isfinite().all()
    assert (layer.first.length, cache.get_seq_length()) == (3, 32)
    with pytest.raises(ValueError, match="sinks=-1"):
        cache_for(model, sinks=-1)


def test_exact_tokens_take_the_dtype_that_is_asked_for():
    model, ids = tiny.model(), tiny.ids(1, 30)
    caches = [cache_for(model, dtype=dtype) for dtype in (None, torch.bfloat16)]
    logits = [tiny.logits(model, ids, past_key_values=cache) for cache in caches]
    assert caches[0].nbytes == 2 * caches[1].nbytes
    assert torch.allclose(logits[0], logits[1], atol=0.05 * float(logits[0].std()))


def test_matryoshka_training_lowers_the_divergence_of_cut_models():
    model = tiny.model()
    seen = observe(model, MatryoshkaKV, [tiny.ids(1, 60, seed=s) for s in range(4)])
    windows = [tiny.ids(8, 60, seed=s) for s in range(60)]
    trained = matryoshka_bases(model, seen, windows, max_iter=60, rate=2e-2)
    for layer in trained:
        u = layer["key_basis"]
        assert torch.allclose(u.mT @ u, torch.eye(8), atol=1e-5)

    ids = tiny.ids(8, 40, seed=99)
    right = tiny.logits(model, ids).log_softmax(-1)[:, 8:]

    def divergence(seen, rank):
        cache = cache_for(model, partial(MatryoshkaKV, rank=rank), window=0, seen=seen)
        tiny.logits(model, ids[:, :8], past_key_values=cache)
        steps = [tiny.logits(model, ids[:, t : t + 1], past_key_values=cache) for t in range(8, 40)]
        return float((right.exp() * (right - torch.cat(steps, 1).log_softmax(-1))).sum(-1).mean())

    for rank in (3, 5):
        assert divergence(trained, rank) < divergence(seen, rank)


def test_matryoshka_ranks_meet_the_budget_and_serve():
    model = tiny.model()
    seen = observe(model, MatryoshkaKV, [tiny.ids(1, 60)])
    ranked = matryoshka_ranks(model, seen, [tiny.ids(1, 20)], 0.5, unit=2)
    ranks = [r for layer in ranked for side in ("key", "value") for r in layer[f"{side}_ranks"].tolist()]
    assert sum(ranks) <= 0.5 * 8 * len(ranks)
    assert len(set(ranks)) > 1
    cache = cache_for(model, MatryoshkaKV, window=0, seen=ranked)
    tiny.logits(model, tiny.ids(1, 20), past_key_values=cache)
    assert sum(layer.stored.nbytes(layer.codec.bases) for layer in cache.held) == 20 * 4 * sum(ranks)
    with pytest.raises(ValueError, match="one for each"):
        cache_for(model, partial(MatryoshkaKV, rank=(1, 2, 3)), seen=seen)


def test_refusals():
    model = tiny.model()
    seen = observe(model, Palu, [tiny.ids(1, 30)])
    with pytest.raises(ValueError, match="heads=3 must divide"):
        cache_for(model, partial(Palu, rank=2, heads=3), seen=seen)
    with pytest.raises(ValueError, match="rank=9 exceeds"):
        cache_for(model, partial(Palu, rank=9, heads=1), seen=seen)
    with pytest.raises(ValueError, match="block=0"):
        cache_for(model, partial(TransformCoding, block=0), seen=seen)
    with pytest.raises(ValueError, match="rank=0"):
        XKV(rank=0)
    with pytest.raises(ValueError, match="group=0"):
        cache_for(model, partial(KSortBFP, group=0), seen=seen)
    with pytest.raises(ValueError, match="sinks=30"):
        observe(model, Palu, [tiny.ids(1, 30)], sinks=30)
    with pytest.raises(ValueError, match="calibrate"):
        cache_for(model, partial(TransformCoding, rate=3.0))


def test_one_zero_point_for_all_blocks_survives_what_formats_do():
    x = seeded(12, 16)
    q = least_distortion(x, 3, group=(4, 8))
    empty = type(q).from_spec(q.spec())
    assert torch.equal(empty.replace(q.tensors()).to_dense(), q.to_dense())
    assert torch.equal(q.transpose().to_dense(), q.to_dense().mT)
    assert torch.equal(q.combine(torch.eye(12)), q.to_dense())
    by_row = least_distortion(x, 3, group=8)
    assert torch.equal(by_row.rows(torch.tensor([3, 1])), by_row.to_dense()[[3, 1]])


def test_quality_is_measured_of_codecs_before_and_after_rotation_alike():
    model = tiny.model()
    full = partial(Metric, rank=16)
    seen = observe(model, full, [tiny.ids(1, 60)])
    makes = {"full": partial(cache_for, model, full, window=2, seen=seen), "plain": partial(cache_for, model)}
    makes["cut"] = partial(cache_for, model, partial(Metric, rank=2), window=2, seen=seen)
    found = cache_quality(model, makes, tiny.ids(2, 40), scored=8)
    assert found["full"].ratio == pytest.approx(1, abs=1e-4)
    assert found["plain"].ratio == pytest.approx(1, abs=1e-6)
    for at_once in (3, 8):
        again = cache_quality(model, {"plain": makes["plain"]}, tiny.ids(2, 40), scored=8, at_once=at_once)
        assert again["plain"].ratio == pytest.approx(1, abs=1e-6)
    assert found["cut"].ratio != pytest.approx(1, abs=1e-3)


def test_fisher_information_is_that_of_keys_before_rotation_where_they_are_stored_so():
    model, ids = tiny.model().double(), tiny.ids(1, 24)
    (found, *_) = fisher(model, Metric, [ids], sinks=2, generator=torch.Generator().manual_seed(5))
    held = []
    handle = model.model.layers[0].self_attn.k_proj.register_forward_hook(lambda _m, _a, out: held.append(out))
    logits = model(ids).logits[0].float()
    handle.remove()
    drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=torch.Generator().manual_seed(5))[:, 0]
    (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, drawn, reduction="sum"), held)
    rows = grad[0, 2:]
    assert torch.allclose(found["key_fisher"], rows.mT @ rows / 22, rtol=1e-4, atol=1e-8)


def test_named_caches_keep_four_sinks_unless_told_otherwise():
    model, windows = tiny.model(), lambda: [tiny.ids(1, 40)]
    for text, sinks in {"kivi:bits=4": 4, "metric:rank=4": 4, "kivi:sinks=0": 0, "streaming_llm": 0}.items():
        assert maker(model, text, windows)().held[0].sinks == sinks
    calibrated = maker(model, "metric:rank=4", windows).keywords["seen"]
    assert torch.equal(calibrated[0]["keys"], observe(model, Metric, windows(), sinks=4)[0]["keys"])
