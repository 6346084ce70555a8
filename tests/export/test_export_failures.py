"""Exports that cannot be finished: a full disk, an engine that refuses, layers without a place; nothing is left."""

import errno
import json
import shutil

import pytest
import torch
import transformers
from torch import nn

import polyad
import tiny
from export_of import rounded
from polyad.export import FORMATS, export
from polyad.interop import gguf_engine
from polyad.interop.onnx import require_packages
from polyad.models.source import Origin
from polyad.testing.decoders import random_decoder


def decoder(family="Llama", **changed):
    model = random_decoder(family, **{**tiny.SHAPE, "hidden_size": 64, "intermediate_size": 96, **changed})
    model.polyad_origin = Origin("tiny", None, tiny.tokenizer())
    return model


def engines():
    """The formats whose engines are installed."""
    names = {"gguf"} if gguf_engine.is_installed() else set()
    for name, package in (("onnx", require_packages), ("transformers", compressed_tensors)):
        try:
            package()
        except ImportError:
            continue
        names.add(name)
    return names


def compressed_tensors():
    from polyad.interop.compressed_tensors import require_package

    require_package()


WRITERS = {
    "gguf": "polyad.export.gguf.write.write_file", "onnx": "polyad.export.onnx.write.write_graph",
    "transformers": "polyad.export.transformers.write.shards.write_tensors",
}  # fmt: skip


def layer():
    return nn.Sequential(nn.Linear(8, 8)), {"inputs": torch.ones(2, 8)}


def small(format):
    """A model of the format's sort, and the options that it needs."""
    return layer() if format == "onnx" else (decoder(), {"unchecked": True} if format == "gguf" else {})


@pytest.mark.parametrize("format", FORMATS)
def test_a_disk_without_room_is_told_before_a_file_is_made(format, tmp_path, monkeypatch):
    if format not in engines() | {"gguf"}:
        return
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    model, options = small(format)
    with pytest.raises(OSError, match="MB are free; nothing was written"):
        export(model, tmp_path / "out", format, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_disk_that_fills_up_on_the_way_leaves_nothing(format, tmp_path, monkeypatch):
    if format not in engines() | {"gguf"}:
        return

    def fill(*given, **_):
        place = given[1] if format != "gguf" else given[0].parent
        (place / "half").write_bytes(b"x") if format != "gguf" else given[0].write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(WRITERS[format], fill)
    model, options = small(format)
    with pytest.raises(OSError, match="No space left"):
        export(model, tmp_path / "out", format, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_llama_cpp_refuses_is_removed(tmp_path, monkeypatch):
    if not gguf_engine.is_installed():
        return
    module = "polyad.export.gguf.contents.model_keys"
    from polyad.export.gguf.keys import model_keys

    monkeypatch.setattr(module, lambda *given: model_keys(*given) | {"embedding_length": 96})
    with pytest.raises(ValueError, match=r"llama.cpp does not run this file: .*(error|fail|shape)"):
        export(decoder(), tmp_path / "x.gguf", "gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_says_something_else_is_removed(tmp_path, monkeypatch):
    if not gguf_engine.is_installed():
        return
    from polyad.export.gguf.keys import model_keys

    module = "polyad.export.gguf.contents.model_keys"
    monkeypatch.setattr(module, lambda *given: model_keys(*given) | {"attention.layer_norm_rms_epsilon": 1.0})
    with pytest.raises(ValueError, match=r"says something else than the model: .* nothing was written"):
        export(decoder(), tmp_path / "x.gguf", "gguf", container="F32")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_onnxruntime_refuses_is_removed(tmp_path, monkeypatch):
    if "onnx" not in engines():
        return
    from polyad.interop.onnx import write_graph

    def damage(model, folder, limit):
        write_graph(model, folder, limit)
        file = folder / "model.onnx"
        file.write_bytes(file.read_bytes()[:40])

    monkeypatch.setattr("polyad.export.onnx.write.write_graph", damage)
    model, options = layer()
    with pytest.raises(ValueError, match="onnxruntime refuses the file"):
        export(model, tmp_path / "out", "onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_is_low_rank_alone_goes_into_the_container_asked_for(tmp_path):
    model = decoder()
    polyad.apply(model, polyad.plan(model, "svd:rank=4", select="*.mlp.up_proj"))
    result = export(model, tmp_path / "x.gguf", "gguf", unchecked=True, container="Q8_0")
    said = " ".join(result.notes)
    assert "3 of 23 matrices (LowRank, multiplied out) are in Q8_0, relative error up to 0.0" in said
    assert any("MB for 0.0 MB" in note for note in result.notes if "multiplied out" in note)


def test_a_folder_in_shards_is_read_whole(tmp_path):
    if "transformers" not in engines():
        return
    model = rounded(tiny.model(), bits=4, group=16, symmetric=True)
    result = export(model, tmp_path / "out", "transformers", max_shard_size=20_000)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    assert result.nbytes >= sum((tmp_path / "out" / name).stat().st_size for name in files)
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        apart = model(tiny.ids(2, 9)).logits - loaded(tiny.ids(2, 9)).logits
    assert float(apart.abs().max()) < 1e-4


@pytest.mark.parametrize("size", [0, 2**31, 1.5, True])
def test_files_beyond_what_a_protocol_buffer_holds_are_refused(size, tmp_path):
    model, options = layer()
    with pytest.raises(ValueError, match=f"max_file_size={size} is not a number of bytes from 1 to 1,900,000,000"):
        export(model, tmp_path / "out", "onnx", max_file_size=size, **options)
    assert list(tmp_path.iterdir()) == []
