"""Experts in one tensor are layers like any."""

import functools

import pytest
import torch
import transformers

import polyad
import tiny
from polyad.compress.apply import apply_with_undo
from polyad.data import Calibration
from polyad.decompose import svd
from polyad.layers import Linear
from polyad.models import decoder_layers, load, save
from polyad.models.experts import SplitExperts, layer_at, split_experts
from polyad.quantize import round_to_nearest
from polyad.testing.decoders import random_tokens

IDS = random_tokens(2, 24, 50, seed=1)
TEXT = Calibration(random_tokens(6, 24, 50, seed=2), random_tokens(2, 24, 50, seed=3), {"ids": "0"})
KINDS = {
    "MixtralForCausalLM": tiny.EXPERTS,
    "Qwen3MoeForCausalLM": tiny.EXPERTS,
    "PhimoeForCausalLM": tiny.EXPERTS,
    "OlmoeForCausalLM": tiny.EXPERTS,
    "GptOssForCausalLM": tiny.EXPERTS,
    "Llama4ForCausalLM": tiny.EXPERTS | {"interleave_moe_layer_step": 1},
}


def mixture(name):
    if name != "Llama4ForCausalLM":
        return tiny.small_model(name, **KINDS[name])
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "intermediate_size_mlp": 24, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 50, "head_dim": 8,
             "num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1}  # fmt: skip
    model = transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**shape, pad_token_id=0)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2)
    return model


def logits(model):
    with torch.no_grad():
        return model(IDS, use_cache=False).logits


@pytest.mark.parametrize("name", KINDS)
def test_rounding_reaches_the_experts_and_the_folder_gives_the_same(name, tmp_path):
    model = mixture(name)
    whole = logits(model)
    plan = polyad.plan(model, "rtn:bits=8")
    assert not any(isinstance(m, SplitExperts) for m in model.modules())
    assert len(plan.split) == 2
    assert sum("experts" in path and "shared" not in path for path in plan.selected) == 16
    assert not any("experts" in path for path in plan.left)
    polyad.apply(model, plan)
    cut = logits(model)
    assert 0 < (cut - whole).norm() < 0.2 * whole.norm()
    assert len(decoder_layers(model)) == 2
    save(model, tmp_path / "cut")
    again = load(tmp_path / "cut", kernels="plain")
    assert torch.equal(logits(again), cut)
    experts = again.get_submodule(plan.split[0])
    assert all(isinstance(layer, Linear) for layer in experts.get_submodule("down_proj"))


@pytest.mark.parametrize("name", KINDS)
def test_factors_of_full_rank_are_the_experts(name):
    model = mixture(name)
    whole = logits(model)
    plan = polyad.plan(model, functools.partial(svd, rank=16), select="*experts*down_proj*")
    undo = apply_with_undo(model, plan)
    torch.testing.assert_close(logits(model), whole, rtol=1e-3, atol=1e-3)
    undo()
    assert torch.equal(logits(model), whole)
    assert not any(isinstance(m, SplitExperts) for m in model.modules())


def test_an_expert_that_is_not_split_is_known_by_its_path():
    model = mixture("GptOssForCausalLM")
    fused = model.model.layers[0].mlp.experts
    layer = layer_at(model, "model.layers.0.mlp.experts.gate_up_proj.3")
    assert torch.equal(layer.weight, fused.gate_up_proj[3].mT)
    assert torch.equal(layer.bias, fused.gate_up_proj_bias[3])


def test_experts_that_compute_otherwise_are_left_in_one_tensor():
    model = mixture("MixtralForCausalLM")
    kind = type(model.model.layers[0].mlp.experts)
    other = type("Other", (kind,), {"forward": lambda self, *a: kind.forward(self, *a).tanh()})
    model.model.layers[0].mlp.experts.__class__ = other
    assert list(split_experts(model)) == ["model.layers.1.mlp.experts"]
    plan = polyad.plan(model, "rtn:bits=8")
    assert "model.layers.0.mlp.experts.down_proj" in plan.left


def test_experts_are_measured_where_they_are_named():
    model = mixture("MixtralForCausalLM")
    assert not polyad.plan(model, "lord:rank=3", calibrate=TEXT).split
    plan = polyad.plan(model, "lord:rank=3", calibrate=TEXT, select="*experts.down_proj*")
    assert len(plan.selected) == 8
    assert torch.isfinite(logits(polyad.apply(model, plan))).all()


@pytest.mark.parametrize(
    "recipe", [functools.partial(svd, rank=4), functools.partial(round_to_nearest, bits=8, group=8)]
)
@pytest.mark.parametrize("name", KINDS)
def test_transformers_own_folders_hold_split_experts(name, recipe, tmp_path):
    model = mixture(name)
    polyad.apply(model, polyad.plan(model, recipe, select="*experts*0"))  # the others stay slices of one tensor
    expected = tiny.logits(model, IDS)
    model.save_pretrained(tmp_path)
    assert torch.equal(tiny.logits(type(model).from_pretrained(tmp_path).eval(), IDS), expected)
    loaded = load(tmp_path)
    assert torch.equal(tiny.logits(loaded, IDS), expected)
    save(loaded, tmp_path / "again")
    assert torch.equal(tiny.logits(load(tmp_path / "again"), IDS), expected)
