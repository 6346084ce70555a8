"""Heads that differ by layer: written for the architecture that has them so, or refused."""

import gguf
import pytest
import torch
from torch import nn

import tiny
from polyad.export import export
from polyad.interop import gguf_engine
from polyad.models.source import Origin
from polyad.testing.decoders import random_decoder


def pruned(family="Llama"):
    """A decoder of 4 query heads and 2 key heads of 16, of which one layer kept 2 and 1."""
    shape = {**tiny.SHAPE, "hidden_size": 64, "intermediate_size": 96}
    model = random_decoder(family, **shape)
    model.polyad_origin = Origin("tiny", None, tiny.tokenizer())
    attention = model.model.layers[1].self_attn
    torch.manual_seed(0)
    for name, rows in (("q_proj", 32), ("k_proj", 16), ("v_proj", 16)):
        setattr(attention, name, nn.Linear(64, rows, bias=family == "Qwen2"))
    attention.o_proj = nn.Linear(32, 64, bias=False)
    return model.requires_grad_(False)


@pytest.mark.parametrize("family", ["Llama", "Qwen2"])
def test_heads_by_layer(family, tmp_path):
    model = pruned(family)
    installed = gguf_engine.is_installed()
    result = export(model, tmp_path / "x.gguf", "gguf", unchecked=not installed)
    reader = gguf.GGUFReader(result.path)
    assert reader.fields["general.architecture"].contents() == "deci"
    assert reader.fields["deci.attention.head_count"].contents() == [4, 2, 4]
    assert reader.fields["deci.attention.head_count_kv"].contents() == [2, 1, 2]
    shapes = {t.name: tuple(t.shape) for t in reader.tensors}
    assert shapes["blk.1.attn_q.weight"] == (64, 32)
    assert shapes["blk.1.attn_output.weight"] == (32, 64)
    if installed:
        assert result.checked["rms_difference"] < 0.01


def test_heads_by_layer_have_no_place_in_other_architectures(tmp_path):
    model = pruned("Olmo2")
    attention = model.model.layers[1].self_attn
    attention.q_norm.weight = nn.Parameter(torch.ones(32), False)
    attention.k_norm.weight = nn.Parameter(torch.ones(16), False)
    with pytest.raises(ValueError, match="olmo2 with heads that differ by layer cannot be written as GGUF"):
        export(model, tmp_path / "x.gguf", "gguf", unchecked=True)
    assert list(tmp_path.iterdir()) == []
