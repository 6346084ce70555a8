"""A model written as a GGUF file: structure, numbers, refusals, and that nothing is left half written."""

import json
import re
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

import polyad
import tiny
from polyad.adapters import Adapters, DoRA, LoRA
from polyad.cli import main
from polyad.export import export, fit_recipe
from polyad.export.gguf.reference import with_numbers_of_file
from polyad.formats import LowRank, Quantized, Sum
from polyad.interop import gguf_engine
from polyad.layers.kernels import prepare_layers
from polyad.models.attention import ReducedAttention
from polyad.models.source import Origin
from polyad.testing.decoders import random_decoder

WIDE = {"hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 128}


def decoder(family="Llama", tokenizer=None, **changed):
    model = random_decoder(family, **{**tiny.SHAPE, **WIDE, **changed})
    model.polyad_origin = Origin("tiny", None, tokenizer or tiny.tokenizer())
    return model


def compress(model, recipe, **options):
    return polyad.apply(model, polyad.plan(model, recipe, **options))


def written(model, folder, **options):
    """The reader of a file that was written without being run."""
    result = export(model, folder / "x.gguf", "gguf", unchecked=True, **options)
    return gguf.GGUFReader(result.path), result


def tensors(reader):
    return {t.name: t for t in reader.tensors}


def numbers(tensor):
    return torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type)))


def key(reader, name):
    field = reader.fields.get(name)
    return None if field is None else field.contents()


def test_a_file_is_read_back_as_the_model(tmp_path):
    model = decoder()
    written(model, tmp_path)
    again = polyad.load(tmp_path / "x.gguf")
    assert torch.equal(tiny.logits(again), tiny.logits(model))
    tokenizer = polyad.models.origin(again).tokenizer
    assert tokenizer("it's 1,234 Ångström").input_ids == tiny.tokenizer()("it's 1,234 Ångström").input_ids


def test_what_a_file_is_compared_with_multiplies_exactly():
    model = compress(decoder(), "rtn:bits=4,group=32")
    one = torch.tensor([[7]])
    with torch.no_grad():
        exact = model(one).logits
        prepare_layers(model, "packed4")
        rounded = model(one).logits
        reference = with_numbers_of_file(model, ())(one).logits
    assert (rounded - exact).norm() > 1e-3 * exact.norm()  # the model itself takes packed products
    torch.testing.assert_close(reference, exact)


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "Starcoder2", "StableLm"])
def test_families_are_read_back(family, tmp_path):
    special = {"Qwen3": {"head_dim": 32}, "Starcoder2": {"sliding_window": None, "hidden_act": "gelu_pytorch_tanh"}}
    model = decoder(family, **special.get(family, {}))
    written(model, tmp_path)
    torch.testing.assert_close(tiny.logits(polyad.load(tmp_path / "x.gguf")), tiny.logits(model))


def test_queries_and_keys_have_the_numbers_of_a_rotation_side_by_side(tmp_path):
    model = decoder()
    found = tensors(written(model, tmp_path)[0])
    for role, heads in (("q", 4), ("k", 2)):
        weight = model.get_submodule(f"model.layers.1.self_attn.{role}_proj").weight.detach()
        expected = weight.reshape(heads, 2, 8, 64).transpose(1, 2).reshape(weight.shape)
        assert torch.equal(numbers(found[f"blk.1.attn_{role}.weight"]), expected)
    straight = tensors(written(decoder("Qwen2"), tmp_path / "qwen2")[0])["blk.1.attn_q.weight"]
    assert torch.equal(numbers(straight), decoder("Qwen2").model.layers[1].self_attn.q_proj.weight)


def test_norms_are_stored_as_the_numbers_by_which_they_multiply(tmp_path):
    model = decoder("Gemma2", head_dim=32, sliding_window=16, query_pre_attn_scalar=32)
    reader, _ = written(model, tmp_path)
    expected = 1 + model.model.norm.weight.detach()
    assert torch.equal(numbers(tensors(reader)["output_norm.weight"]), expected)
    assert key(reader, "gemma2.attention.sliding_window") == 16
    plain = tensors(written(decoder(), tmp_path / "llama")[0])["output_norm.weight"]
    assert torch.equal(numbers(plain), decoder().model.norm.weight)


def test_a_tied_head_is_left_out_by_its_numbers_and_not_by_the_flag(tmp_path):
    assert "output.weight" not in tensors(written(decoder(tie_word_embeddings=True), tmp_path / "tied")[0])
    flagged = decoder(tie_word_embeddings=True)
    flagged.lm_head.weight = torch.nn.Parameter(flagged.lm_head.weight + 1)
    assert "output.weight" in tensors(written(flagged, tmp_path / "flagged")[0])
    same = decoder()
    same.lm_head.weight = torch.nn.Parameter(same.model.embed_tokens.weight.clone())
    assert "output.weight" not in tensors(written(same, tmp_path / "same")[0])


RECIPES = {
    "rtn:bits=4,group=32": "Q4_1", "rtn:bits=4,group=32,symmetric=true": "Q4_0", "rtn:bits=5,group=32": "Q5_1",
    "rtn:bits=5,group=32,symmetric=true": "Q5_0", "rtn:bits=8,group=32,symmetric=true": "Q8_0",
    "rtn:bits=3,group=32": "Q4_0", "rtn:bits=6,group=64": "Q8_0", "rtn:bits=8,symmetric=true": "Q8_0",
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_codes_are_kept_in_the_container_that_fits(recipe, tmp_path):
    model = compress(decoder(), recipe, select="*.mlp.gate_proj")
    tensor = tensors(written(model, tmp_path)[0])["blk.0.ffn_gate.weight"]
    q = model.model.layers[0].mlp.gate_proj.weight()
    assert isinstance(q, Quantized)
    assert tensor.tensor_type.name == RECIPES[recipe]
    step = q.scale.float().amax()
    assert float((numbers(tensor) - q.to_dense()).abs().max()) <= 0.02 * float(step)


def test_permuted_codes_are_the_rows_of_the_quantised_matrix(tmp_path):
    model = compress(decoder(), "rtn:bits=8,group=32,symmetric=true", select="*.q_proj")
    tensor = tensors(written(model, tmp_path)[0])["blk.2.attn_q.weight"]
    dense = model.model.layers[2].self_attn.q_proj.weight().to_dense()
    assert torch.equal(numbers(tensor), dense.reshape(4, 2, 8, 64).transpose(1, 2).reshape(dense.shape))


def test_eight_bits_with_zero_points_are_rounded_anew_and_that_is_said(tmp_path):
    model = compress(decoder(), "rtn:bits=8", select="*.mlp.*")
    reader, result = written(model, tmp_path)
    assert tensors(reader)["blk.0.ffn_up.weight"].tensor_type.name == "Q8_0"
    assert any("quantised in another way) are in Q8_0, relative error up to 0.00" in note for note in result.notes)


@pytest.mark.parametrize("container", ["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
def test_dense_matrices_are_in_the_container_asked_for_as_llama_cpp_rounds(container, tmp_path):
    model = decoder()
    found = tensors(written(model, tmp_path, container=container)[0])
    kind = gguf.GGMLQuantizationType[container]
    stored = found["blk.0.ffn_up.weight"]
    assert stored.tensor_type == kind
    expected = gguf.quants.quantize(model.model.layers[0].mlp.up_proj.weight.detach().numpy(), kind)
    assert np.array_equal(np.array(stored.data).view(np.uint8), expected.view(np.uint8))
    whole = "Q8_0" if container[0] == "Q" else container
    assert found["token_embd.weight"].tensor_type.name == whole


def test_rows_that_are_no_whole_blocks_and_numbers_beyond_float16_get_a_plain_container(tmp_path):
    model = decoder(hidden_size=48, num_attention_heads=3, num_key_value_heads=3)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(1e8)
    found = tensors(written(model, tmp_path, container="Q4_1")[0])
    assert found["blk.0.ffn_up.weight"].tensor_type.name == "F16"
    assert found["blk.0.ffn_down.weight"].tensor_type.name == "BF16"
    assert found["blk.1.ffn_down.weight"].tensor_type.name == "Q4_1"
    dead = tensors(written(model, tmp_path / "f16", container="F16")[0])["blk.0.ffn_down.weight"]
    assert dead.tensor_type.name == "BF16"
    assert bool(torch.isfinite(numbers(dead)).all())


def test_half_precision_keeps_its_numbers(tmp_path):
    model = decoder().bfloat16()
    reader, _ = written(model, tmp_path)
    tensor = tensors(reader)["blk.0.ffn_up.weight"]
    assert tensor.tensor_type.name == "BF16"
    assert torch.equal(numbers(tensor), model.model.layers[0].mlp.up_proj.weight.float())


def test_low_rank_layers_are_multiplied_out_and_the_cost_is_said(tmp_path):
    model = compress(decoder(), "svd:rank=4", select="*.mlp.*")
    reader, result = written(model, tmp_path)
    dense = model.model.layers[0].mlp.up_proj.weight().to_dense()
    assert torch.equal(numbers(tensors(reader)["blk.0.ffn_up.weight"]), dense)
    assert any("LowRank, multiplied out) are in F32, exactly (0.2 MB for 0.0 MB)" in note for note in result.notes)


def test_corrections_go_into_a_lora_file(tmp_path):
    model = compress(decoder(), "rtn:bits=3,group=32+eora:rank=4", calibrate=tiny.PART)
    reader, result = written(model, tmp_path)
    (beside,) = result.more
    assert beside == tmp_path / "x.lora.gguf"
    lora = gguf.GGUFReader(beside)
    assert key(lora, "general.type") == "adapter"
    assert key(lora, "adapter.lora.alpha") == 4
    both = tensors(lora)
    for role, rows in (("q", 4), ("k", 2)):
        weight = model.get_submodule(f"model.layers.0.self_attn.{role}_proj").weight()
        assert isinstance(weight, Sum)
        assert isinstance(weight.terms[1], LowRank)
        down, up = (numbers(both[f"blk.0.attn_{role}.weight.lora_{part}"]) for part in "ab")
        whole = numbers(tensors(reader)[f"blk.0.attn_{role}.weight"]) + up @ down
        dense = weight.to_dense().detach()
        dense = dense.reshape(rows, 2, 8, 64).transpose(1, 2).reshape(dense.shape)
        torch.testing.assert_close(whole, dense, rtol=1e-4, atol=1e-5)


def test_adapters_go_into_a_lora_file_with_their_whole_scale(tmp_path):
    model = decoder()
    adapters = Adapters(model)
    adapters.attach("one", "*.q_proj", LoRA, rank=4, alpha=32)
    adapters.attach("two", "*.mlp.up_proj", LoRA, rank=2)
    adapters.activate({"one": 0.5, "two": 1.0})
    with torch.no_grad():
        for name in adapters.names:
            for parameter in adapters.parameters(name):
                parameter.normal_(std=0.3)
    checked = {"unchecked": not gguf_engine.is_installed()}
    result = export(model, tmp_path / "x.gguf", "gguf", container="Q8_0", **checked)
    both = tensors(gguf.GGUFReader(result.more[0]))
    assert key(gguf.GGUFReader(result.more[0]), "adapter.lora.alpha") == 4
    for path, name, rank in (("self_attn.q_proj", "attn_q", 4), ("mlp.up_proj", "ffn_up", 2)):
        layer = model.get_submodule(f"model.layers.0.{path}")
        change = layer.updated_weights()["weight"] - layer.weight.detach()
        if name == "attn_q":
            change = change.reshape(4, 2, 8, 64).transpose(1, 2).reshape(change.shape)
        down, up = (numbers(both[f"blk.0.{name}.weight.lora_{part}"]) for part in "ab")
        torch.testing.assert_close(up @ down * 4 / rank, change, rtol=1e-4, atol=1e-5)


def test_adapters_that_are_no_low_rank_matrix_are_to_be_merged_first(tmp_path):
    model = decoder()
    adapters = Adapters(model)
    adapters.attach("dora", "*.q_proj", DoRA, rank=2)
    with pytest.raises(
        ValueError, match=r"'dora' on model.layers.0.self_attn.q_proj is no low-rank .* merge it first"
    ):
        written(model, tmp_path)
    adapters.merge(keep=False)
    written(model, tmp_path)


def test_cut_heads_and_widths_come_back_at_places_of_their_own(tmp_path):
    model = compress(decoder(), "modegpt", keep=0.7, calibrate=tiny.PART)
    reader, result = written(model, tmp_path)
    assert key(reader, "general.architecture") == "deci"
    widths = key(reader, "deci.feed_forward_length")
    cut = [layer.mlp.up_proj.weight.shape[0] for layer in model.model.layers]
    assert len(set(widths)) > 1
    assert all(width % 32 == 0 and 0 <= width - before < 32 for width, before in zip(widths, cut, strict=True))
    found = tensors(reader)
    for i, (width, before) in enumerate(zip(widths, cut, strict=True)):
        up = numbers(found[f"blk.{i}.ffn_up.weight"])
        assert up.shape == (width, 64)
        assert not up[before:].any()
        assert numbers(found[f"blk.{i}.attn_q.weight"]).shape == (64, 64)
    assert any("are filled up with zeros" in note for note in result.notes)
    reduced = [layer.self_attn for layer in model.model.layers if isinstance(layer.self_attn, ReducedAttention)]
    assert any(one.pairs is not None and one.value_width < 16 for one in reduced)
    for one in reduced:
        q, v, o = (numbers(found[f"blk.{one.layer_idx}.attn_{role}.weight"]) for role in ("q", "v", "output"))
        q = q.reshape(4, 8, 2, 64).transpose(1, 2)  # heads, halves, pairs
        pairs = torch.arange(8).expand(2, 8) if one.pairs is None else one.pairs
        for head in range(4):
            before = one.q_proj.weight.unflatten(0, (4, 2, -1))[head]
            assert torch.equal(q[head][:, pairs[head // 2]], before)
            assert int(q[head].abs().sum(-1).gt(0).sum()) == before.shape[0] * before.shape[1]
            value = one.v_proj.weight.unflatten(0, (2, -1))[head // 2]
            product = one.o_proj.weight.unflatten(1, (4, -1))[:, head] @ value
            torch.testing.assert_close(o.unflatten(1, (4, 16))[:, head] @ v.unflatten(0, (2, 16))[head // 2], product)


def test_rotary_scaling_is_stated(tmp_path):
    rope = {"rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 32}
    three = {**rope, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    for kind, stated in (
        ("llama3", three), ("yarn", {**rope, "rope_type": "yarn"}),
        ("linear", {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}),
    ):  # fmt: skip
        model = decoder(rope_parameters=stated)
        reader, _ = written(model, tmp_path / kind)
        assert ("rope_freqs.weight" in tensors(reader)) == (kind == "llama3")
        assert key(reader, "llama.rope.scaling.type") == (None if kind == "llama3" else kind)
        again = tiny.logits(polyad.load(tmp_path / kind / "x.gguf"))
        torch.testing.assert_close(again, tiny.logits(model), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="type 'dynamic' cannot be written for the architecture llama"):
        written(decoder(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}), tmp_path)


@pytest.mark.parametrize(
    ("family", "changed", "said"),
    [
        ("Cohere", {}, r"CohereForCausalLM \(model type 'cohere'\) cannot be written as GGUF; decoders that can"),
        ("Llama", {"hidden_act": "relu"}, "hidden_act='relu' cannot be written as GGUF: llama.cpp computes silu"),
        ("Qwen3", {"attention_bias": True, "head_dim": 16}, "o_proj has a bias, for which llama.cpp has no place"),
        ("Gemma2", {"query_pre_attn_scalar": 7, "head_dim": 32}, "query_pre_attn_scalar=7 .* scales by 32"),
    ],
)
def test_what_the_engine_computes_otherwise_is_refused_before_work(family, changed, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        written(decoder(family, **changed), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_options_places_and_missing_tokenizers_are_refused(tmp_path):
    model = decoder()
    with pytest.raises(ValueError, match="container='Q3_K' is not known; choose one of F32"):
        written(model, tmp_path, container="Q3_K")
    with pytest.raises(ValueError, match="format='ggml' is not known; choose one of gguf"):
        export(model, tmp_path / "x", "ggml")
    with pytest.raises(ValueError, match="level is no option of format 'gguf'; it takes container, unchecked"):
        export(model, tmp_path / "x", "gguf", level=4)
    with pytest.raises(TypeError, match="model is a int; give a model, its folder or its name"):
        export(3, tmp_path / "x", "gguf")
    (tmp_path / "there.gguf").write_text("mine")
    with pytest.raises(FileExistsError, match="already holds something"):
        export(model, tmp_path / "there.gguf", "gguf")
    bare = random_decoder("Llama", **{**tiny.SHAPE, **WIDE})
    with pytest.raises(ValueError, match="this model has none"):
        written(bare, tmp_path)
    model.extra = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match=r"extra \(LlamaForCausalLM\) has no place in a GGUF file"):
        written(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["there.gguf"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(OSError, match="0 MB are free; nothing was written"):
        written(decoder(), tmp_path)
    monkeypatch.undo()

    def write_part(path, *_):
        Path(path).write_bytes(b"GGUF")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("polyad.export.gguf.write.write_file", write_part)
    with pytest.raises(OSError, match="No space left"):
        written(decoder(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_one_value(tmp_path, capsys, monkeypatch):
    polyad.save(decoder(), tmp_path / "model", tokenizer=tiny.tokenizer())
    out = tmp_path / "x.gguf"
    command = ["polyad", "export", str(tmp_path / "model"), str(out), "--format", "gguf", "--unchecked", "--json"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = json.loads(capsys.readouterr().out)
    assert said["bytes"] == out.stat().st_size
    assert said["checked"] == {}
    assert "the file was not run: no engine was asked whether it says what the model says" in said["notes"]


def test_without_an_engine_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("polyad.export.gguf.check.is_installed", lambda: False)
    with pytest.raises(ImportError, match=r"pip install 'polyad\[engines\]', or give --unchecked"):
        export(decoder(), tmp_path / "x.gguf", "gguf")
    assert list(tmp_path.iterdir()) == []


def test_the_engine_agrees_or_is_asked_for(tmp_path):
    model = compress(decoder(), "rtn:bits=4,group=32+eora:rank=4", calibrate=tiny.PART)
    if not gguf_engine.is_installed():
        with pytest.raises(ImportError, match=r"polyad\[engines\]"):
            export(model, tmp_path / "x.gguf", "gguf")
        return
    result = export(model, tmp_path / "x.gguf", "gguf")
    assert result.checked["rms_difference"] <= result.checked["tolerance"]
    assert result.checked["tokens"] >= 12


@pytest.mark.parametrize(
    "recipe", ["rtn:bits=4", "rtn:bits=5", "rtn:bits=8", "rtn:bits=3+eora:rank=2", "least_distortion:bits=4"]
)
def test_a_recipe_for_gguf_keeps_all_codes_and_moves_nothing(recipe, tmp_path):
    model = compress(decoder(), fit_recipe(recipe, "gguf"), calibrate=tiny.PART)
    _, result = written(model, tmp_path)
    assert sum(int(note.split()[0]) for note in result.notes if "keep their codes" in note) == 21


def test_a_recipe_that_no_file_holds_is_refused():
    for recipe, said in (
        ("rtn:bits=7", "bits=7 has no container in GGUF; choose one of 2, 3, 4, 5, 6, 8"),
        ("rtn:bits=4,group=48", "group=48 does not fit GGUF"),
        ("rtn:bits=8,symmetric=false", "8 bits have no zero points in GGUF"),
        ("svd:rank=4", "svd alone is no layer that a GGUF file holds"),
    ):
        with pytest.raises(ValueError, match=said):
            fit_recipe(recipe, "gguf")
    with pytest.raises(ValueError, match="format='onnx' has no grids of its own; choose one of gguf"):
        fit_recipe("rtn:bits=4", "onnx")


def test_optional_packages_are_imported_in_their_own_room_alone():
    root = Path(polyad.__file__).parent
    wanted = re.compile(r"(import|from) (gguf|xllamacpp)\b")
    files = {path.relative_to(root).parts[0] for path in root.rglob("*.py") if wanted.search(path.read_text())}
    assert files == {"interop"}
