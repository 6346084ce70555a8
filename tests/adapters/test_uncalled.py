"""Adapters on layers whose weight a model reads without calling them."""

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from polyad.adapters import Adapted, Adapters, LoRA
from polyad.adapters.host.size import trained_count
from polyad.testing.adapters import move


def mamba():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 2, "vocab_size": 50, "pad_token_id": 0}
    return transformers.MambaForCausalLM(transformers.MambaConfig(**shape)).eval()


def test_a_layer_that_mamba_reads_is_refused_by_name_and_left_out_by_pattern():
    model = mamba()
    adapters, path = Adapters(model), "backbone.layers.1.mixer.dt_proj"
    with pytest.raises(ValueError, match=rf"on {path}, a Linear: its owner, a MambaMixer, reads its weight .*leave"):
        adapters.attach("a", path, LoRA, rank=2)
    with pytest.raises(ValueError, match=r"on backbone.layers.0.mixer.conv1d, a Conv1d: its owner"):
        adapters.attach("a", "*conv1d", LoRA, rank=1, of=("conv",))
    assert adapters.names == []
    names = adapters.attach("a", "*mixer*", LoRA, rank=2, of=("linear", "conv"))
    parts = ("x_proj", "in_proj", "out_proj")
    assert set(names) == {f"backbone.layers.{i}.mixer.{part}" for i in (0, 1) for part in parts}
    assert trained_count(model, "*mixer*", LoRA, rank=2) == sum(p.numel() for p in adapters.parameters("a"))
    move(adapters, "a")
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        before = model(ids).logits
        adapters.merge()
        assert torch.allclose(model(ids).logits, before, atol=1e-4)


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.called, self.read = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return F.linear(self.called(x), self.read.weight)


@pytest.mark.parametrize("grad", [False, True])
def test_without_inputs_the_first_forward_pass_tells(grad):
    torch.manual_seed(0)
    model, x = Reader(), torch.ones(2, 3)
    plain = model(x)
    adapters = Adapters(model)
    adapters.attach("a", "*", LoRA, rank=1)
    with torch.set_grad_enabled(grad):
        for _ in range(2):
            with pytest.raises(ValueError, match="cannot act on read, a Linear: its owner, a Reader, reads"):
                model(x)
    adapters.detach("a")
    assert torch.equal(model(x), plain)
    adapters.attach("a", "called", LoRA, rank=1)
    move(adapters, "a")
    with pytest.raises(RuntimeError):
        model(torch.ones(2, 5))
    assert not torch.allclose(model(x), plain)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert isinstance(model.called, Adapted)
    assert not model.called._forward_hooks


def test_a_model_that_is_compiled_before_its_first_pass_stays_in_one_graph():
    torch.manual_seed(0)
    model, x = Reader(), torch.ones(2, 3)
    adapters = Adapters(model)
    adapters.attach("a", "called", LoRA, rank=1)
    move(adapters, "a")
    compiled = torch.compile(model, backend="eager", fullgraph=True)(x)
    assert torch.allclose(compiled, model(x))
