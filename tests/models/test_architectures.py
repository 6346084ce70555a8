"""Plain folders of architectures whose buffers, ties and embeddings are of many makes come back bit for bit."""

import pytest
import torch
import transformers
from torch import nn

import polyad
import tiny
from polyad.layers import Linear
from polyad.models import replace
from polyad.quantize import round_to_nearest

SMALL = {
    "vocab_size": 500, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
SEQUENCES = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
KINDS = {
    "GemmaForCausalLM": {},
    "Gemma2ForCausalLM": {"sliding_window": 8},
    "Gemma3ForCausalLM": {"sliding_window": 8},
    "GPTNeoForCausalLM": {"num_heads": 4, "num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "FalconH1ForCausalLM": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 4,
                            "mamba_n_groups": 1, "mamba_chunk_size": 8},
    "FalconMambaForCausalLM": {"state_size": 4},
    "XGLMForCausalLM": {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
    "MixtralForCausalLM": {"num_local_experts": 4, "tie_word_embeddings": True},
    "DeepseekV3ForCausalLM": {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
                              "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
                              "topk_group": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1,
                              "num_key_value_heads": 4},
    "BertForMaskedLM": {},
    "T5ForConditionalGeneration": SEQUENCES,
    "MarianMTModel": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48,
                      "decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4},
}  # fmt: skip


def build(name):
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    model = kind(kind.config_class(**{**SMALL, **KINDS[name]})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


@torch.no_grad()
def output(model):
    more = {"decoder_input_ids": tiny.ids()[:, :5]} if model.config.is_encoder_decoder else {}
    return model(input_ids=tiny.ids(), **more).logits


def tensors(model):
    both = model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    return {name: t for named in both for name, t in named}


def shared(model):
    groups = {}
    for name, tensor in tensors(model).items():
        groups.setdefault(id(tensor), set()).add(name)
    return {frozenset(names) for names in groups.values()}


def check_same(again, model):
    assert type(again) is type(model)
    first, second = tensors(model), tensors(again)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert torch.equal(tensor, second[name]), name
    assert shared(again) == shared(model)
    assert torch.equal(output(again), output(model))


@pytest.mark.parametrize("name", KINDS)
def test_an_architecture_comes_back_bit_for_bit(name, tmp_path):
    model = build(name)
    polyad.save(model, tmp_path / "ours")
    check_same(polyad.load(tmp_path / "ours"), model)
    plain = type(model).from_pretrained(tmp_path / "ours")
    assert torch.equal(output(plain), output(model))
    if name != "MarianMTModel":  # whose sines transformers does not save, and the noise was added to them here
        model.save_pretrained(tmp_path / "theirs")
        check_same(polyad.load(tmp_path / "theirs"), model)


@pytest.mark.parametrize("name", KINDS)
def test_a_compressed_architecture_comes_back_bit_for_bit(name, tmp_path):
    model = build(name)
    path, layer = next((p, m) for p, m in model.named_modules() if type(m) is nn.Linear)
    replace(model, {path: Linear(round_to_nearest(layer.weight.detach(), 8), layer.bias)})
    polyad.save(model, tmp_path / "out")
    check_same(polyad.load(tmp_path / "out"), model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["Gemma3ForCausalLM", "FalconH1ForCausalLM"])
def test_every_tensor_keeps_the_dtype_that_it_had(name, dtype, tmp_path):
    folder = tmp_path / "first"
    build(name).to(dtype).save_pretrained(folder)
    model = type(build(name)).from_pretrained(folder, dtype=dtype)
    model.model.layers[0].input_layernorm.float()
    polyad.save(model, tmp_path / "out")
    again = polyad.load(tmp_path / "out")
    assert {n: t.dtype for n, t in tensors(again).items()} == {n: t.dtype for n, t in tensors(model).items()}
    assert all(torch.equal(t, tensors(again)[n]) for n, t in tensors(model).items())


@pytest.mark.parametrize("compressed", [False, True])
def test_rotary_frequencies_stay_in_float32_in_another_dtype(compressed, tmp_path):
    model = tiny.model()
    if compressed:
        up = model.model.layers[0].mlp.up_proj.weight.detach()
        replace(model, {"model.layers.0.mlp.up_proj": Linear(round_to_nearest(up, 8))})
    polyad.save(model, tmp_path / "out")
    again = polyad.load(tmp_path / "out", dtype=torch.bfloat16)
    assert again.lm_head.weight.dtype == torch.bfloat16
    assert torch.equal(again.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


def twice_the_module(model):
    model.model.layers[2].mlp = model.model.layers[0].mlp


def twice_the_weight(model):
    model.model.layers[2].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight


def twice_the_memory(model):
    model.model.layers[2].mlp.up_proj.weight = nn.Parameter(model.model.layers[0].mlp.up_proj.weight.data)


@pytest.mark.parametrize("tie", [twice_the_module, twice_the_weight, twice_the_memory], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", ["llama", "tied"])
def test_what_is_shared_is_saved_once_and_shared_again(tie, kind, tmp_path):
    whole, model = tiny.model(kind), tiny.model(kind)
    tie(model)
    said = tiny.logits(model)
    polyad.save(whole, tmp_path / "whole")
    polyad.save(model, tmp_path / "out")
    saved = 48 * 32 * 4 * (3 if tie is twice_the_module else 1)
    sizes = [polyad.models.shards.nbytes(tmp_path / name) for name in ("whole", "out")]
    assert sizes[0] - sizes[1] == saved - 2 * 4 * 4  # less the rotary frequencies that go along
    again = polyad.load(tmp_path / "out")
    assert torch.equal(tiny.logits(again), said)
    assert again.model.layers[2].mlp.up_proj.weight is again.model.layers[0].mlp.up_proj.weight
    with pytest.raises(ValueError, match="polyad"):  # it would draw the shared ones at random
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_parts_of_one_memory_are_saved_apart(tmp_path):
    model = tiny.model()
    both = torch.randn(2, 48, 32)
    for layer, part in zip(model.model.layers, both, strict=False):
        layer.mlp.up_proj.weight = nn.Parameter(part)
    model.model.layers[2].mlp.up_proj.weight = nn.Parameter(both.flatten(0, 1)[:48].clone())
    said = tiny.logits(model)
    polyad.save(model, tmp_path / "out")
    assert torch.equal(tiny.logits(polyad.load(tmp_path / "out")), said)


def test_an_instance_given_beside_a_plain_folder_lends_its_buffers(tmp_path):
    model = tiny.model()
    polyad.save(model, tmp_path / "out")
    again = polyad.load(tmp_path / "out", like=tiny.model(seed=3))
    assert torch.equal(tiny.logits(again), tiny.logits(model))


@pytest.mark.parametrize("recipe", ["svd:rank=4", "rtn:bits=8"])
@pytest.mark.parametrize("tie", [twice_the_module, twice_the_weight], ids=lambda f: f.__name__)
def test_what_is_shared_is_compressed_once_and_stays_shared(tie, recipe, tmp_path):
    model = tiny.model()
    tie(model)
    plan = polyad.plan(model, recipe, select="*.up_proj")
    assert list(plan.selected) == ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]
    polyad.apply(model, plan)
    polyad.save(model, tmp_path / "out")
    for each in (model, polyad.load(tmp_path / "out")):
        assert each.model.layers[2].mlp.up_proj.weight is each.model.layers[0].mlp.up_proj.weight
        assert torch.equal(tiny.logits(each), tiny.logits(model))
