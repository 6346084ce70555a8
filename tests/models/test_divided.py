"""RWKV divides weights in place when it first runs for inference: nothing that reads or saves it may show that."""

from functools import partial

import pytest
import torch
import transformers

import polyad
from polyad.adapters import Adapters, LoRA
from polyad.models.uncalled_layers import uncalled_layers
from polyad.quantize import round_to_nearest

X = torch.arange(8)[None]
RTN = partial(round_to_nearest, bits=8, group=8)


def rwkv():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "attention_hidden_size": 16, "num_hidden_layers": 4, "vocab_size": 50}
    model = transformers.RwkvForCausalLM(transformers.RwkvConfig(**shape, rescale_every=2, context_length=16)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
    return model


def logits(model):
    with torch.no_grad():
        return model(X).logits


@pytest.mark.parametrize(
    "read",
    [
        uncalled_layers,
        lambda model: polyad.plan(model, RTN),
        lambda model: Adapters(model).attach("a", "*.attention.key", LoRA, rank=2),
    ],
)
def test_reading_changes_no_weight(read):
    model = rwkv()
    before = {name: (p, p.clone()) for name, p in model.named_parameters()}
    read(model)
    now = {name.replace(".layer.", "."): p for name, p in model.named_parameters()}
    for name, (parameter, values) in before.items():
        assert now[name] is parameter
        assert torch.equal(parameter, values)
    assert not model.rwkv.layers_are_rescaled


@pytest.mark.parametrize("ran", [False, True])
def test_layers_whose_weight_is_divided_are_named(ran):
    model = rwkv()
    if ran:
        logits(model)
    with pytest.raises(ValueError, match=r"rwkv\.blocks\.0\.attention\.output, a Linear: its owner"):
        Adapters(model).attach("a", "*.attention.output", LoRA, rank=2)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_model_that_ran_is_saved_as_it_was(tmp_path, compressed):
    model = rwkv()
    if compressed:
        polyad.apply(model, polyad.plan(model, RTN))
    expected = logits(model)
    assert model.rwkv.layers_are_rescaled
    polyad.save(model, tmp_path / "saved")
    loaded = polyad.load(tmp_path / "saved")
    assert torch.equal(loaded.rwkv.blocks[3].attention.output.weight, rwkv().rwkv.blocks[3].attention.output.weight)
    assert torch.equal(logits(loaded), expected)
    assert torch.equal(logits(model), expected)  # saving changed nothing
    if compressed:
        model.save_pretrained(tmp_path / "pretrained")
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "pretrained").eval()
        assert torch.equal(logits(again), expected)
