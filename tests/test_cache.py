"""Caches of keys and values, alone and inside a transformers model."""

import doctest
import importlib
from functools import partial

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig

from polyad._card import card
from polyad.cache import Kivi, cache_for
from polyad.quantize import round_to_nearest


def seeded(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pair(tokens, *, batch=2, seed=0, dtype=torch.float32):
    return seeded(batch, 3, tokens, 16, seed=seed).to(dtype), seeded(batch, 3, tokens, 16, seed=seed + 1).to(dtype)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("name", ["kivi", "host"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"polyad.cache.{name}")).failed == 0


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_that_left_the_window_are_blocks_of_the_paper(bits, dtype):
    keys, values = pair(45, dtype=dtype)
    cache = Kivi(bits, group=8, window=10)
    for start in range(0, 45, 7):
        cache.append(keys[..., start : start + 7, :], values[..., start : start + 7, :])
    assert (cache.length, cache.exact) == (45, 13)
    got_keys, got_values = cache.read()
    assert got_keys.dtype == dtype
    assert torch.equal(got_keys[..., 32:, :], keys[..., 32:, :])
    assert torch.equal(got_values[..., 32:, :], values[..., 32:, :])
    scheme = {"zero_dtype": torch.float16}
    by_channel = round_to_nearest(keys[..., :32, :], bits, group=(8, 1), **scheme)
    by_token = round_to_nearest(values[..., :32, :], bits, group=(1, 8), **scheme)
    assert torch.equal(got_keys[..., :32, :], by_channel.to_dense())
    assert torch.equal(got_values[..., :32, :], by_token.to_dense())


def test_a_channel_of_large_keys_does_not_harm_the_others():
    keys, values = pair(64)
    keys[..., 3] += 100
    cache = Kivi(4, group=16, window=0)
    cache.append(keys, values)
    assert (cache.read()[0] - keys).abs().max() < 0.3


def test_bytes_count_codes_scales_and_what_is_preallocated():
    cache = Kivi(2, group=16, window=16)
    cache.append(*pair(80))
    tokens = 2 * 3 * (64 + 64 // 8)
    codes, scales = tokens * 16 // 4, 2 * 3 * ((4 + 0) * 16 * 4 + (64 + 8) * 4)
    tail = 2 * 3 * 16 * 16 * 4 * 2
    assert cache.nbytes == 2 * codes + scales + tail
    before = cache.nbytes
    cache.append(*pair(4))
    assert cache.nbytes == before + 2 * 3 * 4 * 16 * 4 * 2
    dense = Kivi(None)
    dense.append(*pair(80))
    assert dense.nbytes == 2 * 2 * 3 * 80 * 16 * 4


def test_growing_does_not_change_what_was_stored():
    keys, values = pair(200)
    one, many = Kivi(3, group=8, window=4), Kivi(3, group=8, window=4)
    one.append(keys, values)
    for t in range(200):
        many.append(keys[..., t : t + 1, :], values[..., t : t + 1, :])
    assert all(torch.equal(a, b) for a, b in zip(one.read(), many.read(), strict=True))
    assert many.nbytes < 1.3 * one.nbytes


@pytest.mark.parametrize("length", [0, 5, 16, 19, 40, 45])
def test_crop_keeps_the_first_tokens(length):
    cache = Kivi(3, group=8, window=10)
    cache.append(*pair(45))
    before = cache.read()
    cache.crop(length)
    assert cache.length == length
    assert all(torch.equal(a, b[..., :length, :]) for a, b in zip(cache.read(), before, strict=True))
    cache.append(*pair(30, seed=5))
    assert cache.length == length + 30
    whole = min(length, 32) // 8 * 8
    assert torch.equal(cache.read()[0][..., :whole, :], before[0][..., :whole, :])
    assert torch.equal(cache.read()[0][..., -10:, :], pair(30, seed=5)[0][..., -10:, :])


def test_select_reorders_the_batch():
    cache = Kivi(2, group=8, window=4)
    cache.append(*pair(30))
    before = cache.read()
    index = torch.tensor([1, 1, 0])
    cache.select(index)
    assert all(torch.equal(a, b[index]) for a, b in zip(cache.read(), before, strict=True))
    cache.append(*pair(9, batch=3))
    assert cache.read()[0].shape == (3, 3, 39, 16)


@pytest.mark.parametrize("beams", [1, 3])
def test_exact_storage_generates_the_same_tokens(model, beams):
    ids = torch.randint(0, 64, (2, 11), generator=torch.Generator().manual_seed(0))
    options = {"max_new_tokens": 9, "do_sample": False, "num_beams": beams, "pad_token_id": 0}
    expected = model.generate(ids, **options)
    assert torch.equal(
        model.generate(ids, past_key_values=cache_for(model, partial(Kivi, None)), **options), expected
    )
    rough = cache_for(model, partial(Kivi, 8, group=4, window=4))
    assert torch.equal(model.generate(ids, past_key_values=rough, **options)[:, :12], expected[:, :12])
    assert rough.layers[0].codec.exact < rough.layers[0].codec.length


def test_a_model_reads_what_the_codec_stores(model):
    ids = torch.randint(0, 64, (1, 48), generator=torch.Generator().manual_seed(1))
    expected = model(ids).logits[:, 40:]
    errors = []
    for bits in (8, 4, 2):
        cache = cache_for(model, partial(Kivi, bits, group=8, window=0))
        model(ids[:, :40], past_key_values=cache)
        errors.append(float((model(ids[:, 40:], past_key_values=cache).logits - expected).detach().norm()))
    assert 0 < errors[0] < errors[1] < errors[2]
    assert errors[0] < 0.05 * expected.norm()


def test_cropping_and_resetting_through_transformers(model):
    ids = torch.randint(0, 64, (1, 30), generator=torch.Generator().manual_seed(1))
    cache = cache_for(model, partial(Kivi, None))
    full = model(ids, past_key_values=cache).logits
    cache.crop(-10)
    assert cache.get_seq_length() == 20
    assert torch.allclose(model(ids[:, 20:], past_key_values=cache).logits, full[:, 20:], atol=1e-5)
    cache.reset()
    assert cache.get_seq_length() == 0
    assert torch.allclose(model(ids, past_key_values=cache).logits, full, atol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="bits=9"):
        Kivi(9)
    with pytest.raises(ValueError, match="group=0"):
        Kivi(2, group=0)
    with pytest.raises(ValueError, match="nothing is stored yet"):
        Kivi(2).read()
    with pytest.raises(ValueError, match="must agree in all but their last"):
        Kivi(2).append(seeded(1, 2, 3, 4), seeded(1, 2, 4, 4))
    cache = Kivi(2)
    cache.append(*pair(5))
    with pytest.raises(ValueError, match="length=6 must be from 0 to the 5"):
        cache.crop(6)
    with pytest.raises(ValueError, match="sliding_attention"):
        cache_for(MistralConfig(num_hidden_layers=2, sliding_window=8), Kivi)
    assert card(Kivi).name == "kivi"
