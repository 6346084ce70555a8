"""A GGUF file written here comes back as the model that it was made of; a damaged one says so."""

import json
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch

import polyad
import tiny
from polyad.models import origin

ROLES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write(path, config, tensors, tokenizer, architecture="llama", quantise=(), start=None):
    file = gguf.GGUFWriter(path, architecture)
    file.add_context_length(config.max_position_embeddings)
    file.add_block_count(config.num_hidden_layers)
    file.add_embedding_length(config.hidden_size)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_dimension_count(config.head_dim)
    file.add_rope_freq_base(10_000.0)
    file.add_vocab_size(config.vocab_size)
    stated = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("default")
    file.add_token_list(sorted(stated["vocab"], key=stated["vocab"].get))
    file.add_token_merges([" ".join(pair) for pair in stated["merges"]])
    file.add_eos_token_id(0)
    if start is not None:
        file.add_bos_token_id(start)
        file.add_add_bos_token(True)
    for name, tensor in tensors.items():
        stem, numbers = name.removesuffix(".weight"), tensor.numpy()
        for role, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if role in name:  # GGUF has the two numbers of a rotation side by side
                numbers = numbers.reshape(heads, 2, -1, numbers.shape[1]).swapaxes(1, 2).reshape(numbers.shape)
        if stem in WHOLE:
            stem = WHOLE[stem]
        else:
            _, _, layer, inner = stem.split(".", 3)
            stem = f"blk.{layer}.{ROLES[inner]}"
        numbers, kind = np.ascontiguousarray(numbers), None
        if name in quantise:
            kind = gguf.GGMLQuantizationType.Q8_0
            numbers = gguf.quants.quantize(numbers, kind)
        file.add_tensor(f"{stem}.weight", numbers, raw_dtype=kind)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny Llama, its tokenizer, and the file that holds both."""
    model, tokenizer = tiny.model(), tiny.tokenizer()
    path = write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model.config, model.state_dict(), tokenizer)
    return SimpleNamespace(model=model, tokenizer=tokenizer, path=path)


def test_a_gguf_file_is_loaded_with_its_tokenizer(made):
    again = polyad.load(made.path)
    assert torch.equal(tiny.logits(again), tiny.logits(made.model))
    assert (origin(again).folder, origin(again).name) == (made.path, str(made.path))
    tokenizer = origin(again).tokenizer
    text = tiny.PART.joined()[:2000]
    assert tokenizer(text, add_special_tokens=False).input_ids == made.tokenizer(text).input_ids
    assert len(tokenizer) == 500, "the end of text that transformers adds has no embedding"
    assert tokenizer.eos_token == "<end>"
    assert polyad.load(made.path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_file_that_says_so_begins_every_text_with_its_start_token(made, tmp_path):
    tokenizer = tiny.tokenizer("<start> $A")
    path = write(tmp_path / "bos.gguf", made.model.config, made.model.state_dict(), tokenizer, start=1)
    assert polyad.data.frame(polyad.load(path)) == polyad.data.Frame((1,))
    assert polyad.data.frame(polyad.load(made.path)) == polyad.data.Frame()


def test_quantised_tensors_are_dequantised(made, tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    path = write(tmp_path / "q.gguf", made.model.config, made.model.state_dict(), made.tokenizer, quantise=[name])
    found, weight = polyad.load(path).state_dict()[name], made.model.state_dict()[name]
    error = float((found - weight).norm() / weight.norm())
    assert 1e-4 < error < 1e-2  # eight bits in blocks of 32


def test_a_gguf_model_is_compressed_and_saved_like_any_other(made, tmp_path):
    model = polyad.load(made.path)
    recipe = "svd:rank=4"
    polyad.apply(model, polyad.plan(model, recipe, select="*.mlp.*"))
    said = tiny.logits(model)
    polyad.save(model, tmp_path / "out", tokenizer=origin(model).tokenizer)
    again = polyad.load(tmp_path / "out")
    assert torch.equal(tiny.logits(again), said)
    assert len(origin(again).tokenizer) == 500


@pytest.mark.parametrize("share", [0.002, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999])
def test_a_truncated_file_is_refused(made, tmp_path, share):
    raw = made.path.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(
        ValueError, match=r"cut\.gguf (cannot be read|is) .*truncated or damaged.* get the file again"
    ):
        polyad.load(path)


@pytest.mark.parametrize("content", [b"", b"GG", b"hello " * 99])
def test_a_file_that_is_no_gguf_is_refused(tmp_path, content):
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.gguf is no GGUF file \(it does not begin with GGUF\)"):
        polyad.load(tmp_path / "bad.gguf")


def test_a_file_that_does_not_count_its_blocks_is_refused_at_once(made, tmp_path):
    content = made.path.read_bytes()
    assert content.count(b"llama.block_count") == 1
    (tmp_path / "x.gguf").write_bytes(content.replace(b"llama.block_count", b"llama.block_#ount"))
    with pytest.raises(ValueError, match="tensors, and no count of the blocks that they are of"):
        polyad.load(tmp_path / "x.gguf")


def test_what_transformers_would_fill_with_random_numbers_is_refused(made, tmp_path):
    some = {name: t for name, t in made.model.state_dict().items() if "layers.1.mlp.up" not in name}
    path = write(tmp_path / "part.gguf", made.model.config, some, made.tokenizer)
    with pytest.raises(
        ValueError, match=r"holds no numbers for model\.layers\.1\.mlp\.up_proj\.weight; .* not whole"
    ):
        polyad.load(path)
    path = write(tmp_path / "other.gguf", made.model.config, some, made.tokenizer, architecture="mystery")
    with pytest.raises(ValueError, match=r"architecture mystery is not supported .* give a folder of safetensors"):
        polyad.load(path)
