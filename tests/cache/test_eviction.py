"""Caches that let tokens go: which stay, that attention reads those and no others, and that positions hold."""

import doctest
import importlib
from functools import partial

import pytest
import torch

import tiny
from polyad.cache import H2O, Kivi, Place, PrefixKV, Squat, StreamingLLM, cache_for, recording_cache
from polyad.cache.codecs.prefixkv import shares
from polyad.cache.host.eviction_layer import EvictingLayer
from polyad.evaluation.caches import cache_quality

ROUNDED = partial(H2O, keep=0.5, block=4, inner=partial(Kivi, bits=8, group=4))
PLACE = Place(0, torch.nn.Identity(), 4, 2, {})


def padded():
    ids = tiny.ids(2, 30)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    return ids, {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "attention_mask": mask}


@pytest.mark.parametrize("name", ["prefixkv", "h2o", "streaming_llm"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"polyad.cache.{name}")).failed == 0


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["gpt2", "qwen2-mixed"])
@pytest.mark.parametrize("make", [H2O, PrefixKV])
def test_keeping_all_gives_the_tokens_of_the_plain_cache(make, kind, beams):
    model = tiny.model(kind).double()
    ids, options = padded()
    expected = model.generate(ids, num_beams=beams, **options)
    cache = cache_for(model, partial(make, keep=1, block=4), window=4)
    assert torch.equal(model.generate(ids, num_beams=beams, past_key_values=cache, **options), expected)
    assert cache.held[0].stored.length == cache.held[0].left == 36


@pytest.mark.parametrize("tokens", [1, 3, 12])
@pytest.mark.parametrize("masked", [False, True])
def test_each_head_attends_to_its_own_tokens(tokens, masked):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    layer = EvictingLayer(H2O(PLACE, keep=0.4, block=5), 7, None)
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    module = torch.nn.Identity()
    module.num_key_value_groups, module.is_causal = 2, True
    keys, values = draw(2, 2, 40 + tokens, 6), draw(2, 2, 40 + tokens, 6)
    mask = torch.ones(40 + tokens, 40 + tokens, dtype=torch.bool).tril().repeat(2, 1, 1, 1)
    mask[1, ..., :9] = False
    options = {"scaling": 0.4}
    layer.update(keys[..., :40, :], values[..., :40, :])
    layer.attend(module, draw(2, 4, 40, 6), mask[..., :40, :40] if masked else None, sdpa_attention_forward, options)
    kept = layer.kept
    assert kept.shape[-1] == int(0.4 * layer.left) == layer.stored.length == 12
    assert not torch.equal(kept[0, 0], kept[0, 1])
    assert not masked or (kept[1] >= 9).all()
    layer.update(keys[..., 40:, :], values[..., 40:, :])
    query, last, left = draw(2, 4, tokens, 6), mask[..., 40:, :], layer.left
    given = last if masked or tokens > 1 else None
    found = layer.attend(module, query, given, sdpa_attention_forward, options)
    for b in range(2):
        for h in range(4):
            held = torch.cat([kept[b, h // 2].long(), torch.arange(left, 40 + tokens)])
            scores = 0.4 * query[b, h] @ keys[b, h // 2, held].mT
            if given is not None:
                scores = scores.masked_fill(~given[b, 0][:, held], -torch.inf)
            assert torch.allclose(found[b, :, h], scores.softmax(-1) @ values[b, h // 2, held], atol=1e-9)


def test_heavy_hitters_are_those_of_the_models_own_attention():
    model = tiny.model().double()
    model.set_attn_implementation("eager")
    ids = tiny.ids(1, 40)
    with torch.no_grad():
        weights = model(ids, output_attentions=True).attentions
    cache = cache_for(model, partial(H2O, keep=0.25, block=4), window=8)
    tiny.logits(model, ids, past_key_values=cache)
    for layer, attention in zip(cache.held, weights, strict=True):
        received = attention.unflatten(1, (2, 2)).sum((2, 3))[..., :32]
        expected = received.topk(8, -1).indices.sort(-1).values
        assert torch.equal(layer.kept.long(), expected)


def test_attention_is_added_up_while_decoding():
    model, ids = tiny.model().double(), tiny.ids(1, 40)
    kept = []
    for steps in ([40], [20, *[1] * 20], [20, 7, 13]):
        cache, start = cache_for(model, partial(H2O, keep=0.25, block=32), window=8), 0
        for step in steps:
            tiny.logits(model, ids[:, start : start + step], past_key_values=cache)
            start += step
        kept.append(cache.held[0].kept)
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])


def test_prefixes_of_all_layers_reach_one_bound_within_the_budget():
    generator = torch.Generator().manual_seed(0)
    importance = [torch.rand(200, generator=generator) ** power for power in (1, 4, 16, 64)]
    for keep in (0.1, 0.3, 0.8, 1.0):
        found = [round(share * 200) for share in shares(importance, keep)]
        assert keep * 800 - 4 < sum(found) <= keep * 800
        sums = [x.sort(descending=True).values.cumsum(0) / x.sum() for x in importance]
        reached = [float(x[n - 1]) for x, n in zip(sums, found, strict=True)]
        before = [float(x[n - 2]) for x, n in zip(sums, found, strict=True)]
        assert max(before) <= min(reached) + 1e-6
        assert keep == 1 or found == sorted(found, reverse=True)


def test_layers_keep_what_their_attention_asks_for():
    model, ids = tiny.model(), tiny.ids(1, 60)
    cache = cache_for(model, partial(PrefixKV, keep=0.3, block=4), window=8)
    tiny.logits(model, ids, past_key_values=cache)
    held = [layer.stored.length for layer in cache.held]
    assert 0.3 * 3 * 52 - 3 - 3 < sum(held) <= 0.3 * 3 * 52
    for layer in cache.held:
        assert (layer.kept == layer.kept[:, :1]).all()  # the same for all heads


def test_adopting_is_running_on_the_prompt():
    model, ids = tiny.model(), tiny.ids(2, 33)
    ran, exact = cache_for(model, ROUNDED, window=6), recording_cache(model)
    tiny.logits(model, ids, past_key_values=ran)
    tiny.logits(model, ids, past_key_values=exact)
    adopted = cache_for(model, ROUNDED, window=6).adopt(exact)
    assert adopted.nbytes == ran.nbytes
    step = tiny.ids(2, 1, seed=4)
    found, expected = (tiny.logits(model, step, past_key_values=cache) for cache in (adopted, ran))
    assert torch.allclose(found, expected, atol=1e-5)


def test_speculation_within_the_window_can_be_rolled_back():
    model, ids = tiny.model().double(), tiny.ids(1, 44)
    one, other = (cache_for(model, ROUNDED, window=14) for _ in range(2))
    for cache in (one, other):
        tiny.logits(model, ids[:, :40], past_key_values=cache)
    tiny.logits(model, tiny.ids(1, 3, seed=9), past_key_values=one)
    before = one.held[0].left
    one.crop(-3)
    assert one.get_seq_length() == 40
    if before == other.held[0].left:
        found, expected = (tiny.logits(model, ids[:, 40:], past_key_values=cache) for cache in (one, other))
        assert torch.allclose(found, expected, atol=1e-9)
    with pytest.raises(ValueError, match="choose a larger window"):
        one.crop(-39)


def test_bytes_count_places_and_attention():
    model = tiny.model()
    cache = cache_for(model, partial(H2O, keep=0.5, block=4), window=8)
    tiny.logits(model, tiny.ids(2, 40), past_key_values=cache)
    layer = cache.held[0]
    stored = 2 * 2 * 16 * 8 * 2 * 4
    places = 2 * 2 * 16 * 4
    attention = layer.received.numel() * 4
    assert layer.received.shape == (2, 2, 8)
    assert cache.nbytes == 3 * (stored + places + attention + layer.recent.nbytes)


def test_few_are_kept_in_multiples_of_what_is_rounded_together():
    model = tiny.model()
    make = partial(H2O, keep=0.3, block=4, inner=partial(Kivi, bits=4, group=8))
    cache = cache_for(model, make, window=4)
    for start in range(0, 60, 10):
        tiny.logits(model, tiny.ids(1, 10, seed=start), past_key_values=cache)
    layer = cache.held[0]
    assert layer.left == 54
    assert layer.stored.length == 16  # of 0.3 * 54
    assert layer.kept.diff(dim=-1).gt(0).all()


def test_refusals():
    with pytest.raises(ValueError, match="keep=0"):
        H2O(PLACE, keep=0)
    with pytest.raises(ValueError, match="block=0"):
        H2O(PLACE, block=0)
    with pytest.raises(ValueError, match="sinks=-1"):
        StreamingLLM(PLACE, sinks=-1)
    with pytest.raises(ValueError, match="evicts itself"):
        H2O(PLACE, inner=partial(StreamingLLM, sinks=2))
    with pytest.raises(ValueError, match="Squat"):
        PrefixKV(PLACE, inner=Squat)


def test_tokens_scored_together_cost_what_they_cost_one_by_one():
    model = tiny.model().double()
    rules = {
        "h2o": partial(H2O, keep=0.5, block=16),
        "kivi": partial(Kivi, bits=3, group=16),
    }  # in which nothing leaves
    makes = {name: partial(cache_for, model, make, window=12) for name, make in rules.items()}
    windows = tiny.ids(2, 40)
    one, many = (cache_quality(model, makes, windows, scored=9, at_once=many) for many in (1, 5))
    for name in makes:
        assert one[name].ratio == pytest.approx(many[name].ratio, abs=1e-4)
        assert one[name].ratio != 1
    with pytest.raises(ValueError, match="at_once=0"):
        cache_quality(model, makes, windows, scored=9, at_once=0)
