"""Caches inside models whose layers differ: windows, rotations of their own or none, keys that the model changes."""

import copy
from functools import partial

import pytest
import torch
import transformers

import tiny
from polyad.cache import H2O, Kivi, Metric, Palu, PrefixKV, Squat, cache_for, fisher, observe, recording_cache
from polyad.cache.host.fused_rows import fuse_rows
from polyad.cache.host.probe import uses_of_cache
from polyad.evaluation.caches import cache_quality
from polyad.quantize import round_to_nearest

SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 97, "max_position_embeddings": 256, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}  # fmt: skip
EXPERTS = {
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
}
KINDS = {
    "gemma2": ("Gemma2", {"sliding_window": 8, "head_dim": 8}),  # the first layer slides
    "gemma3": ("Gemma3", {
        "sliding_window": 8, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"] * 2,
    }),
    "gemma4": ("Gemma4", {
        "head_dim": 8, "global_head_dim": 8, "sliding_window": 8, "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 97,
    }),
    "smollm3": ("SmolLM3", {}),  # every fourth layer is not rotated
    "cohere2": ("Cohere2", {"sliding_window": 8, "head_dim": 8}),  # full layers are not rotated
    "exaone4": ("Exaone4", {"sliding_window": 8, "sliding_window_pattern": 2}),
    "llama4": ("Llama4", {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 48}),
    "gpt-oss": ("GptOss", {"head_dim": 8, "sliding_window": 8, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "jamba": ("Jamba", {
        "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "num_experts": 2,
        "use_mamba_kernels": False,
    }),  # a hybrid without rotation
    "qwen3-next": ("Qwen3Next", {
        "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    }),
    "deepseek2": ("DeepseekV2", {**LATENT, **EXPERTS}),
    "deepseek3": ("DeepseekV3", {**LATENT, **EXPERTS}),
    "minicpm3": ("MiniCPM3", LATENT),
    "jetmoe": ("JetMoe", {"kv_channels": 8, "num_experts_per_tok": 2, "num_local_experts": 4}),
    "diffllama": ("DiffLlama", {}),
    "falcon": ("Falcon", {}),
    "bloom": ("Bloom", {"n_layer": 2, "n_head": 4}),
    "gptj": ("GPTJ", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
}  # fmt: skip
TOUCHING = ["deepseek2", "deepseek3", "minicpm3", "jetmoe", "diffllama", "falcon", "bloom", "gptj", "gemma4"]
"""Models that make other keys of those in the cache, or see to attention themselves."""
EVERY = pytest.mark.parametrize("kind", KINDS)


def build(kind, **more):
    family, changed = KINDS[kind]
    config = next(
        getattr(transformers, f"{family}{t}Config")
        for t in ("Text", "")
        if hasattr(transformers, f"{family}{t}Config")
    )
    torch.manual_seed(0)
    name = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    model = getattr(transformers, name)(config(**{**SHAPE, **changed, **more})).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 and "embed" not in name and not name.endswith("A_log"):
                p.mul_(3)  # so that attention is not flat
    return model


def ids(batch=2, length=20, seed=1):
    return torch.randint(1, 97, (batch, length), generator=torch.Generator().manual_seed(seed))


def settings(tokens, *, pad=5):
    mask = torch.ones_like(tokens)
    mask[0, :pad] = 0
    return {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0, "attention_mask": mask}


def near(first, second, tolerance=1e-3):
    assert float((first - second).norm()) <= tolerance * float(second.norm())


@EVERY
def test_exact_tokens_are_those_of_the_plain_cache_with_left_padding(kind):
    model, tokens = build(kind), ids()
    options = settings(tokens)
    expected = model.generate(tokens, **options)
    assert torch.equal(model.generate(tokens, past_key_values=cache_for(model), **options), expected)
    assert torch.equal(model.generate(tokens, **options), expected)  # other caches are read as before


@EVERY
@pytest.mark.parametrize("make", [partial(Kivi, bits=8, group=4), partial(Palu, rank=16, value_rank=16)], ids=repr)
def test_codecs_hold_what_the_model_gives_and_lose_what_they_say(kind, make):
    model, tokens = build(kind), ids(2, 40)
    uses = uses_of_cache(model)
    if "Palu" in repr(make) and None in {use.rotated for use in uses.values()}:
        with pytest.raises(ValueError, match="usual way"):
            observe(model, make, [tokens[1:]])
        return
    seen = None if "Palu" not in repr(make) else observe(model, Palu, [tokens[1:]])
    if seen:
        make = partial(Palu, rank=seen[0]["keys"].shape[0], value_rank=seen[0]["values"].shape[0])
    with torch.no_grad():
        expected = model(tokens).logits[:, 24:]
        cache = cache_for(model, make, window=4, seen=seen)
        parts = [model(part, past_key_values=cache).logits for part in tokens.split([24] + [1] * 16, 1)]
    assert {layer.stored.length for layer in cache.held} == {36}
    assert {layer.recent.read()[0].shape[1] for layer in cache.held} == {uses[min(uses)].heads}
    near(torch.cat(parts[1:], 1), expected[:, :16], 1e-4 if seen else 0.1)


@EVERY
def test_copies_of_a_cache_go_on_alike(kind):
    model, tokens = build(kind), ids(2, 24)
    cache = cache_for(model, partial(Kivi, bits=8, group=4), window=4)
    with torch.no_grad():
        model(tokens, past_key_values=cache)
        duplicate = copy.deepcopy(cache)
        first, second = (model(ids(2, 3, 2), past_key_values=one).logits for one in (cache, duplicate))
    assert torch.equal(first, second)


@EVERY
def test_an_adopted_exact_cache_is_the_exact_cache(kind):
    model = build(kind)
    windows = ids(2, 40)
    study = cache_quality(model, {"plain": partial(cache_for, model)}, windows, scored=16)["plain"]
    assert study.ratio == pytest.approx(1, abs=1e-5)
    assert study.ratio_of_bytes == pytest.approx(0.5, rel=0.01)  # float32 beside bfloat16, all layers on both sides


@pytest.mark.parametrize("kind", ["smollm3", "cohere2", "exaone4", "llama4"])
def test_layers_without_rotation_are_not_turned(kind):
    model = build(kind)
    uses = uses_of_cache(model)
    rotated = {i: bool(use.rotated) for i, use in uses.items()}
    if kind == "smollm3":
        assert rotated == {0: True, 1: True, 2: True, 3: False}
    assert not rotated[3]
    moments = {}
    for make in (Metric, Kivi):  # with what is before rotation, and as it stands
        moments[make] = observe(model, make, [ids(1, 30)])
    for n, i in enumerate(uses):
        same = torch.allclose(moments[Metric][n]["keys"], moments[Kivi][n]["keys"], rtol=1e-5, atol=1e-6)
        assert same is not rotated[i]


def test_each_layer_has_its_own_rotation():
    """Gemma 3 turns keys of sliding layers with other frequencies than those of full layers."""
    model = build("gemma3", rope_parameters={
        "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
        "full_attention": {"rope_type": "default", "rope_theta": 1000.0},
    })  # fmt: skip
    exact = recording_cache(model)
    keys = []
    attention = model.model.layers[1].self_attn
    handle = attention.k_norm.register_forward_hook(lambda *a: keys.append(a[2]))
    with torch.no_grad():
        model(ids(), past_key_values=exact)
    handle.remove()
    layer = exact.layers[1]
    unrotated = exact.rotation.undo(layer.recent.read()[0], 0)
    near(unrotated, keys[0] if keys[0].shape == unrotated.shape else keys[0].transpose(1, 2), 1e-5)


def test_fisher_information_of_full_layers_takes_their_rotation():
    model = build("gemma3", rope_parameters={
        "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
        "full_attention": {"rope_type": "default", "rope_theta": 1000.0},
    })  # fmt: skip
    windows, grads = [ids(1, 24)], []
    handle = model.model.layers[3].self_attn.k_norm.register_full_backward_hook(
        lambda _m, _i, out: grads.append(out[0])
    )
    found = fisher(model, Metric, windows)
    handle.remove()
    rows = grads[0] if grads[0].shape[1] == 24 else grads[0].transpose(1, 2)
    rows = rows.flatten(2)[0]
    near(found[1]["key_fisher"], rows.mT @ rows / 24, 1e-4)


@pytest.mark.parametrize("scaling", ["longrope", "dynamic"])
def test_left_padded_rows_keep_the_frequencies_of_their_calls(scaling):
    parameters = {
        "longrope": {
            "rope_type": "longrope", "rope_theta": 100.0, "short_factor": [1.0] * 4,
            "long_factor": [1.0, 2.0, 4.0, 8.0], "original_max_position_embeddings": 24,
        },
        "dynamic": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0},
    }[scaling]  # fmt: skip
    family = "Phi3" if scaling == "longrope" else "Llama"
    torch.manual_seed(0)
    lengths = {"max_position_embeddings": 24} if scaling == "dynamic" else {"original_max_position_embeddings": 24}
    config = getattr(transformers, f"{family}Config")(**{**SHAPE, **lengths}, rope_parameters=parameters)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(5)
    tokens, mask = ids(2, 40), torch.ones(2, 40, dtype=torch.int64)
    mask[0, :9] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    seen = observe(model, Metric, [ids(1, 20)])
    outs = []
    for cache in (
        transformers.DynamicCache(config=config),
        cache_for(model, partial(Metric, rank=16), window=2, seen=seen),
    ):
        with torch.no_grad():
            outs.append(torch.cat([
                model(
                    tokens[:, a:b], attention_mask=mask[:, :b], position_ids=places[:, a:b], past_key_values=cache
                ).logits
                for a, b in [(0, 20), *((i, i + 1) for i in range(20, 40))]
            ], 1))  # fmt: skip
    near(outs[1][:, 20:], outs[0][:, 20:], 1e-4)


@pytest.mark.parametrize("kind", TOUCHING)
def test_codecs_that_compare_keys_with_queries_are_refused_where_the_model_changes_keys(kind):
    model = build(kind)
    for make in (Squat, H2O, PrefixKV):
        with pytest.raises(ValueError, match="attends with keys that it makes"):
            cache_for(model, make)


def test_the_codec_of_latents_knows_that_there_is_one_head():
    model = build("deepseek3")
    places = []
    cache_for(model, lambda place: places.append(place) or Kivi(place))
    assert [(place.heads, place.key_heads) for place in places] == [(4, 1)] * 4


def test_prompts_shorter_than_the_window_with_rounded_coordinates():
    model = tiny.model()
    seen = observe(model, Palu, [tiny.ids(1, 40)])
    make = partial(Palu, rank=8, bits=4)
    cache = cache_for(model, make, window=6, seen=seen)
    parts = [tiny.logits(model, part, past_key_values=cache) for part in tiny.ids(1, 12).split(1, 1)]
    assert bool(torch.isfinite(torch.cat(parts)).all())
    assert cache.held[0].stored.length == 6
    for down, shape in ((False, (1, 1, 1, 64)), (True, (1, 1, 64, 1))):
        x = torch.linspace(-1, 1, 64).reshape(shape)
        rows = fuse_rows(round_to_nearest(x, 4, group=(64, 1) if down else 64, zero_dtype=torch.float16))
        several = torch.ones(1, 1, 3, 1)
        out = rows.linear(several) if down else rows.combine(several)
        near(out, torch.full((1, 1, 3, 64), 1.0) * x.flatten(), 0.1)


def test_modules_that_name_their_mask_are_called():
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    cache_for(tiny.model())  # registers the functions
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    model = CLIPVisionModel(config).eval()
    for name in ("sdpa", "eager"):
        cache_for(tiny.model("granite") if name == "sdpa" else eager())
        model.set_attn_implementation(name)
        pixels = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
        with torch.no_grad():
            expected = model(pixels).last_hidden_state
            model.set_attn_implementation(f"polyad_{name}")
            assert torch.equal(model(pixels).last_hidden_state, expected)


def eager():
    model = tiny.model()
    model.set_attn_implementation("eager")
    return model


def test_attention_functions_take_the_mask_by_its_name():
    from transformers import AttentionInterface

    model = eager()
    cache_for(model)
    q = torch.linspace(-1, 1, 2 * 4 * 3 * 8).reshape(2, 4, 3, 8)
    k = torch.linspace(1, -1, 2 * 2 * 3 * 8).reshape(2, 2, 3, 8)
    mask = torch.zeros(2, 1, 3, 3)
    cache_for(tiny.model())
    for name in ("polyad_sdpa", "polyad_eager"):
        function = AttentionInterface()[name]
        module = model.model.layers[0].self_attn
        by_name = function(module, q, k, k, attention_mask=mask, scaling=1.0)[0]
        assert torch.equal(by_name, function(module, q, k, k, mask, scaling=1.0)[0])


@pytest.mark.parametrize("make", [None, partial(Kivi, bits=8, group=4)])
def test_weights_of_attention_are_given_back_by_eager_attention_and_missed_with_a_word_by_the_other(make):
    model, tokens = eager(), tiny.ids(2, 20)
    expected = [tiny_attentions(model, tokens)[-1][:, :, -1:]]
    cache = cache_for(model, make, window=4)
    tiny_attentions(model, tokens[:, :-1], past_key_values=cache)
    weights = tiny_attentions(model, tokens[:, -1:], past_key_values=cache)
    assert len(weights) == model.config.num_hidden_layers
    near(weights[-1], expected[0], 1e-5 if make is None else 0.05)
    model = tiny.model()
    cache = cache_for(model, make, window=4)
    with pytest.warns(UserWarning, match="eager"):
        tiny_attentions(model, tokens, past_key_values=cache)


def tiny_attentions(model, tokens, **more):
    with torch.no_grad():
        return model(tokens, output_attentions=True, **more).attentions


PAIRS = {
    "t5": ("T5ForConditionalGeneration", "T5Config", {
        "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
        "vocab_size": 97, "decoder_start_token_id": 0,
    }),
    "bart": ("BartForConditionalGeneration", "BartConfig", {
        "d_model": 32, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4, "vocab_size": 97,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
    }),
}  # fmt: skip


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("beams", [1, 3])
def test_decoders_of_an_encoder_keep_the_plain_cache_for_its_output(kind, beams):
    name, config, sizes = PAIRS[kind]
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**sizes)).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(2)
    tokens = ids(2, 12) + 2
    mask = torch.ones_like(tokens)
    mask[0, 9:] = 0
    options = {
        "attention_mask": mask, "max_new_tokens": 20, "min_new_tokens": 20, "num_beams": beams, "do_sample": False
    }  # fmt: skip
    expected = model.generate(tokens, **options)
    assert torch.equal(model.generate(tokens, past_key_values=cache_for(model), **options), expected)
    cache = cache_for(model, partial(Kivi, bits=8, group=4), window=4)
    assert float((model.generate(tokens, past_key_values=cache, **options) == expected).float().mean()) > 0.8
    assert [layer.stored.length for layer in cache.held] == [16, 16]
    cross = sum(t.nbytes for layer in cache.cross_attention_cache.layers for t in (layer.keys, layer.values))
    assert cross == 2 * 2 * (2 * beams) * 12 * 32 * 4
    assert cache.nbytes > cross
    duplicate = copy.deepcopy(cache)
    duplicate.batch_repeat_interleave(2)
    assert duplicate.held[0].recent.read()[0].shape[0] == 4 * beams
    assert torch.equal(model.generate(tokens, **options), expected)
