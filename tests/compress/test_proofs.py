"""Blocks are rewritten where one forward pass shows that their function stays, and left or refused elsewhere."""

import functools
import threading

import pytest
import torch
import transformers.models.llama.modeling_llama
from torch import nn

import polyad
import tiny
from polyad.compress import equivalent_rescaling, lord, modegpt
from polyad.compress.cut_proof import cut_refusals
from polyad.data import Calibration
from polyad.models import blocks
from polyad.models import twin as twins
from polyad.models.replacement import put_in_place
from polyad.models.twin import Twin
from polyad.testing.decoders import random_decoder

TEXT = Calibration(tiny.ids(6, 48, seed=2), tiny.ids(2, 32, seed=3), {"ids": "0"})


class NormedMlp(nn.Module):
    """A gated MLP with a norm over its neurons."""

    def __init__(self, before):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = before.gate_proj, before.up_proj, before.down_proj

    def forward(self, x):
        return self.down_proj(nn.functional.layer_norm(self.gate_proj(x).relu() * self.up_proj(x), (48,)))


class LlamaAttention(transformers.models.llama.modeling_llama.LlamaAttention):
    """Llama's, but that values go through a function before they are read."""

    def forward(self, *args, **kwargs):
        handle = self.v_proj.register_forward_hook(lambda _m, _x, y: y.tanh())
        try:
            return super().forward(*args, **kwargs)
        finally:
            handle.remove()


def spoilt(part):
    model = tiny.model()
    for layer in model.model.layers:
        if part == "mlp":
            layer.mlp = NormedMlp(layer.mlp)
        else:
            layer.self_attn.__class__ = LlamaAttention
    return model


def bitnet():
    return random_decoder("BitNet", seed=0, **tiny.SHAPE)


SPOILT = {
    "mlp": (functools.partial(spoilt, "mlp"), "down_proj"),
    "attention": (functools.partial(spoilt, "attn"), "o_proj"),
    "bitnet": (bitnet, "down_proj"),
}
"""How a model is made, and the layer that only the rescaling of the spoilt block would change."""


@pytest.mark.parametrize("name", SPOILT)
@torch.no_grad()
def test_rescaling_leaves_what_it_would_change(name):
    make, last = SPOILT[name]
    model = make()
    whole = tiny.logits(model)
    made = equivalent_rescaling(model, generator=torch.Generator().manual_seed(0))
    assert made.weights
    assert not any(last in path for path in made.weights)
    put_in_place(model, made)
    torch.testing.assert_close(tiny.logits(model), whole, rtol=1e-4, atol=1e-4)


def test_rescaling_is_refused_where_nothing_can_be_rescaled():
    model = spoilt("mlp")
    for layer in model.model.layers:
        layer.self_attn = layer.input_layernorm = nn.Identity()
        layer.post_attention_layernorm = nn.Identity()
        layer.forward = None
    with pytest.raises(
        ValueError, match=r"equivalent_rescaling would change what LlamaForCausalLM computes: of model"
    ):
        equivalent_rescaling(model, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SPOILT)
def test_blocks_that_cannot_be_cut_are_left_and_others_are_cut(name):
    make, last = SPOILT[name]
    model = make()
    refused = cut_refusals(Twin(model), blocks(model))
    kinds = {"down_proj": {"mlp"}, "o_proj": {"qk", "vo"}}[last]
    assert {block.rpartition(":")[2] for block in refused} == kinds
    if name == "mlp":
        with pytest.raises(ValueError, match="modegpt cannot cut the blocks of LlamaForCausalLM"):
            polyad.plan(model, functools.partial(modegpt, keep=24), select="*mlp*")
    if name == "attention":
        plan = polyad.plan(model, modegpt, keep=0.8, calibrate=TEXT)
        assert {item.rpartition(":")[2] for item in plan.sizes[0]} == {"mlp"}
        assert torch.isfinite(tiny.logits(polyad.apply(model, plan))).all()


@pytest.mark.parametrize("kind", ["llama", "mqa", "mistral", "qwen2", "granite", "qwen3"])
def test_blocks_that_are_understood_are_proved(kind):
    model = tiny.model(kind)
    assert cut_refusals(Twin(model), blocks(model)) == {}
    assert len(equivalent_rescaling(model, generator=torch.Generator().manual_seed(0)).weights) > 12


def test_a_plan_copies_its_model_once(monkeypatch):
    copied, real = [], twins.shared_twin
    monkeypatch.setattr(twins, "shared_twin", lambda model: copied.append(model) or real(model))
    model = tiny.model()
    polyad.plan(model, modegpt, keep=0.7, calibrate=TEXT)
    assert copied == [model]


def test_a_model_that_cannot_be_copied_is_refused_in_a_sentence():
    model = tiny.model()
    model.model.layers[0].mlp.lock = threading.Lock()
    assert Twin(model).module is None
    with pytest.raises(ValueError, match=r"cannot cut the blocks of LlamaForCausalLM .*the model cannot be copied"):
        polyad.plan(model, modegpt, keep=0.7, calibrate=TEXT)
    assert polyad.plan(model, lord, keep=0.7, calibrate=TEXT).selected
