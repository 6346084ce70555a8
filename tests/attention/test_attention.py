"""Attention that needs less cache, inside transformers models and in decoders of our own."""

import importlib
import json

import pytest
import torch
from transformers import DynamicCache

import polyad
import polyad.train.state
import tiny
from polyad.attention import (
    GroupedAttention,
    LatentAttention,
    TensorProductAttention,
    convert_attention,
    decoder,
    transmla,
)
from polyad.attention.decoder import ATTENTIONS
from polyad.attention.rotary import tables
from polyad.cache import Codec, HeldCache, cache_for, staircase
from polyad.cache.host.layer import HeldLayer
from polyad.formats import Dense
from polyad.train import heal

GROUPED = ["llama", "mha", "mqa", "mistral", "qwen2", "qwen2-mixed"]


def held(cache):
    return sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))


@pytest.mark.parametrize("kind", GROUPED)
def test_the_exact_conversion_changes_no_logit_and_no_byte_of_the_cache(kind):
    model = tiny.model(kind).double()
    mask = torch.ones(2, 24, dtype=torch.int64)
    mask[0, :5] = 0
    before = DynamicCache(config=model.config)
    plain, padded = tiny.logits(model, past_key_values=before), tiny.logits(model, attention_mask=mask)
    undo = convert_attention(model)
    after = DynamicCache(config=model.config)
    torch.testing.assert_close(tiny.logits(model, past_key_values=after), plain, atol=1e-9, rtol=0)
    torch.testing.assert_close(tiny.logits(model, attention_mask=mask)[0, 5:], padded[0, 5:], atol=1e-9, rtol=0)
    assert held(after) == held(before)
    undo()
    assert torch.equal(tiny.logits(model), plain)


@pytest.mark.parametrize("kind", GROUPED)
def test_decoding_from_latents_is_the_forward_pass(kind):
    model = tiny.model(kind).double()
    convert_attention(model, rank=9, rope=6, windows=[tiny.ids(2, 40)])
    expected = tiny.logits(model)
    cache, parts = DynamicCache(config=model.config), []
    for piece in tiny.ids().split([12, 1, 5, 1, 5], 1):  # absorbed, expanded, and causal with a past
        parts.append(tiny.logits(model, piece, past_key_values=cache))
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-9, rtol=0)


def test_turning_keys_among_heads_commutes_with_the_rotation():
    model = tiny.model("qwen2").double()
    expected = tiny.logits(model)
    convert_attention(model, rank=16, rope=16, windows=[tiny.ids(2, 40)])
    layer = model.model.layers[0].self_attn
    assert not torch.equal(
        layer.kv_down.weight[16:], tiny.model("qwen2").double().model.layers[0].self_attn.k_proj.weight
    )
    torch.testing.assert_close(tiny.logits(model), expected, atol=1e-9, rtol=0)


def test_a_smaller_latent_errs_less_the_wider_it_is_and_its_cache_is_as_wide():
    model = tiny.model().double()
    expected, windows = tiny.logits(model), [tiny.ids(4, 60)]
    errors = []
    for rank in (6, 12, 24):
        undo = convert_attention(model, rank=rank, rope=8, windows=windows)
        cache = DynamicCache(config=model.config)
        errors.append(float((tiny.logits(model, past_key_values=cache) - expected).norm()))
        assert held(cache) == 3 * 2 * 24 * (rank + 8) * 8
        undo()
    assert errors == sorted(errors, reverse=True)
    assert torch.equal(tiny.logits(model), expected)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_converted_model_is_saved_and_loaded(kind, tmp_path):
    model = tiny.model(kind)
    convert_attention(model, rank=20, windows=[tiny.ids(2, 40)])
    loaded = polyad.load(polyad.save(model, tmp_path / "mla"))
    assert isinstance(loaded.model.layers[2].self_attn, LatentAttention)
    assert torch.equal(tiny.logits(loaded), tiny.logits(model))


def test_latents_lie_in_our_caches_too_and_are_generated_from():
    model = tiny.model().double()
    convert_attention(model, rank=12, windows=[tiny.ids(2, 40)])
    ids, mask = tiny.ids(2, 20), torch.ones(2, 20, dtype=torch.int64)
    mask[0, :5] = 0
    options = {"attention_mask": mask, "max_new_tokens": 9, "do_sample": False, "num_beams": 2}
    expected = model.generate(ids, **options)
    assert torch.equal(model.generate(ids, past_key_values=cache_for(model), **options), expected)
    assert torch.equal(model.generate(ids, past_key_values=cache_for(model, exact, window=4), **options), expected)


def exact(place):
    """Exact storage in the shape that codecs have, so that what is stored is seen to be read."""

    class Exact(Codec):
        def encode(self, keys, values, queries):
            assert keys.shape[1] == place.key_heads == 1
            return Dense(keys), Dense(values)

    return Exact()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 30}, "rank=30 exceeds what is left of keys and values beside rope=8"),
        ({"rank": 8, "rope": 18}, "rope=18 exceeds"),
        ({"rank": 8, "rope": 3}, "must be even"),
        ({"heal": 3}, "heal=3 was given without rank"),
        ({"rope": 8}, "without rank"),
    ],
)
def test_what_cannot_be_converted_is_said(options, said):
    model = tiny.model()
    with pytest.raises(ValueError, match=said):
        convert_attention(model, windows=[tiny.ids(2, 40)], **options)
    assert type(model.model.layers[0].self_attn).__name__ == "LlamaAttention"


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_attention_of_another_kind_is_refused(kind):
    with pytest.raises(ValueError, match=r"no blocks|no list of layers"):
        transmla(tiny.model(kind))


def test_healing_brings_a_smaller_latent_nearer_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    ids = tiny.ids(8, 64)
    windows = list(tiny.ids(16, 64, seed=5))

    def error(model=None, **given):
        model = tiny.model() if model is None else model
        expected = tiny.logits(model, ids).log_softmax(-1)
        convert_attention(model, rank=12, windows=windows, **given)
        assert not any(module.training for module in model.modules())
        return float((expected.exp() * (expected - tiny.logits(model, ids).log_softmax(-1))).sum(-1).mean())

    plain, healed = error(), error(heal=30, rate=3e-3)
    assert healed < 0.95 * plain
    state, original = tmp_path / "state", polyad.train.state.keep

    def killed(file, *given):
        original(file, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("polyad.train.descend"), "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        error(heal=30, rate=3e-3, state=state)
    monkeypatch.undo()
    assert error(heal=30, rate=3e-3, state=state) == pytest.approx(healed, rel=1e-6)
    with pytest.raises(ValueError, match=r"another training \(rate was 0.003 and is 0.002\)"):
        error(heal=30, rate=2e-3, state=state)
    other = tiny.model()
    with torch.no_grad():
        other.model.norm.weight.mul_(1.01)
    with pytest.raises(ValueError, match=r"another training \(model was \w{16} and is \w{16}\)"):
        error(other, heal=30, rate=3e-3, state=state)


def test_healing_leaves_the_model_that_it_converts_as_it_was():
    model = tiny.model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    modules = transmla(model)
    assert torch.equal(torch.get_rng_state(), state)
    heal(model, modules, lambda step: torch.arange(16).view(1, 16) + step, steps=3, rate=1e-2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    moved = [m.o_proj.weight for m in modules.values()]
    assert not any(
        torch.equal(w, layer.self_attn.o_proj.weight) for w, layer in zip(moved, model.model.layers, strict=True)
    )


def test_the_command_converts_and_says_what_the_cache_takes(polyad_command, tiny_folder, tiny_text, tmp_path):
    options = ("--to", "mla", "--rank", 12, "--calibrate", tiny_text, "--out", tmp_path / "mla")
    code, out, err = polyad_command("convert", tiny_folder, *options, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["cache_numbers_per_token"], found["cache_numbers_per_token_before"]) == (3 * 20, 3 * 32)
    assert polyad.load(tmp_path / "mla").model.layers[0].self_attn.rank == 12
    options = ("--to", "mla", "--rank", 12, "--calibrate", tiny_text, "--heal", 3, "--out", tmp_path / "healed")
    code, out, err = polyad_command("convert", tiny_folder, *options, "--json")
    assert code == 0, err
    plain, healed = (polyad.load(tmp_path / name).model.layers[0].self_attn for name in ("mla", "healed"))
    assert not torch.equal(plain.key_up, healed.key_up)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["healed", "mla"]


KINDS = {"vocabulary": 50, "width": 24, "layers": 2, "heads": 3, "hidden": 40}


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_decoders_decode_what_they_compute_at_once_and_are_of_one_size(kind):
    model = decoder(kind, **KINDS).double()
    ids = tiny.ids(2, 24) % 50
    expected = model(ids)
    for cache in (DynamicCache(), HeldCache([HeldLayer(None, 0, None) for _ in range(2)], None)):
        parts = [model(piece, cache) for piece in ids.split([12, 1, 9, 2], 1)]
        torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-12, rtol=0)
    sizes = [sum(p.numel() for p in decoder(k, **KINDS).parameters()) for k in (kind, "mha")]
    assert abs(sizes[0] - sizes[1]) <= 2 * 3 * 24 / 2 + 2 * 3 * 24  # half a row of the MLP a layer, and rounding


def test_the_factors_in_the_cache_are_as_few_as_the_paper_says():
    h, d, ranks = 3, 8, 2 + 2
    sizes = {}
    for kind in ("tpa", "mha"):
        cache = DynamicCache()
        decoder(kind, **KINDS)(tiny.ids(2, 24) % 50, cache)
        sizes[kind] = held(cache)
    assert sizes["tpa"] / sizes["mha"] == ranks * (h + d) / (2 * h * d)


def test_decoding_from_factors_forms_no_keys_and_no_values(monkeypatch):
    model = decoder("tpa", **KINDS)
    cache, ids = DynamicCache(), tiny.ids(2, 24) % 50
    model(ids, cache)
    lengths = []
    formed = TensorProductAttention._form_heads
    monkeypatch.setattr(
        TensorProductAttention, "_form_heads", lambda self, f: lengths.append(f.shape[2]) or formed(self, f)
    )
    model(ids[:, :1], cache)
    assert lengths == [1, 1]  # the queries of two layers


def test_constant_first_factors_of_queries_keys_and_values_are_grouped_attention():
    h, d = 3, 8
    layer = TensorProductAttention(24, h, d, rank_q=h, rank_k=1, rank_v=1).double()
    plain = GroupedAttention(24, h, d, key_heads=1).double()
    x = torch.randn(1, 20, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[..., 0] = 1.0  # what the constants are made of
    rows = layer.factors.weight.data.view(h + 2, h + d, 24)
    rows[:, :h] = 0
    for r in range(h):
        rows[r, r, 0] = h  # the sum over ranks is divided by their number
    rows[h:, :h, 0] = 1
    plain.q_proj.weight.data = rows[:h, h:].flatten(0, 1)
    plain.kv_proj.weight.data = rows[h:, h:].flatten(0, 1)
    plain.o_proj.weight = layer.o_proj.weight
    table = tuple(t.double() for t in tables(0, 20, d))
    torch.testing.assert_close(layer(x, table)[0], plain(x, table)[0], atol=1e-12, rtol=0)


def test_older_tokens_have_fewer_bits_and_every_token_its_place():
    x = torch.randn(2, 3, 50, 8, generator=torch.Generator().manual_seed(0))
    parts = staircase(x, group=8)
    assert [(p.shape[-2], p.bits) for p in parts] == [(20, 2), (20, 4), (10, 8)]
    error = (torch.cat([p.to_dense() for p in parts], -2) - x).square().mean((0, 1, 3)).sqrt()
    assert error[:20].mean() > 3 * error[20:40].mean() > 9 * error[40:].mean()
    with pytest.raises(ValueError, match="sum to 1"):
        staircase(x, (2, 4), share=(0.5, 0.4))


@pytest.mark.parametrize(("name", "wrong"), [("scaling", []), ("scaling", 10**400), ("rank", 2.5), ("query_bias", 1)])
def test_a_damaged_description_of_latent_attention_is_refused(name, wrong):
    one = LatentAttention(24, 4, rank=10, nope=4, rope=4, value=5)
    spec = one.spec()
    assert LatentAttention.from_spec(spec, one).spec() == spec
    with pytest.raises(ValueError, match=f"latent attention module states .* for {name}, where .* copy the folder"):
        LatentAttention.from_spec({**spec, name: wrong}, one)
