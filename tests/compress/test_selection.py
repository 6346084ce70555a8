"""Which layers of a model are compressed, which are left whole, and the line that says so."""

import functools

import pytest
import torch
import transformers
from torch import nn

import polyad
import tiny
from polyad.compress import lord
from polyad.data import Calibration
from polyad.decompose import svd
from polyad.layers import Embedding, Linear
from polyad.models import load, save
from polyad.models.compressible import FUSED, select_layers
from polyad.models.twin import Twin
from polyad.quantize import round_to_nearest
from polyad.testing.decoders import random_tokens

rtn = functools.partial(round_to_nearest, bits=8)
FEW = Calibration(random_tokens(4, 24, 50, seed=2), random_tokens(2, 24, 50, seed=3), {"ids": "0"})
"""Of the small vocabulary."""
TEXT = Calibration(tiny.ids(6, 48, seed=2), tiny.ids(2, 32, seed=3), {"ids": "0"})
LEFT = {
    "MixtralForCausalLM": (tiny.EXPERTS, {FUSED: 4, "the output head": 1}),
    "Qwen2MoeForCausalLM": (
        tiny.EXPERTS | {"shared_expert_intermediate_size": 16},
        {FUSED: 4, "the output head": 1, "a router": 2},
    ),
    "PhimoeForCausalLM": (tiny.EXPERTS, {FUSED: 4, "the output head": 1, "a router": 2}),
    "LlamaForSequenceClassification": ({}, {"a head of the model": 1}),
    "BertModel": ({}, {"a pooler": 1}),
    "BertForSequenceClassification": ({}, {"a pooler": 1, "a head of the model": 1}),
    "LlamaForCausalLM": ({}, {"the output head": 1}),
}


@pytest.mark.parametrize("name", LEFT)
def test_heads_routers_and_fused_experts_are_left_and_named_in_one_line(name):
    changed, expected = LEFT[name]
    model = tiny.small_model(name, **changed)
    plan = polyad.plan(model, functools.partial(lord, rank=3), calibrate=FEW)
    reasons = list(plan.left.values())
    assert {reason: reasons.count(reason) for reason in reasons} == expected
    assert plan.coverage.startswith(
        f"{len(plan.selected)} of {len(plan.selected) + len(plan.left)} layers were chosen"
    )
    for reason in expected:
        assert f": {reason}" in plan.coverage
    assert plan.to_json()["coverage"] == plan.coverage


def test_shares_of_the_line_are_those_of_the_bytes():
    model = tiny.small_model("MixtralForCausalLM", **tiny.EXPERTS)
    total = sum(p.numel() for p in model.parameters())
    experts = sum(p.numel() for n, p in model.named_parameters() if "experts." in n)
    plan = polyad.plan(model, functools.partial(lord, rank=3), calibrate=FEW)
    chosen = sum(model.get_submodule(path).weight.numel() for path in plan.selected)
    assert f"{100 * chosen / total:.1f} % of the model's bytes" in plan.coverage
    assert f"and 2 more ({100 * experts / total:.1f} %: experts in one tensor" in plan.coverage


def test_routers_are_taken_where_they_are_named():
    model = tiny.small_model("Qwen2MoeForCausalLM", shared_expert_intermediate_size=16, **tiny.EXPERTS)
    gates = [f"model.layers.{i}.mlp.shared_expert_gate" for i in range(2)]
    for which in ("*.shared_expert_gate", gates[0], lambda path, _module: path in gates):
        assert set(select_layers(model, which, Twin(model)).chosen) <= set(gates)
    for which in ("*", "*mlp*", None):
        assert not set(gates) & set(select_layers(model, which, Twin(model)).chosen)
    with pytest.raises(
        ValueError, match=r"mlp.router cannot be replaced: its class \w+ has a forward pass of its own"
    ):
        polyad.plan(tiny.small_model("PhimoeForCausalLM", **tiny.EXPERTS), rtn, select="*router*")


@torch.no_grad()
def test_everything_takes_an_untied_embedding_and_the_head(tmp_path):
    model = tiny.model()
    table = model.model.embed_tokens.weight.detach()
    plan = polyad.plan(model, functools.partial(svd, rank=16), select="*")
    assert {"model.embed_tokens", "lm_head"} <= set(plan.selected)
    polyad.apply(model, plan)
    assert isinstance(model.model.embed_tokens, Embedding)
    torch.testing.assert_close(model.model.embed_tokens(tiny.ids()), svd(table, 16).to_dense()[tiny.ids()])
    save(model, tmp_path / "all")
    assert torch.equal(tiny.logits(load(tmp_path / "all")), tiny.logits(model))
    by_budget = polyad.plan(tiny.model(), svd, keep=0.5, select="*", calibrate=TEXT)
    assert by_budget.importance["model.embed_tokens"] > by_budget.importance[by_budget.selected[1]] * 1e-3


def test_methods_that_read_inputs_leave_embeddings_or_refuse_them():
    plan = polyad.plan(tiny.model(), functools.partial(lord, rank=4), select="*", calibrate=TEXT)
    assert plan.left["model.embed_tokens"].startswith("an embedding is given indices")
    with pytest.raises(ValueError, match="embed_tokens cannot be replaced: an embedding is given indices"):
        polyad.plan(tiny.model(), functools.partial(lord, rank=4), select="model.embed_tokens", calibrate=TEXT)


@torch.no_grad()
def test_layers_with_one_weight_are_compressed_once_and_stay_tied(tmp_path):
    model = tiny.model("tied")
    plan = polyad.plan(model, rtn, select="*")
    assert plan.left["model.embed_tokens"] == "the weight of lm_head, with which it is compressed"
    polyad.apply(model, plan)
    assert model.model.embed_tokens.weight is model.lm_head.weight
    save(model, tmp_path / "tied")
    again = load(tmp_path / "tied")
    assert again.model.embed_tokens.weight is again.lm_head.weight
    assert torch.equal(tiny.logits(again), tiny.logits(model))


class Shared(nn.Module):
    """One layer at two places, and two layers with one weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = self.again = nn.Linear(8, 8)
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(self.again(self.first(x).tanh())).tanh())


@torch.no_grad()
def test_one_layer_at_two_places_stays_one(tmp_path):
    model, x = Shared(), torch.randn(5, 8)
    plan = polyad.plan(model, functools.partial(svd, rank=3), select=None)
    assert plan.selected == ("first", "one")
    polyad.apply(model, plan)
    assert model.first is model.again
    assert model.one.weight is model.two.weight
    assert isinstance(model.again, Linear)
    save(model, tmp_path / "shared")
    again = load(tmp_path / "shared", like=Shared())
    assert torch.equal(again(x), model(x))
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in model.parameters())


def test_an_embedding_with_a_forward_pass_of_its_own_is_not_replaced_with_the_head():
    model = tiny.model("tied")

    class Scaled(nn.Embedding):
        def forward(self, x):
            return 3 * super().forward(x)

    model.model.embed_tokens.__class__ = Scaled
    with pytest.raises(
        ValueError, match=r"model.embed_tokens shares its weight and cannot be replaced: its class Scal"
    ):
        polyad.plan(model, rtn, select="lm_head")
    assert "lm_head" in polyad.plan(model, rtn, select="*").left


@torch.no_grad()
def test_layers_that_are_read_without_being_called_are_left_or_refused(tmp_path):
    config = transformers.MambaConfig(
        hidden_size=32, num_hidden_layers=2, vocab_size=500, state_size=8, time_step_rank=4, pad_token_id=0
    )
    torch.manual_seed(0)
    model = transformers.MambaForCausalLM(config).eval()
    plan = polyad.plan(model, rtn)
    reason = "its owner, a MambaMixer, reads its weight without calling it"
    assert [path for path, said in plan.left.items() if said == reason] == [
        f"backbone.layers.{i}.mixer.dt_proj" for i in range(2)
    ]
    for name in ("dt_proj", "conv1d"):
        with pytest.raises(ValueError, match=rf"mixer.{name} cannot be replaced: {reason}"):
            polyad.plan(model, rtn, select=f"*.{name}")
    polyad.apply(model, polyad.plan(model, rtn, select="*"))
    save(model, tmp_path / "mamba")
    assert torch.equal(tiny.logits(load(tmp_path / "mamba")), tiny.logits(model))


def test_planning_a_model_in_training_changes_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 8), nn.Linear(8, 2)
    ).train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    x = torch.randn(64, 8)
    state = torch.get_rng_state()
    plans = [polyad.plan(model, lord, keep=0.7, calibrate=x, importance=True) for _ in range(2)]
    assert plans[0].importance == plans[1].importance
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
