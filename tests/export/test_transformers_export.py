"""Folders that transformers loads with compressed-tensors; without that package exports end in the sentence that
names it."""

import functools
import importlib.util
import json
import sys

import pytest
import torch
import transformers
from torch import nn

import export_of
import polyad
import tiny
from export_of import rounded
from polyad.decompose import svd
from polyad.export import export
from polyad.export.transformers import packed
from polyad.formats.stored.packing import pack
from polyad.quantize import round_to_nearest

READER = importlib.util.find_spec("compressed_tensors") is not None
SENTENCE = r"needs the package compressed-tensors; install it with pip install 'polyad\[transformers\]'"


written = functools.partial(export_of.written_or_refused, READER, SENTENCE, "transformers")


def mixed():
    """Layers of three formats, two of them side by side."""
    model = rounded(tiny.model(), "*q_proj", bits=3, group=8, symmetric=True)
    rounded(model, ["*k_proj", "*v_proj"], bits=4, group=16, symmetric=True)
    return rounded(model, "*up_proj", bits=8, symmetric=True)


def bert():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 72, "vocab_size": 100}
    model = transformers.BertModel(transformers.BertConfig(**shape, num_hidden_layers=2)).eval()
    return rounded(model, bits=4, group=24)


MODELS = {
    "zero points": lambda: rounded(tiny.model(), bits=4, group=16),
    "symmetric": lambda: rounded(tiny.model("qwen2"), bits=4, group=16, symmetric=True),
    "whole rows": lambda: rounded(tiny.model(), bits=8),
    "bfloat16": lambda: rounded(tiny.model().bfloat16(), bits=4, group=16, symmetric=True),
    "head and embedding": lambda: rounded(tiny.model(), "*", bits=4, group=16),
    "tied floats": lambda: rounded(tiny.model("tied"), bits=4, group=32),
    "mixed": mixed,
    "widths that differ": bert,
}


@pytest.mark.parametrize("kind", MODELS)
def test_plain_transformers_reads_the_same_numbers(kind, tmp_path):
    model = MODELS[kind]()
    result = written(model, tmp_path / "out")
    if result is None:
        return
    close = {torch.float32: 1e-5, torch.bfloat16: 3e-2}[model.dtype]
    assert result.checked["largest_relative_difference"] < close
    loaded = type(model).from_pretrained(tmp_path / "out")
    assert loaded.dtype == model.dtype
    ids = tiny.ids(2, 9) % model.config.vocab_size
    with torch.no_grad():
        ours, theirs = model(ids)[0], loaded(ids)[0]
    assert float((ours - theirs).norm() / ours.norm()) < close
    assert result.nbytes < sum(p.numel() * p.element_size() for p in loaded.parameters())


def test_siblings_share_a_scheme(tmp_path):
    result = written(mixed(), tmp_path / "out")
    if result is None:
        return
    groups = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["config_groups"]
    schemes = {path: g["weights"]["group_size"] for g in groups.values() for path in g["targets"]}
    layer = "model.layers.0"
    assert [schemes[f"{layer}.self_attn.{name}_proj"] for name in "qkv"] == [8, 8, 8]
    assert schemes[f"{layer}.mlp.up_proj"] is None
    assert f"{layer}.mlp.down_proj" not in schemes
    assert "3 of them have fewer bits in the model, and are held exactly" in result.notes


def test_scales_finer_than_the_model_make_its_floats_float32(tmp_path):
    model = rounded(tiny.model().bfloat16(), bits=4, group=16, scale_dtype=torch.float32, symmetric=True)
    result = written(model, tmp_path / "out")
    if result is None:
        return
    assert "floats are torch.float32, since scales are finer than the model's own dtype" in result.notes
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


def test_words_hold_codes_from_the_lowest_bits():
    codes = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 15]], dtype=torch.uint8)
    assert packed.words(codes, 4).tolist() == [[0x87654321 - 2**32, 15]]
    assert packed.words(codes[:, :5], 8).tolist() == [[0x04030201, 5]]


def test_packed_tensors_give_the_matrix_back():
    weight = round_to_nearest(torch.randn(7, 24, generator=torch.Generator().manual_seed(0)), 3, group=12)
    tensors = packed.packed_tensors(weight, packed.Scheme(4, 4, False), torch.float32)
    codes = _unpacked(tensors["weight_packed"], 24)
    zeros = _unpacked(tensors["weight_zero_point"].mT, 7).mT
    scale = tensors["weight_scale"]
    again = (codes - zeros.repeat_interleave(4, 1)) * scale.repeat_interleave(4, 1)
    assert torch.equal(again, weight.to_dense())


def _unpacked(words, count):
    return torch.stack([(words.long() >> shift) & 15 for shift in range(0, 32, 4)], -1).flatten(1)[:, :count]


def float_zeros():
    return rounded(tiny.model(), bits=4, group=16, zero_dtype=torch.float32)


def pruned():
    model = tiny.model()
    model.model.layers[0].mlp.up_proj = nn.Linear(32, 24, bias=False)
    return model


def low_rank():
    model = tiny.model()
    polyad.apply(model, polyad.plan(model, functools.partial(svd, rank=4), select="*down_proj"))
    return model


REFUSED = {
    "layers.0.mlp.down_proj, .* it is a LowRank": low_rank,
    "its zero points are no codes": float_zeros,
    "transformers has a Conv1D there": lambda: rounded(tiny.model("gpt2"), bits=4, group=16),
    "groups of 12 in rows of 32 leave groups of 4": lambda: rounded(tiny.model(), bits=4, group=12),
    "tied in another way than its configuration says": lambda: rounded(tiny.model("tied"), "*", bits=4, group=16),
    "up_proj: it is a Linear that its configuration does not describe": pruned,
    "Sequential is no model of transformers": lambda: nn.Sequential(nn.Linear(2, 2)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_no_quantiser_holds_is_named(words, tmp_path):
    with pytest.raises(ValueError, match=words):
        export(REFUSED[words](), tmp_path / "out", "transformers")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_reader_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=SENTENCE):
        export(rounded(tiny.model(), bits=4, group=16), tmp_path / "out", "transformers")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_says_something_else_is_refused_and_removed(tmp_path, monkeypatch):
    model = rounded(tiny.model(), bits=4, group=16)
    if not READER:
        assert written(model, tmp_path / "out") is None
        return
    right = packed.words
    monkeypatch.setattr(packed, "words", lambda codes, bits: right(codes ^ 1, bits))
    with pytest.raises(ValueError, match=r"the folder was loaded with transformers, and logits differs by"):
        export(model, tmp_path / "out", "transformers")
    assert list(tmp_path.iterdir()) == []


def test_names_that_the_reader_misses_or_leaves_are_refused(tmp_path, monkeypatch):
    module = sys.modules["polyad.export.transformers.write"]
    model = rounded(tiny.model(), bits=4, group=16)
    if not READER:
        assert written(model, tmp_path / "out") is None
        return
    right = module._tensors

    def renamed(*arguments):
        tensors = right(*arguments)
        return {name.replace("norm.weight", "norms.weight"): t for name, t in tensors.items()}

    monkeypatch.setattr(module, "_tensors", renamed)
    with pytest.raises(ValueError, match=r"norm.weight is missing; .*|norms.weight is not expected"):
        export(model, tmp_path / "out", "transformers")
    assert list(tmp_path.iterdir()) == []


def test_a_plain_model_is_a_plain_folder(tmp_path):
    result = written(tiny.model(), tmp_path / "out")
    if result is None:
        return
    assert result.notes == ()
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_packing_agrees_with_polyads_own_bytes():
    codes = torch.randint(0, 16, (3, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(packed.words(codes, 4).view(torch.uint8), pack(codes, 4))


def test_a_saved_folder_is_exported_by_the_command(tmp_path, polyad_command):
    folder = polyad.save(rounded(tiny.model(), bits=4, group=32, symmetric=True), tmp_path / "small")
    code, said, complained = polyad_command("export", folder, tmp_path / "out", "--format", "transformers")
    if not READER:
        assert code != 0
        assert "pip install 'polyad[transformers]'" in complained.replace("\n", " ")
        return
    assert code == 0, complained
    assert "18 layers of 4 bits, a scale a row" in said
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out")
    ids = tiny.ids(1, 9)
    with torch.no_grad():
        ours, theirs = polyad.load(folder)(ids).logits, loaded(ids).logits
    assert float((ours - theirs).norm() / ours.norm()) < 3e-2  # kernels round rows to bfloat16
