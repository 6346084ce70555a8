"""The host of caches inside transformers models, and the codecs that stand on it."""

import doctest
import importlib
from functools import partial

import pytest
import torch
from transformers import GPTJConfig, GPTJForCausalLM

import tiny
from polyad._card import methods
from polyad.cache import Kivi, Metric, cache_for, observe
from polyad.cache.host.exact_tokens import Recent
from polyad.cache.host.stored_blocks import Stored
from polyad.formats import LowRank, Sparse
from polyad.quantize import round_to_nearest

ARCHITECTURES = [kind for kind in tiny.KINDS if kind != "mistral"]  # whose every layer has a sliding window
ROTARY = [kind for kind in ARCHITECTURES if kind != "gpt2"]


def seeded(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pair(tokens, *, batch=2, seed=0, dtype=torch.float32):
    return seeded(batch, 3, tokens, 16, seed=seed).to(dtype), seeded(batch, 3, tokens, 16, seed=seed + 1).to(dtype)


def padded():
    ids = tiny.ids(2, 20)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    return ids, {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0, "attention_mask": mask}


@pytest.mark.parametrize(
    "name",
    [
        *sorted(card.module for card in methods("codec") if card.module.startswith("polyad.cache")),
        "polyad.cache.host.fused_rows",
        "polyad.cache.host.cache",
    ],
)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_exact_tokens_are_those_of_the_plain_cache_with_left_padding(kind, beams):
    model = tiny.model(kind).double()
    ids, options = padded()
    expected = model.generate(ids, num_beams=beams, **options)
    cache = cache_for(model)
    assert torch.equal(model.generate(ids, num_beams=beams, past_key_values=cache, **options), expected)
    assert torch.equal(model.generate(ids, num_beams=beams, **options), expected)  # other caches are read as before


@pytest.mark.parametrize("kind", ROTARY)
def test_all_coordinates_before_rotation_give_the_tokens_of_the_plain_cache(kind):
    model = tiny.model(kind).double()
    ids, options = padded()
    full = partial(Metric, rank=8 * model.config.num_key_value_heads)
    seen = observe(model, full, [tiny.ids(1, 60)])
    for beams, sinks in ((1, 2), (3, 0)):
        expected = model.generate(ids, num_beams=beams, **options)
        cache = cache_for(model, full, window=4, sinks=sinks, seen=seen)
        assert torch.equal(model.generate(ids, num_beams=beams, past_key_values=cache, **options), expected)
        assert cache.held[0].stored.length == 24 - sinks


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kivi_quantises_keys_by_channel_and_values_by_token(bits, dtype):
    keys, values = pair(32, dtype=dtype)
    stored = Stored(8)
    for start in (0, 8, 24):
        stop = {0: 8, 8: 24, 24: 32}[start]
        stored.append(*Kivi(bits=bits, group=8).encode(keys[..., start:stop, :], values[..., start:stop, :], keys))
    ((_, found_keys, found_values),) = stored.read()
    by_channel = round_to_nearest(keys, bits, group=(8, 1), zero_dtype=torch.float16)
    by_token = round_to_nearest(values, bits, group=(1, 8), zero_dtype=torch.float16)
    assert torch.equal(found_keys.to_dense(), by_channel.to_dense())
    assert torch.equal(found_values.to_dense(), by_token.to_dense())


def test_bytes_count_codes_scales_exact_tokens_and_room():
    stored = Stored(16)
    stored.append(*Kivi(bits=2, group=16).encode(*pair(64), pair(64)[0]))
    codes, scales = 2 * 3 * 64 * 16 // 4, 2 * 3 * (4 * 16 + 64) * 4
    assert stored.nbytes() == 2 * codes + scales
    stored.append(*Kivi(bits=2, group=16).encode(*pair(16), pair(16)[0]))
    assert (2 * codes + scales) * 80 / 64 < stored.nbytes() <= (2 * codes + scales) * 80 / 64 * 9 / 8
    recent = Recent()
    recent.append(*pair(10))
    assert recent.nbytes == 2 * 2 * 3 * 10 * 16 * 4


def test_growing_copies_a_constant_number_of_times():
    keys, values = pair(400)
    recent = Recent()
    places = set()
    for t in range(400):
        recent.append(keys[..., t : t + 1, :], values[..., t : t + 1, :])
        places.add(recent.read()[0].data_ptr())
    assert all(torch.equal(a, b) for a, b in zip(recent.read(), (keys, values), strict=True))
    assert len(places) < 50
    assert recent.nbytes < 1.2 * 2 * keys.numel() * 4


def test_a_basis_is_held_once_and_not_counted_with_the_sequence():
    model = tiny.model()
    seen = observe(model, Metric, [tiny.ids(1, 40)])
    cache = cache_for(model, partial(Metric, rank=3), window=0, seen=seen)
    tiny.logits(model, tiny.ids(2, 24), past_key_values=cache)
    latents = 3 * 2 * 24 * (3 + 16) * 4
    positions = 24 * 4
    empty = sum(layer.recent.nbytes for layer in cache.held)
    assert cache.nbytes == latents + positions + empty
    assert cache.shared_nbytes >= 3 * 2 * 16 * 3 * 4


def test_what_is_observed_are_the_moments_before_rotation():
    model, ids = tiny.model(), tiny.ids(1, 30)
    seen = observe(model, Metric, [ids])
    hidden = []
    handle = model.model.layers[0].self_attn.register_forward_pre_hook(
        lambda _m, _a, kwargs: hidden.append(kwargs["hidden_states"]), with_kwargs=True
    )
    tiny.logits(model, ids)
    handle.remove()
    attention = model.model.layers[0].self_attn
    keys = attention.k_proj(hidden[0])[0].detach()
    assert torch.allclose(seen[0]["keys"], keys.mT @ keys / 30, rtol=1e-4, atol=1e-5)
    assert torch.allclose(seen[0]["key_mean"], keys.mean(0), atol=1e-5)
    queries = attention.q_proj(hidden[0])[0].detach().view(30, 4, 8).transpose(0, 1)
    first = queries[:2].flatten(0, 1)
    assert torch.allclose(seen[0]["queries"][0], first.mT @ first / 60 / 8, rtol=1e-3, atol=1e-5)
    trace = lambda m: m.diagonal(dim1=-2, dim2=-1).sum(-1)  # noqa: E731 - a rotation keeps it
    assert torch.allclose(trace(seen[0]["metric"]), trace(seen[0]["queries"]), rtol=1e-4)


def test_refusals():
    with pytest.raises(ValueError, match="bits=9"):
        Kivi(bits=9)
    with pytest.raises(ValueError, match="group=0"):
        Kivi(group=0)
    with pytest.warns(UserWarning, match="sliding window"):
        assert not cache_for(tiny.model("mistral"), Kivi).held
    with pytest.raises(ValueError, match="calibrate"):
        cache_for(tiny.model(), partial(Metric, rank=2))
    model = tiny.model()
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 4, "rotary_dim": 4, "vocab_size": 500}
    with pytest.raises(ValueError, match="rank=17"):
        cache_for(model, partial(Metric, rank=17), seen=observe(model, Metric, [tiny.ids(1, 20)]))
    with pytest.raises(ValueError, match="the calibration is of 1 layers and LlamaForCausalLM has"):
        cache_for(model, partial(Metric, rank=2), seen=observe(model, Metric, [tiny.ids(1, 20)])[:1])
    with pytest.raises(ValueError, match="empty"):
        observe(model, Metric, [])
    with pytest.raises(ValueError, match="nothing to hold"):
        observe(tiny.model("mistral"), Metric, [tiny.ids(1, 20)])
    with pytest.raises(ValueError, match="window=-1"):
        cache_for(model, Kivi, window=-1)
    with pytest.raises(ValueError, match="usual way"):
        observe(GPTJForCausalLM(GPTJConfig(**sizes)), Metric, [tiny.ids(1, 20)])
    cache = cache_for(model, partial(Kivi, group=4), window=4)
    tiny.logits(model, tiny.ids(2, 20), past_key_values=cache)
    with pytest.raises(ValueError, match="start a new cache"):
        tiny.logits(model, tiny.ids(3, 1), past_key_values=cache)
    with pytest.raises(ValueError, match="positive"):
        cache.held[0].crop(3)
    with pytest.raises(ValueError, match="make a new one"):
        cache.reset()
    assert {"kivi", "metric"} <= {card.name for card in methods("codec")}


def test_formats_that_cannot_grow_stand_alone():
    keys, values = pair(8)
    stored = Stored(4)
    for _ in range(2):
        stored.append(Sparse.from_dense(keys), LowRank(values, seeded(2, 3, 16, 16)))
    assert [first for first, _, _ in stored.read()] == [0, 8]
    assert stored.floor(13) == 8
    stored.crop(8)
    assert stored.length == 8


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("make", [None, partial(Kivi, bits=4, group=4)])
def test_generating_with_a_cache_that_is_not_used_is_refused(make, padding):
    model = tiny.model()
    ids, how = (
        padded() if padding else (tiny.ids(2, 20), {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0})
    )
    right = model.generate(ids, **how)
    with pytest.raises(
        ValueError, match="use_cache=False gives all 21 tokens again at each step, and the cache given"
    ):
        model.generate(ids, **how, past_key_values=cache_for(model, make), use_cache=False)
    assert torch.equal(model.generate(ids, **how, past_key_values=cache_for(model)), right)
    cache = cache_for(model)
    model(ids[:, :12], past_key_values=cache, use_cache=False)
    chunk = model(ids[:, 12:], past_key_values=cache, use_cache=False).logits  # which goes on from what is cached
    assert torch.allclose(chunk, model(ids).logits[:, 12:], atol=1e-5)
