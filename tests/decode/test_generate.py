"""Tokens of ``polyad.generate`` are those of transformers, by the loop where a model's structure permits."""

import pytest
import torch
import transformers

import polyad
import tiny
from polyad.decode.steps import products
from polyad.testing.decoders import random_decoder

PROMPT, PAD, NEW = 20, 5, 16
MORE = {
    "gemma": ("Gemma", {"head_dim": 8}),
    "gemma2": ("Gemma2", {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 12}),
    "phi": ("Phi", {"partial_rotary_factor": 0.5}),
    "olmo": ("Olmo", {}),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2}),
}
LOOPS = [*tiny.KINDS, *MORE, "gemma3", "opt"]


def model(kind):
    """A random model that does not end its texts."""
    if kind in tiny.KINDS:
        made = tiny.model(kind)
    elif kind == "gemma3":
        config = transformers.Gemma3TextConfig(
            **tiny.SHAPE | {"num_hidden_layers": 7}, head_dim=8, sliding_window=6, query_pre_attn_scalar=12
        )
        made = transformers.Gemma3ForCausalLM(config).eval()
        polyad.testing.decoders.fill_randomly(made)
    elif kind == "opt":
        made = random_decoder("OPT", **tiny.SHAPE, word_embed_proj_dim=32, ffn_dim=48, do_layer_norm_before=True)
    else:
        family, changed = MORE[kind]
        made = random_decoder(family, **tiny.SHAPE | changed)
    made.config.eos_token_id = made.generation_config.eos_token_id = None
    return made


def test_more_tokens_than_learned_positions_are_refused_before_any_is_made():
    made = model("opt")  # of 64 positions
    with pytest.raises(ValueError, match="71 tokens together, and the model has learned 64 positions"):
        polyad.generate(made, [5] * 60, max_new_tokens=11, dtype=torch.float32)
    padded = torch.tensor([[0] * 7 + [5] * 53])
    mask = (padded > 0).long()
    got = polyad.generate(made, padded, attention_mask=mask, max_new_tokens=11, dtype=torch.float32)
    assert (got.loop, got.tokens.shape) == ("polyad", (1, 11))


def batch():
    """Two prompts, the second padded on the left."""
    ids = tiny.ids(2, PROMPT)
    mask = torch.ones_like(ids)
    mask[1, :PAD], ids[1, :PAD] = 0, 0
    return ids, mask


def both(made, **settings):
    """The generation of polyad and the sequences of transformers, from the same batch in float32."""
    ids, mask = batch()
    sampled = settings.pop("sample", False)
    torch.manual_seed(7)
    expected = made.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=sampled, **settings)
    drawn = {"generator": torch.Generator().manual_seed(7), "sample": True} if sampled else {}
    got = polyad.generate(
        made, ids, attention_mask=mask, max_new_tokens=NEW, dtype=torch.float32, **drawn, **settings
    )
    return got, expected


@pytest.mark.parametrize("kind", LOOPS)
def test_the_loop_makes_the_tokens_of_transformers(kind):
    got, expected = both(model(kind))
    assert (got.loop, got.reason) == ("polyad", None)
    assert got.sequences.tolist() == expected.tolist()
    assert got.tokens.tolist() == expected[:, PROMPT:].tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7, "top_k": 20},
        {"top_p": 0.8, "repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2, "min_p": 0.05},
    ],
)
@pytest.mark.parametrize("kind", ["llama", "mixture"])
def test_samples_are_those_of_transformers(kind, settings):
    made = mixture("Mixtral") if kind == "mixture" else model(kind)
    got, expected = both(made, sample=True, **settings)
    assert got.loop == "polyad"
    assert got.sequences.tolist() == expected.tolist()


def test_settings_of_the_generation_configuration_count():
    made = model("llama")
    plain, _ = both(made)
    made.generation_config.repetition_penalty = 3.0
    got, expected = both(made)
    assert got.sequences.tolist() == expected.tolist()
    assert got.sequences.tolist() != plain.sequences.tolist()


def test_a_processor_of_logits_is_heeded():
    def forbid(ids, scores):
        return scores.index_fill(-1, torch.arange(5, 500), -torch.inf)

    made = model("llama")
    got = polyad.generate(made, [7, 8, 9], max_new_tokens=12, logits_processor=forbid, dtype=torch.float32)
    assert got.loop == "polyad"
    assert int(got.tokens.max()) < 5


@pytest.mark.parametrize("kind", ["mamba", "bloom"])
def test_other_models_are_run_by_transformers_and_the_reason_is_said(kind):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 500, "pad_token_id": 0}
    if kind == "mamba":
        made = transformers.MambaForCausalLM(transformers.MambaConfig(state_size=4, **sizes)).eval()
        word = "a layer of the cache is a LinearAttentionLayer"
    else:
        made = transformers.BloomForCausalLM(transformers.BloomConfig(n_head=4, **sizes)).eval()
        word = "cannot be chosen"
    made.config.eos_token_id = made.generation_config.eos_token_id = None
    ids = torch.tensor([[5, 6, 7, 8]])
    got = polyad.generate(made, ids, max_new_tokens=6, dtype=torch.float32)
    assert got.loop == "transformers"
    assert word in got.reason
    assert got.sequences.tolist() == made.generate(ids, max_new_tokens=6, do_sample=False).tolist()


MIXTURES = {
    "Mixtral": {}, "Qwen2Moe": {"shared_expert_intermediate_size": 16, "decoder_sparse_step": 2}, "GraniteMoe": {},
    "GraniteMoeShared": {"shared_intermediate_size": 16}, "Dots1": {"n_routed_experts": 4, "n_shared_experts": 1},
    "Qwen3Moe": {"norm_topk_prob": True}, "Olmoe": {},
}  # fmt: skip


def mixture(family):
    made = random_decoder(family, **tiny.SHAPE | tiny.EXPERTS | {"head_dim": 8, "num_key_value_heads": 4},
                          **MIXTURES[family])  # fmt: skip
    made.config.eos_token_id = made.generation_config.eos_token_id = None
    return made


@pytest.mark.parametrize("family", MIXTURES)
def test_mixtures_take_the_loop_with_experts_of_their_own(family):
    got, expected = both(mixture(family))
    assert (got.loop, got.reason) == ("polyad", None)
    assert got.sequences.tolist() == expected.tolist()
    half = polyad.generate(mixture(family), tiny.ids(1, 9), max_new_tokens=4, dtype=torch.bfloat16)
    assert (half.loop, half.dtype) == ("polyad", torch.bfloat16)


def test_experts_of_codes_take_the_loop():
    made = mixture("Mixtral")
    before, _ = both(made)
    polyad.apply(made, polyad.plan(made, "rtn:bits=3,group=8", select=["*experts*", "*_proj"]))
    got, expected = both(made)
    assert (got.loop, got.sequences.tolist()) == ("polyad", expected.tolist())
    assert got.sequences.tolist() != before.sequences.tolist()


def test_experts_that_read_other_tokens_are_left_to_transformers():
    made = mixture("Mixtral")
    block = made.model.layers[1].mlp
    inner = block.forward
    block.forward = lambda x: inner(x) + x.mean(1, keepdim=True)
    got, expected = both(made)
    assert (got.loop, "layer 1" in got.reason) == ("transformers", True)
    assert got.sequences.tolist() == expected.tolist()


def test_kernels_of_the_loop_are_those_asked_for(monkeypatch):
    made = tiny.model("llama")
    polyad.apply(made, polyad.plan(made, "rtn:bits=8,symmetric=true"))
    asked, original = [], products.product
    monkeypatch.setattr(products, "product", lambda *a, kernels, **k: asked.append(kernels) or original(
        *a, kernels=kernels, **k))  # fmt: skip
    for kernels, dtype, expected in (
        ("plain", torch.bfloat16, "plain"), ("auto", torch.bfloat16, "auto"), ("auto", torch.float32, "plain"),
        ("packed8", torch.bfloat16, "packed8"),
    ):  # fmt: skip
        asked.clear()
        got = polyad.generate(made, [5, 6, 7], max_new_tokens=3, dtype=dtype, kernels=kernels)
        assert (got.loop, set(asked)) == ("polyad", {expected})
    with pytest.raises(ValueError, match="kernels='fast' is no choice of kernels"):
        polyad.generate(made, [5], kernels="fast")


def test_several_beams_are_transformers():
    made = model("llama")
    got, expected = both(made, num_beams=2)
    assert (got.loop, "beam" in got.reason) == ("transformers", True)
    assert got.sequences.tolist() == expected.tolist()


def test_times_are_told():
    got = polyad.generate(model("llama"), [5, 6, 7], max_new_tokens=4, dtype=torch.float32)
    assert 0 < got.milliseconds_per_token < 1000 * got.seconds
    assert got.prefill_tokens_per_second > 0
    assert (got.threads, got.dtype) == (torch.get_num_threads(), torch.float32)
    assert got.cache_bytes == 3 * 2 * 2 * 8 * 4 * 6  # layers, keys and values, heads, width, bytes, tokens read
    assert polyad.generate(model("llama"), [5], max_new_tokens=1).milliseconds_per_token is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", ["llama", "granite", "gemma"])
def test_half_precision_takes_the_loop_too(kind, dtype):
    made = model(kind).to(dtype)
    got = polyad.generate(made, tiny.ids(1, 9), max_new_tokens=4, dtype=dtype)
    assert (got.loop, got.reason, got.dtype) == ("polyad", None, dtype)


def test_a_float32_model_decodes_in_bfloat16_by_default_where_the_processor_has_it():
    got = polyad.generate(model("llama"), [5, 6, 7], max_new_tokens=4)
    assert (got.loop, got.dtype) == ("polyad", polyad.decode.default_dtype())


def test_longer_than_the_buffers_and_again_with_other_batches():
    made = model("mistral")
    for size, count in ((1, 90), (3, 20), (1, 10)):
        ids = tiny.ids(size, 30, seed=size)
        got = polyad.generate(made, ids, max_new_tokens=count, dtype=torch.float32)
        assert got.loop == "polyad"
        assert got.sequences.tolist() == made.generate(ids, max_new_tokens=count, do_sample=False).tolist()
