"""Every tensor and key of a GGUF file that changes the function is used, or the file is refused by its name."""

import json
import math

import gguf
import numpy as np
import pytest
import torch
import transformers

import polyad
import tiny

SMALL = {
    "vocab_size": 510, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": None,
    "eos_token_id": 0,
}  # fmt: skip
HALF = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
KINDS = {
    "llama": ("LlamaForCausalLM", {}),
    "qwen2": ("Qwen2ForCausalLM", {}),
    "qwen3": ("Qwen3ForCausalLM", {"head_dim": 16}),
    "phi3": ("Phi3ForCausalLM", {"sliding_window": 16}),
    "starcoder2": ("Starcoder2ForCausalLM", {"rope_parameters": {"rope_type": "default", "rope_theta": 99_999.0},
                                             "sliding_window": None}),
    "stablelm": ("StableLmForCausalLM", {"rope_parameters": HALF, "use_qkv_bias": True}),
    "nemotron": ("NemotronForCausalLM", {"rope_parameters": HALF, "head_dim": 8}),
    "falcon": ("FalconForCausalLM", {"multi_query": True, "alibi": False}),
    "gemma2": ("Gemma2ForCausalLM", {"head_dim": 8, "sliding_window": 8, "final_logit_softcapping": 10.0,
                                     "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3ForCausalLM", {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}),
}  # fmt: skip
NORMS_FROM_ONE = ("gemma2", "gemma3", "nemotron")


def build(architecture="llama", **changes):
    name, special = KINDS[architecture]
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    model = kind(kind.config_class(**{**SMALL, **special, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def add_keys(file, config, architecture):
    file.add_context_length(config.max_position_embeddings)
    file.add_block_count(config.num_hidden_layers)
    file.add_embedding_length(config.hidden_size)
    file.add_feed_forward_length(getattr(config, "intermediate_size", None) or config.ffn_hidden_size)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(1 if architecture == "falcon" else config.num_key_value_heads)
    for add, names in (
        (file.add_layer_norm_rms_eps, ("rms_norm_eps", "norm_eps")),
        (file.add_layer_norm_eps, ("layer_norm_eps", "norm_epsilon", "layer_norm_epsilon")),
        (file.add_sliding_window, ("sliding_window",)),
        (file.add_final_logit_softcapping, ("final_logit_softcapping",)),
        (file.add_attn_logit_softcapping, ("attn_logit_softcapping",)),
    ):
        for value in filter(None, (getattr(config, name, None) for name in names)):
            add(value)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rotary = config.rope_parameters.get("full_attention", config.rope_parameters)
    file.add_rope_dimension_count(int(width * rotary.get("partial_rotary_factor", 1.0)))
    file.add_rope_freq_base(rotary["rope_theta"])
    file.add_key_length(width)
    file.add_value_length(width)
    file.add_vocab_size(config.vocab_size)


def add_tokenizer(file):
    stated = json.loads(tiny.tokenizer().backend_tokenizer.to_str())["model"]
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("default")
    file.add_token_list(sorted(stated["vocab"], key=stated["vocab"].get))
    file.add_token_merges([" ".join(pair) for pair in stated["merges"]])
    file.add_eos_token_id(0)


def add_weights(file, model, architecture, without=()):
    config = model.config
    number = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name in without or (name == "lm_head.weight" and config.tie_word_embeddings):
            continue
        stem, _, end = name.rpartition(".")
        there, numbers = f"{names.get_name(stem)}.{end}", tensor.numpy()
        if architecture in NORMS_FROM_ONE and there.endswith("norm.weight"):
            numbers = numbers + 1
        for role, heads in (("attn_q.", config.num_attention_heads), ("attn_k.", config.num_key_value_heads or 1)):
            if architecture == "llama" and role in there:  # the two numbers of a rotation stand side by side there
                numbers = numbers.reshape(heads, 2, -1, *numbers.shape[1:]).swapaxes(1, 2).reshape(numbers.shape)
        file.add_tensor(there, np.ascontiguousarray(numbers))


def write(path, model, architecture="llama", more=lambda _: None, keys=add_keys, **options):
    file = gguf.GGUFWriter(path, architecture)
    keys(file, model.config, architecture)
    add_tokenizer(file)
    more(file)
    add_weights(file, model, architecture, **options)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


LONG = tiny.ids(2, 128)
"""Twice as long as the length that the models here were made for."""


@pytest.mark.parametrize("architecture", KINDS)
def test_an_architecture_is_read_to_the_last_digit(architecture, tmp_path):
    model = build(architecture)
    again = polyad.load(write(tmp_path / "model.gguf", model, architecture))
    assert torch.equal(tiny.logits(again, LONG), tiny.logits(model, LONG))
    polyad.save(again, tmp_path / "out")
    assert torch.equal(tiny.logits(polyad.load(tmp_path / "out"), LONG), tiny.logits(model, LONG))


@pytest.mark.parametrize(("count", "scalar"), [(2, 8), (46, 24)])
def test_the_largest_gemma_scales_its_scores_by_another_width(count, scalar, tmp_path):
    model = build("gemma2", num_hidden_layers=count, hidden_size=96, query_pre_attn_scalar=scalar)
    again = polyad.load(write(tmp_path / "model.gguf", model, "gemma2"))
    assert again.config.query_pre_attn_scalar == scalar
    assert torch.equal(tiny.logits(again), tiny.logits(model))


def plain_frequencies(base=10_000.0, width=8):
    return base ** (-torch.arange(0, width, 2).float() / width)


def linear(file):
    file.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    file.add_rope_scaling_factor(4.0)


def old_linear(file):
    file.add_float32("llama.rope.scale_linear", 4.0)


def yarn(file):
    file.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    file.add_rope_scaling_factor(4.0)
    file.add_rope_scaling_orig_ctx_len(32)
    file.add_rope_scaling_finetuned(True)


def llama3(file):
    scaled = build(rope_parameters=SCALINGS["llama3"][1]).model.rotary_emb.inv_freq
    file.add_tensor("rope_freqs.weight", (plain_frequencies(500_000.0) / scaled).numpy())


SCALINGS = {
    "linear": (linear, {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}),
    "old linear": (old_linear, {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}),
    "yarn": (yarn, {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0,
                    "original_max_position_embeddings": 32}),
    "llama3": (llama3, {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 8192, "rope_theta": 500_000.0}),
}  # fmt: skip


@pytest.mark.parametrize("scaling", SCALINGS)
def test_rotary_scaling_is_the_models(scaling, tmp_path):
    add, stated = SCALINGS[scaling]
    model = build(rope_parameters=stated)
    unscaled = build(rope_parameters={"rope_type": "default", "rope_theta": stated["rope_theta"]})
    unscaled.load_state_dict(model.state_dict())
    assert float((tiny.logits(unscaled, LONG) - tiny.logits(model, LONG)).norm()) > 0.05
    again = polyad.load(write(tmp_path / "model.gguf", model, more=add))
    assert torch.equal(again.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    assert torch.equal(tiny.logits(again, LONG), tiny.logits(model, LONG))
    polyad.save(again, tmp_path / "out")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(tiny.logits(plain, LONG), tiny.logits(model, LONG))


@pytest.mark.parametrize("factors", [[1.0, 1.5, 3.0, 7.0], [2.0, 1.0, 1.0, 9.0], [1.0, 1.0, 1.0, 1.0]])
def test_any_frequencies_of_a_file_are_the_models(factors, tmp_path):
    model = build()
    path = write(
        tmp_path / "model.gguf", model,
        more=lambda f: f.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32)),
    )  # fmt: skip
    again = polyad.load(path)
    model.model.rotary_emb.inv_freq /= torch.tensor(factors)
    torch.testing.assert_close(again.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    torch.testing.assert_close(tiny.logits(again, LONG), tiny.logits(model, LONG), rtol=1e-3, atol=1e-4)


def test_short_and_long_factors_are_the_models(tmp_path):
    stated = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 4.0, 8.0],
              "rope_theta": 10_000.0, "attention_factor": 1.19, "original_max_position_embeddings": 32}  # fmt: skip
    model = build("phi3", rope_parameters=stated, sliding_window=None, original_max_position_embeddings=32)

    def add(file):
        for which in ("short", "long"):
            numbers = np.array(stated[f"{which}_factor"], dtype=np.float32)
            file.add_tensor(f"rope_factors_{which}.weight", numbers)
        file.add_rope_scaling_attn_factors(1.19)
        file.add_rope_scaling_orig_ctx_len(32)

    again = polyad.load(write(tmp_path / "model.gguf", model, "phi3", more=add))
    for tokens in (tiny.ids(2, 20), tiny.ids(2, 60)):
        torch.testing.assert_close(tiny.logits(again, tokens), tiny.logits(model, tokens), rtol=1e-4, atol=1e-5)


def test_biases_that_no_key_states_are_used(tmp_path):
    model = build(attention_bias=True, mlp_bias=True)
    again = polyad.load(write(tmp_path / "model.gguf", model))
    assert torch.equal(tiny.logits(again), tiny.logits(model))


@pytest.mark.parametrize(("ids", "ends"), [({}, 0), ({"eot": 7}, [0, 7]), ({"eot": 7, "eom": 9}, [0, 7, 9])])
def test_a_text_ends_where_the_file_says(ids, ends, tmp_path):
    def add(file):
        file.add_pad_token_id(3)
        for name, token in ids.items():
            file.add_uint32(f"tokenizer.ggml.{name}_token_id", token)

    again = polyad.load(write(tmp_path / "model.gguf", build(), more=add))
    assert again.generation_config.eos_token_id == ends
    assert again.generation_config.pad_token_id == 3
    assert again.generation_config.bos_token_id is None


def test_files_beside_it_belong_to_other_models(tmp_path):
    model = build()
    write(tmp_path / "model.gguf", model)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "eos_token": "other"}')
    (tmp_path / "config.json").write_text("{")
    again = polyad.load(tmp_path / "model.gguf")
    assert torch.equal(tiny.logits(again), tiny.logits(model))
    assert polyad.models.origin(again).tokenizer.eos_token == "<end>"
    assert again.config.name_or_path == str(tmp_path / "model.gguf")


def by_layer(file, config, architecture):
    file.add_feed_forward_length([48, 40])
    keys = gguf.GGUFWriter.add_feed_forward_length
    gguf.GGUFWriter.add_feed_forward_length = lambda *_: None
    try:
        add_keys(file, config, architecture)
    finally:
        gguf.GGUFWriter.add_feed_forward_length = keys


def tensor(name, *shape):
    return lambda f: f.add_tensor(name, np.ones(shape, dtype=np.float32))


def key(name, value):
    return lambda f: f.add_float32(name, value) if isinstance(value, float) else f.add_string(name, value)


REFUSED = {
    "an adapter": ({"more": lambda f: f.add_type(gguf.GGUFType.ADAPTER)}, r"is an adapter \(LoRA\), not a model"),
    "tensors of an adapter": ({"more": tensor("blk.0.attn_q.weight.lora_a", 4, 32)}, "is an adapter"),
    "a projector": ({"more": lambda f: f.add_type(gguf.GGUFType.MMPROJ)}, "is a projector for pictures or sound"),
    "a part": (
        {"more": lambda f: [f.add_uint16("split.no", 1), f.add_uint16("split.count", 3)]},
        "is part 2 of 3 of a split model; join them first",
    ),
    "widths by layer": ({"keys": by_layer}, "states feed_forward_length layer by layer"),
    "a tensor of no use": ({"more": tensor("blk.0.attn_sinks.weight", 4)}, r"holds blk\.0\.attn_sinks\.weight, "),
    "a bias of no use": ({"more": tensor("blk.1.ffn_gate.bias", 48)}, r"blk\.1\.ffn_gate\.bias"),
    "a key of no use": ({"more": key("llama.attention.clamp_kqv", 8.0)}, r"states llama\.attention\.clamp_kqv = 8"),
    "scaled scores": ({"more": key("llama.attention.scale", 0.25)}, r"states llama\.attention\.scale = 0\.25"),
    "an unknown scaling": ({"more": key("llama.rope.scaling.type", "spiral")}, r"rope\.scaling\.type = 'spiral'"),
    "a window": (
        {"more": lambda f: f.add_sliding_window(8)}, r"states llama\.attention\.sliding_window = 8",
    ),
    "a missing tensor": (
        {"without": ["model.layers.1.mlp.up_proj.weight"]}, r"holds no numbers for model\.layers\.1\.mlp\.up_proj",
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_a_file_that_is_no_whole_model_here_is_called_what_it_is(reason, tmp_path):
    options, sentence = REFUSED[reason]
    path = write(tmp_path / "model.gguf", build(), **options)
    with pytest.raises(ValueError, match=rf"model\.gguf .*{sentence}"):
        polyad.load(path)


def test_a_shape_that_the_keys_do_not_describe_is_named(tmp_path):
    def wider(file, config, architecture):
        config = type(config)(**{**config.to_dict(), "intermediate_size": 64})
        add_keys(file, config, architecture)

    path = write(tmp_path / "model.gguf", build(), keys=wider)
    with pytest.raises(
        ValueError, match=r"holds model\.layers\.0\.mlp\.\w+\.weight of shape \(.*48.*\), and its keys"
    ):
        polyad.load(path)


def test_neutral_keys_are_no_reason_to_refuse(tmp_path):
    def add(file):
        file.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        file.add_sliding_window(4096)
        file.add_expert_count(0)
        file.add_float32("llama.attention.scale", 1.0)

    model = build()
    again = polyad.load(write(tmp_path / "model.gguf", model, more=add))
    assert torch.equal(tiny.logits(again), tiny.logits(model))
    assert math.isfinite(float(tiny.logits(again).sum()))
