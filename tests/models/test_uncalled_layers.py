"""Layers whose weight is read without calling them, in models of transformers and of torch."""

import copy
import random

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

import tiny
from polyad.models import collect
from polyad.models.uncalled_layers import uncalled_layers

SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MODELS = {
    "Mamba": ("ForCausalLM", {"state_size": 4}, {"mixer.conv1d", "mixer.dt_proj"}),
    "Mamba2": ("ForCausalLM", {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1}, {"mixer.conv1d"}),
    "Llama": ("ForCausalLM", {}, set()),
    "Gemma2": ("ForCausalLM", {"head_dim": 8, "num_key_value_heads": 2}, set()),
    "Mixtral": ("ForCausalLM", {"num_local_experts": 4, "num_key_value_heads": 2}, set()),
    "OPT": ("ForCausalLM", {"word_embed_proj_dim": 32, "ffn_dim": 48}, set()),
    "T5": ("ForConditionalGeneration", {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2}, set()),
    "Bert": ("ForMaskedLM", {}, set()),
    "ViT": ("Model", {"image_size": 32, "patch_size": 8}, set()),
    "CLIP": ("Model", {"vision_config": {"image_size": 32, "patch_size": 8}}, set()),
    "WavLM": (
        "Model",
        {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_conv_pos_embeddings": 4,
         "num_conv_pos_embedding_groups": 2},
        {f"attention.{name}_proj" for name in ("q", "k", "v", "out")},
    ),
}  # fmt: skip


def network(family, head="ForCausalLM", **more):
    torch.manual_seed(0)
    return getattr(transformers, family + head)(getattr(transformers, f"{family}Config")(**{**SHAPE, **more}))


@pytest.mark.parametrize("family", MODELS)
def test_layers_that_are_read_and_not_called_are_named_and_no_others(family):
    head, more, expected = MODELS[family]
    reasons, complete = uncalled_layers(network(family, head, **more))
    assert complete
    assert {".".join(path.split(".")[-2:]) for path in reasons} == expected
    assert len(reasons) == 2 * len(expected)
    assert all(said.endswith("reads its weight without calling it") for said in reasons.values())


class Noise(nn.Module):
    """Draws numbers and counts its calls."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x + torch.rand(()) + random.random()


def test_a_forward_pass_that_somebody_wrote_over_modules_does_not_run_them():
    model, layers = nn.Sequential(nn.BatchNorm1d(4)).train(), []
    layers.append(model[0])
    model.forward = lambda x: layers[0](x)
    assert uncalled_layers(model, torch.ones(3, 4)) == ({}, False)
    assert model[0].num_batches_tracked == 0


def test_nothing_of_the_model_nor_of_the_random_numbers_changes():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), Noise(), nn.Linear(4, 2)).train()
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    before, state = copy.deepcopy(model.state_dict()), (torch.get_rng_state(), random.getstate())
    grad = [p.requires_grad for p in model.parameters()]
    assert uncalled_layers(model, torch.ones(3, 4)) == ({}, True)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert grad == [p.requires_grad for p in model.parameters()]
    assert not calls
    assert [len(m._forward_hooks) for m in model.modules()] == [0, 1, 0, 0, 0]


class Reader(nn.Module):
    """Asks for a layer's dtype and shape, and calls another layer in one case and reads its weight in the other."""

    def __init__(self, read):
        super().__init__()
        self.asked, self.other, self.idle, self.read = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), read

    def forward(self, x):
        x = x.to(self.asked.weight.dtype).type_as(self.asked.weight.data).to(self.asked.weight)
        x = x + self.asked.weight.new_zeros(3) + torch.zeros_like(self.asked.weight)[0]
        x = self.asked(x)
        return F.linear(x, weight=self.other.weight.data) if self.read else self.other(x)


def test_asking_for_a_dtype_reads_nothing_and_reading_data_does():
    x = torch.ones(2, 3)
    assert uncalled_layers(Reader(False), x) == ({}, True)
    named = uncalled_layers(Reader(True), {"x": x})
    assert named == ({"other": "its owner, a Reader, reads its weight without calling it"}, True)
    assert uncalled_layers(Reader(True), [x, x]) == ({}, False)
    assert uncalled_layers(Reader(True)) == ({}, False)


def test_tied_weights_are_read_by_the_call_of_either():
    reasons, complete = uncalled_layers(tiny.model("tied"))
    assert complete
    assert not reasons


def test_statistics_say_why_a_layer_was_never_called():
    model, x = network("Mamba", state_size=4), torch.arange(8)[None]
    path = "backbone.layers.0.mixer.dt_proj"
    with pytest.raises(ValueError, match=rf"{path} is never called .*\(its owner, a MambaMixer, reads its weight"):
        collect(model, {path: ["second"]}, [x])
