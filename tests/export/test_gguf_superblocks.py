"""Containers of 256 numbers and the one with a table: their bytes, which layers have them, and their engine."""

import functools

import gguf
import numpy as np
import pytest
import torch

import polyad
import tiny
from polyad.export import export, fit_recipe
from polyad.export.gguf.choice import container_rules
from polyad.export.gguf.containers import CONTAINERS, encode_codes, encode_dense, whole_blocks
from polyad.export.gguf.superblocks import ARGUMENTS, IQ4_NL
from polyad.formats import Levels, Superblocks
from polyad.interop import gguf_engine
from polyad.models.source import Origin
from polyad.quantize import normal_float, round_to_nearest, vs_quant
from polyad.testing.decoders import random_decoder

HALF = {"scale_dtype": torch.float16}
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "max_position_embeddings": 128}


def decoder(**changed):
    model = random_decoder("Llama", **{**tiny.SHAPE, **WIDE, **changed})
    model.polyad_origin = Origin("tiny", None, tiny.tokenizer())
    return model


def written(model, folder, **options):
    result = export(model, folder / "x.gguf", "gguf", unchecked=True, **options)
    return {t.name: t for t in gguf.GGUFReader(result.path).tensors}, result


def numbers(tensor):
    return torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type)))


def matrix(rows=5, columns=512):
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    x[1] = x[1].abs() + 3  # of one sign, off zero
    x[2, :256] = 0
    x[3] = x[3] ** 3
    return x


FORMATS = {
    "Q4_K": functools.partial(vs_quant, bits=4, group=256, **HALF),
    "Q5_K": functools.partial(vs_quant, bits=5, group=256, **HALF),
    "Q6_K": functools.partial(vs_quant, bits=6, group=256, parts=16, step_bits=7, symmetric=True, **HALF),
    "IQ4_NL": functools.partial(normal_float, bits=4, group=32, levels=IQ4_NL, **HALF),
}


@pytest.mark.parametrize("container", FORMATS)
def test_bytes_stand_for_the_numbers_of_the_codes(container):
    q = FORMATS[container](matrix())
    rows = encode_codes(q)
    assert rows.container == container
    assert rows.codes
    torch.testing.assert_close(rows.to_matrix(), q.to_dense(), rtol=1e-5, atol=1e-6)
    assert rows.stored.nbytes == 5 * 512 // 256 * {"Q4_K": 144, "Q5_K": 176, "Q6_K": 210, "IQ4_NL": 144}[container]


@pytest.mark.parametrize("bits", [2, 3])
def test_fewer_bits_are_held_by_four(bits):
    q = vs_quant(matrix(), bits, group=256, **HALF)
    rows = encode_codes(q)
    assert rows.container == "Q4_K"
    torch.testing.assert_close(rows.to_matrix(), q.to_dense(), rtol=1e-5, atol=1e-6)


def test_rows_that_are_no_multiples_of_256_keep_their_codes_elsewhere():
    q = vs_quant(matrix(columns=320), 4, group=256, **HALF)
    rows = encode_codes(q)
    assert rows.container == "Q4_1"
    assert rows.codes
    step = q.to_quantized().scale.max()
    assert float((rows.to_matrix() - q.to_dense()).abs().max()) <= 0.05 * float(step)
    assert encode_codes(FORMATS["Q6_K"](matrix(columns=320))) is None
    assert encode_codes(normal_float(matrix(), 4, group=32, **HALF)) is None  # another table
    assert encode_codes(normal_float(matrix(columns=48), 4, group=16, levels=IQ4_NL, **HALF)) is None


@pytest.mark.parametrize("container", FORMATS)
def test_scales_are_searched_at_least_as_well_as_by_rounding(container):
    x = matrix()
    bits = 4 if container == "IQ4_NL" else ARGUMENTS[container]["bits"]
    plain = round_to_nearest(x, bits, group=32, symmetric=container in ("Q6_K", "IQ4_NL"), **HALF)
    assert encode_dense(x, container).error < plain.error(x)


@pytest.mark.parametrize("container", FORMATS)
def test_dense_matrices_go_into_the_container_asked_for(container, tmp_path):
    found, result = written(decoder(), tmp_path, container=container)
    assert found["blk.0.ffn_down.weight"].tensor_type.name == container
    assert found["token_embd.weight"].tensor_type.name == "Q8_0"
    assert any(f"are in {container}, relative error up to 0.0" in note for note in result.notes)
    narrow, _ = written(decoder(hidden_size=96, num_attention_heads=3, num_key_value_heads=3), tmp_path / "narrow",
                        container=container)  # fmt: skip
    assert narrow["blk.0.ffn_up.weight"].tensor_type.name == whole_blocks(container, 96) != "F16"
    assert narrow["blk.0.ffn_down.weight"].tensor_type.name == container


def test_containers_differ_by_layer(tmp_path):
    found, _ = written(decoder(), tmp_path, container="Q4_K,*down_proj=Q6_K,token_embd=Q4_0,*.1.*down_proj=F16")
    kinds = {name: t.tensor_type.name for name, t in found.items()}
    assert kinds["blk.0.ffn_up.weight"] == "Q4_K"
    assert kinds["blk.0.ffn_down.weight"] == "Q6_K"
    assert kinds["blk.1.ffn_down.weight"] == "F16"  # the last that fits
    assert kinds["token_embd.weight"] == "Q4_0"
    assert kinds["output.weight"] == "Q8_0"
    assert container_rules({"": "Q4_K", "*q_proj": "F16"}) == container_rules("Q4_K,*q_proj=F16")


def test_containers_that_are_not_and_patterns_that_name_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="container='Q3_K' is not known; choose one of F32"):
        written(decoder(), tmp_path, container="Q4_K,*up_proj=Q3_K")
    with pytest.raises(ValueError, match=r"the pattern '\*upper' names no matrix of the model; .* such as model"):
        written(decoder(), tmp_path, container="Q4_K,*upper=Q6_K")
    with pytest.raises(TypeError, match="container is a int; give a name"):
        written(decoder(), tmp_path, container=4)
    assert list(tmp_path.iterdir()) == []


RECIPES = {
    "vs_quant:bits=4": ("Q4_K", Superblocks), "vs_quant:bits=3": ("Q4_K", Superblocks),
    "vs_quant:bits=5": ("Q5_K", Superblocks), "vs_quant:bits=6": ("Q6_K", Superblocks),
    "normal_float:bits=4": ("IQ4_NL", Levels),
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_for_gguf_keeps_its_codes(recipe, tmp_path):
    container, kind = RECIPES[recipe]
    model = decoder()
    polyad.apply(model, polyad.plan(model, fit_recipe(recipe, "gguf")))
    weight = model.model.layers[1].mlp.down_proj.weight()
    assert isinstance(weight, kind)
    found, result = written(model, tmp_path)
    assert f"14 of 16 matrices keep their codes, in {container}" in result.notes
    torch.testing.assert_close(numbers(found["blk.1.ffn_down.weight"]), weight.to_dense(), rtol=1e-5, atol=1e-6)
    again = polyad.load(polyad.save(model, tmp_path / "saved", dtype=None))
    assert torch.equal(again.model.layers[1].mlp.down_proj.weight().to_dense(), weight.to_dense())


def test_recipes_beyond_the_containers_are_refused():
    for recipe, said in (
        ("vs_quant:bits=8", "bits=8 of vs_quant has no container in GGUF; choose 2 to 6, or rtn"),
        ("vs_quant:bits=4,parts=4", "parts=4 does not fit GGUF for vs_quant: it is 8 there"),
        ("vs_quant:bits=4,group=64", "group=64 does not fit GGUF for vs_quant: it is 256 there"),
        ("normal_float:bits=3", r"bits=3 of normal_float has no container in GGUF; choose 4 \(IQ4_NL\)"),
    ):
        with pytest.raises(ValueError, match=said):
            fit_recipe(recipe, "gguf")


@pytest.mark.parametrize("container", FORMATS)
def test_the_engine_says_the_same(container, tmp_path):
    if not gguf_engine.is_installed():
        with pytest.raises(ImportError, match=r"polyad\[engines\]"):
            export(decoder(), tmp_path / "x.gguf", "gguf", container=container)
        return
    result = export(decoder(), tmp_path / "x.gguf", "gguf", container=container)
    assert result.checked["rms_difference"] <= result.checked["tolerance"] < 0.1


def test_every_container_is_named_by_the_package():
    assert {"Q4_K", "Q5_K", "Q6_K", "IQ4_NL"} < set(CONTAINERS)
    assert all(hasattr(gguf.GGMLQuantizationType, name) for name in CONTAINERS)
