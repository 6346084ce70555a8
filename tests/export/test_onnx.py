"""ONNX graphs of small models, run with onnxruntime; without it every export ends in the sentence that names it."""

import functools
import importlib.util
import json
import shutil
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
from polyad.export.onnx import encode
from polyad.formats import Quantized
from polyad.layers import Linear
from polyad.quantize import normal_float, round_to_nearest, vs_quant

ENGINE = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
SENTENCE = r"the format onnx needs the package onnx\w*; install it with pip install 'polyad\[onnx\]'"


written = functools.partial(export_of.written_or_refused, ENGINE, SENTENCE, "onnx")


def graph(out):
    import onnx

    return onnx.load(str(out / "model.onnx"), load_external_data=False).graph


def test_a_missing_engine_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=SENTENCE):
        export(nn.Linear(4, 4), tmp_path / "out", "onnx", inputs=torch.ones(1, 4))
    assert list(tmp_path.iterdir()) == []


def bert(**changed):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 72, "vocab_size": 500}
    return transformers.BertModel(transformers.BertConfig(**{**shape, "num_hidden_layers": 1, **changed})).eval()


def t5():
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**shape)).eval()


SLIDING = {"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]}
MODELS = {
    "gemma2": lambda: tiny.small_model("Gemma2ForCausalLM", **SLIDING),
    "gpt2": lambda: tiny.model("gpt2"),
    "bfloat16": lambda: tiny.small_model("LlamaForCausalLM", num_hidden_layers=1).bfloat16(),
    "mixture": tiny.mixture,
    "bert": bert,
    "t5": t5,
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_and_its_graph_agree(kind, tmp_path):
    result = written(MODELS[kind](), tmp_path / "out")
    if result is None:
        return
    assert result.checked["largest_relative_difference"] < 1e-5
    names = [value.name for value in graph(result.path).output]
    if kind == "bert":
        assert names[0] == "last_hidden_state"
        assert result.checked["cases"] == 3
    elif kind == "t5":
        assert "no cache" in result.notes[0]
    else:
        assert names[:3] == ["logits", "present.0.key", "present.0.value"]
        assert result.checked["cases"] == (5 if kind == "gemma2" else 4)  # one past the window
    inputs = {value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
              for value in graph(result.path).input}  # fmt: skip
    assert inputs["input_ids"][0] == "batch"
    assert json.loads((result.path / "config.json").read_text())["model_type"] == MODELS[kind]().config.model_type
    if names[0] == "logits" and kind != "t5":
        assert inputs["past_key_values.0.key"][2] == "past_sequence"
        assert inputs["attention_mask"] == ["batch", "past_and_sequence"]


def stored(out):
    return {value.name: tuple(value.dims) for value in graph(out).initializer}


def test_a_tied_table_of_codes_is_in_the_file_once(tmp_path):
    model = tiny.small_model("LlamaForCausalLM", num_hidden_layers=1, tie_word_embeddings=True)
    result = written(rounded(model, "*", bits=4, group=16), tmp_path / "out", accuracy_level=1)
    if result is None:
        return
    shapes = list(stored(result.path).values())
    assert shapes.count((50, 1, 8)) == 1  # 16 columns of 4 bits
    assert (50, 16) not in shapes
    assert (16, 50) not in shapes
    assert "8 matrices are in MatMulNBits of 4 bits" in result.notes


def test_a_tied_table_of_floats_is_in_the_file_once(tmp_path):
    model = tiny.small_model("LlamaForCausalLM", num_hidden_layers=1, tie_word_embeddings=True)
    result = written(model, tmp_path / "out")
    if result is None:
        return
    assert sorted(stored(result.path).values()).count((50, 16)) == 1
    assert (16, 50) not in stored(result.path).values()


def test_a_shared_layer_is_in_the_file_once(tmp_path):
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "embedding_size": 16, "hidden_size": 32, "num_hidden_layers": 2}
    config = transformers.AlbertConfig(**shape, num_attention_heads=4, intermediate_size=48)
    result = written(rounded(transformers.AlbertModel(config).eval(), bits=4, group=16), tmp_path / "out")
    if result is None:
        return
    nodes = [node for node in graph(result.path).node if node.op_type == "MatMulNBits"]
    assert len({node.input[1] for node in nodes}) == 7
    assert len(nodes) == 13


def test_low_rank_layers_are_two_products_and_sums_keep_their_terms(tmp_path):
    model = tiny.small_model("LlamaForCausalLM", num_hidden_layers=1, hidden_size=64, intermediate_size=96)
    polyad.apply(model, polyad.plan(model, functools.partial(svd, rank=5), select="*q_proj"))
    four = functools.partial(round_to_nearest, bits=4, group=16)
    polyad.apply(model, polyad.plan(model, [functools.partial(svd, rank=20), four], select="*up_proj"))
    polyad.apply(model, polyad.plan(model, [four, functools.partial(svd, rank=3)], select="*down_proj"))
    result = written(model, tmp_path / "out", accuracy_level=1)
    if result is None:
        return
    assert result.checked["largest_relative_difference"] < 1e-5
    assert "3 matrices are in MatMulNBits of 4 bits" in result.notes
    shapes = list(stored(result.path).values())
    assert {(64, 5), (5, 16)} <= set(shapes) or {(5, 64), (16, 5)} <= set(shapes) or (64, 5) in shapes


WEIGHTS = [
    (8, None, True), (8, 32, False), (4, 32, False), (4, 16, True), (4, 24, False), (3, 48, False), (2, 32, True),
    (1, 16, True), (5, 64, False), (4, (4, 32), False), (4, (4, 1), True), (4, 8, False),
]  # fmt: skip


def odd_weights(zero_dtype=torch.uint8):
    """Quantised matrices with odd numbers of blocks, short last blocks and blocks over several rows."""
    generator = torch.Generator().manual_seed(0)
    for place, (bits, group, symmetric) in enumerate(WEIGHTS):
        x = torch.randn(7 + place, 72 + 8 * (place % 4), generator=generator)
        yield round_to_nearest(x, bits, group=group, symmetric=symmetric, zero_dtype=zero_dtype)


@pytest.mark.parametrize("zero_dtype", [torch.uint8, torch.float32])
def test_codes_in_the_layout_of_the_file_are_the_same_numbers(zero_dtype):
    for weight in odd_weights(zero_dtype):
        coded = encode.encode_quantized(weight)
        assert torch.allclose(coded.to_dense(), weight.to_dense(), rtol=1e-5, atol=1e-6)
        index = torch.tensor([[3, 0], [6, 2]])
        assert torch.allclose(coded.rows(index), weight.rows(index), rtol=1e-5, atol=1e-6)


class Odd(nn.Module):
    """Products with every weight side by side."""

    def __init__(self, weights):
        super().__init__()
        self.layers = nn.ModuleList([Linear(weight) for weight in weights])

    def forward(self, x):
        return tuple(layer(x[..., : layer.in_features]) for layer in self.layers)


@pytest.mark.parametrize("zero_dtype", [torch.uint8, torch.float32])
def test_products_with_odd_shapes_are_exact(zero_dtype, tmp_path):
    x = torch.randn(2, 3, 96, generator=torch.Generator().manual_seed(1))
    result = written(Odd(odd_weights(zero_dtype)), tmp_path / "out", inputs=x, accuracy_level=1)
    if result is None:
        return
    assert result.checked["largest_relative_difference"] < 1e-5
    products = [node for node in graph(result.path).node if node.op_type == "MatMulNBits"]
    assert len(products) == len(WEIGHTS) - 3  # groups of 24, 8 and of columns are restored on loading


def test_scales_of_few_bits_and_tables_are_the_same_numbers(tmp_path):
    x = torch.randn(2, 3, 96, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(40, 96, generator=torch.Generator().manual_seed(0))
    weights = [vs_quant(weight, 4, group=96, parts=3), vs_quant(weight, 3, group=64, symmetric=True),
               normal_float(weight, 4, group=32), normal_float(weight, 3, group=40)]  # fmt: skip
    for q in weights:
        coded = encode.encode_format(q)
        assert torch.allclose(coded.to_dense(), q.to_dense(), rtol=1e-5, atol=1e-6)
        assert torch.equal(coded.rows(torch.tensor([3, 0])), coded.to_dense()[[3, 0]])
    result = written(Odd(weights), tmp_path / "out", inputs=x, accuracy_level=1)
    if result is None:
        return
    assert result.checked["largest_relative_difference"] < 1e-5
    assert "1 matrices are in MatMulNBits of 4 bits" in result.notes
    assert (40, 96) not in stored(result.path).values()


def test_a_network_of_convolutions(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 1), nn.Flatten(2))
    net = rounded(net.eval(), bits=8, group=9)
    result = written(net, tmp_path / "out", inputs={"input": torch.randn(1, 3, 6, 5)})
    if result is None:
        return
    assert result.checked["largest_relative_difference"] < 1e-5
    assert "2 quantised tensors are held as codes" in result.notes[0]


def test_numbers_beside_the_graph_go_where_the_folder_goes(tmp_path, monkeypatch):
    folder = tmp_path / "models" / "out"
    result = written(bert(), folder, max_file_size=20_000)
    if result is None:
        return
    assert {p.name for p in folder.iterdir()} >= {"model.onnx", "model.onnx_data", "config.json"}
    assert result.nbytes == sum((folder / name).stat().st_size for name in ("model.onnx", "model.onnx_data"))
    where = {e.value for t in graph(folder).initializer for e in t.external_data if e.key == "location"}
    assert where == {"model.onnx_data"}
    shutil.move(folder, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "models")
    from polyad.interop.onnx import Session

    ids = tiny.ids(1, 5)
    feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    out = Session(tmp_path / "moved" / "model.onnx").run(feeds)["last_hidden_state"]
    assert torch.allclose(out, bert()(**feeds).last_hidden_state, atol=1e-5)


def huge_channel():
    """A layer that reads a channel a thousand times the others' size with weights of zero."""
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    weight[:, 5] = 0
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    x[:, 5] = 1000.0
    return nn.Sequential(Linear(round_to_nearest(weight, 4, group=64))), x


def test_rows_are_rounded_only_where_the_outputs_agree(tmp_path):
    layer, x = huge_channel()
    result = written(layer, tmp_path / "out", inputs=x)
    if result is None:
        return
    assert result.checked["accuracy_level"] == 1
    assert result.checked["difference_with_rounded_rows"] > 0.1
    x[:, 5] = 1.0
    result = written(layer, tmp_path / "other", inputs=x)
    assert result.checked["accuracy_level"] == 4
    assert [a.i for n in graph(result.path).node for a in n.attribute if a.name == "accuracy_level"] == [4]
    assert any("rounded to 8 bits" in note for note in result.notes)


def test_a_graph_that_says_something_else_is_refused_and_removed(tmp_path, monkeypatch):
    right = encode.pack_places
    monkeypatch.setattr(encode, "pack_places", lambda codes, bits: right(codes ^ 1, bits))
    layer = nn.Sequential(Linear(round_to_nearest(torch.randn(16, 64), 4, group=32)))
    if not ENGINE:
        assert written(layer, tmp_path / "out", inputs=torch.randn(2, 64)) is None
        return
    with pytest.raises(ValueError, match=r"does not say what the model says: output differs by .* \(batch"):
        written(layer, tmp_path / "out", inputs=torch.randn(2, 64))
    assert list(tmp_path.iterdir()) == []


class Branches(nn.Module):
    def forward(self, x):
        return x * 2 if bool(x.sum() > 0) else x


def test_what_the_exporter_cannot_take_is_said(tmp_path):
    if not ENGINE:
        assert written(Branches(), tmp_path / "out", inputs=torch.ones(2, 3)) is None
        return
    with pytest.raises(ValueError, match="Branches cannot be written as an ONNX graph: torch's exporter says"):
        written(Branches(), tmp_path / "out", inputs=torch.ones(2, 3))
    assert list(tmp_path.iterdir()) == []


def test_bad_options_are_refused_before_any_work(tmp_path):
    layer, x = nn.Linear(4, 4), torch.ones(1, 4)
    for options, words in (
        ({"dtype": "int8"}, "dtype='int8' is none that the graph can compute in"),
        ({"accuracy_level": 3}, "accuracy_level=3; choose 1"),
        ({"max_file_size": 0}, "max_file_size=0 is not a number of bytes"),
        ({"rows": 1}, "rows is no option of format 'onnx'"),
    ):
        with pytest.raises(ValueError, match=words):
            export(layer, tmp_path / "out", "onnx", inputs=x, **options)


def test_inputs_are_asked_for_where_a_module_does_not_say_what_it_takes(tmp_path):
    layer = nn.Linear(4, 4)
    for inputs, words in ((None, "Linear does not say what it takes; give inputs"), ((), "inputs must be a tensor")):
        if ENGINE:
            with pytest.raises(ValueError, match=words):
                export(layer, tmp_path / "out", "onnx", inputs=inputs)
        else:
            assert written(layer, tmp_path / "out", inputs=inputs) is None


def test_float16_is_refused_where_a_number_is_beyond_it_and_close_elsewhere(tmp_path):
    layer = nn.Sequential(Linear(round_to_nearest(torch.randn(16, 64), 4, group=32)), nn.Linear(16, 4))
    x = torch.randn(2, 64)
    result = written(layer, tmp_path / "out", inputs=x, dtype="float16")
    if result is None:
        return
    assert result.checked["largest_relative_difference"] < 1e-2
    with torch.no_grad():
        layer[1].weight[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"1.weight holds 100000, and torch.float16 holds numbers up to 65504"):
        written(layer, tmp_path / "other", inputs=x, dtype="float16")


def test_numbers_that_are_bfloat16_are_stored_as_such(tmp_path):
    layer = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 40)).eval()
    layer[0].to(torch.bfloat16).to(torch.float32)
    result = written(layer, tmp_path / "out", inputs=torch.randn(2, 64))
    if result is None:
        return
    assert result.checked["largest_relative_difference"] < 1e-6
    sizes = {tuple(t.dims): t.data_type for t in graph(result.path).initializer}
    assert sizes[64, 64] == 16  # bfloat16
    assert sizes[40, 64] == 1


def test_the_model_is_not_changed(tmp_path):
    model = rounded(bert(), bits=4, group=32)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    kinds = {name: type(module) for name, module in model.named_modules()}
    written(model, tmp_path / "out", accuracy_level=1)
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert all(
        torch.equal(t, before[name]) and t.dtype == before[name].dtype for name, t in model.state_dict().items()
    )
    assert isinstance(model.encoder.layer[0].output.dense.weight(), Quantized)


def test_a_saved_folder_is_exported_by_the_command(tmp_path, polyad_command):
    folder = polyad.save(rounded(bert(num_hidden_layers=2), bits=4, group=32), tmp_path / "small")
    code, said, complained = polyad_command("export", folder, tmp_path / "out", "--format", "onnx")
    if not ENGINE:
        assert code != 0
        assert "pip install 'polyad[onnx]'" in complained.replace("\n", " ")
        return
    assert code == 0, complained
    assert "12 matrices are in MatMulNBits of 4 bits" in said
    assert (tmp_path / "out" / "model.onnx").is_file()
