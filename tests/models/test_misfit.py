"""A folder whose weights are not what its configuration describes is refused by the tensors' names."""

import json
import pickle
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import polyad
import tiny
from polyad.cli import app
from polyad.models.pretrained import without_other_heads


def written(model, folder):
    model.save_pretrained(folder)
    return folder


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def own(folder):
    """The same folder as polyad writes it where transformers alone can load it, without its checksums."""
    return polyad.save(polyad.load(folder), folder.with_name("own"))


NORM, UP = "model.norm.weight", "model.layers.1.mlp.up_proj.weight"
MISFITS = {
    "a tensor is missing": (lambda f: edit_tensors(f, lambda t: t.pop(UP)), rf"no numbers for {UP} \(transformers"),
    "more layers in the configuration": (
        lambda f: edit_config(f, num_hidden_layers=4),
        r"no numbers for model\.layers\.3\.input_layernorm\.weight, .* and 6 more",
    ),
    "fewer layers in the configuration": (
        lambda f: edit_config(f, num_hidden_layers=2),
        r"no place for model\.layers\.2\.input_layernorm\.weight, .* and 6 more",
    ),
    "biases that it does not take": (
        lambda f: edit_tensors(f, lambda t: t.update({UP.replace("weight", "bias"): torch.ones(48)})),
        r"no place for model\.layers\.1\.mlp\.up_proj\.bias",
    ),
    "a name misspelt": (
        lambda f: edit_tensors(f, lambda t: t.update({"model.nrom.weight": t.pop(NORM)})),
        r"no numbers for model\.norm\.weight .*; its configuration has no place for model\.nrom\.weight",
    ),
    "another width": (
        lambda f: edit_tensors(f, lambda t: t.update({UP: torch.ones(40, 32)})),
        r"model\.layers\.1\.mlp\.up_proj\.weight has the shape \(40, 32\) and the configuration says \(48, 32\)",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_folder_and_a_configuration_that_differ_are_refused(misfit, tmp_path):
    harm, sentence = MISFITS[misfit]
    folder = written(tiny.model(), tmp_path / "model")
    assert torch.equal(tiny.logits(polyad.load(folder)), tiny.logits(tiny.model()))
    harm(folder)
    with pytest.raises(
        ValueError, match=rf"the model in .*model is not what its config\.json describes: .*{sentence}"
    ):
        polyad.load(folder)


@pytest.mark.parametrize("layers", [2, 4])
def test_a_folder_of_polyad_whose_configuration_was_changed_is_refused(layers, tmp_path):
    folder = polyad.save(tiny.model(), tmp_path / "out")
    edit_config(folder, num_hidden_layers=layers)
    with pytest.raises(ValueError, match=r"no (place|numbers) for model\.layers\.[23]\.input_layernorm\.weight"):
        polyad.load(folder)


@pytest.mark.parametrize("kind", ["tied", "gpt2"])
def test_tied_weights_and_buffers_of_old_files_are_no_misfit(kind, tmp_path):
    model = tiny.model(kind)
    folder = written(model, tmp_path / "model")
    extra = {
        "tied": {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)},
        "gpt2": {"transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64).tril().bool()},
    }[kind]
    edit_tensors(folder, lambda t: t.update(extra))
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert torch.equal(tiny.logits(polyad.load(folder)), tiny.logits(model))


def test_the_head_of_another_task_is_left_out_and_a_stray_tensor_is_not(tmp_path):
    config = transformers.BertConfig(vocab_size=500, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                     intermediate_size=48, max_position_embeddings=64)  # fmt: skip
    torch.manual_seed(0)
    whole = transformers.BertForPreTraining(config).eval()
    folder = written(whole, tmp_path / "bert")
    edit_config(folder, architectures=["BertForMaskedLM"])
    again = polyad.load(folder)
    assert type(again) is transformers.BertForMaskedLM
    with torch.no_grad():
        assert torch.equal(again(tiny.ids()).logits, whole(tiny.ids()).prediction_logits)
    edit_tensors(folder, lambda t: t.update({"bert.encoder.layer.0.extra.weight": torch.ones(3)}))
    with pytest.raises(ValueError, match=r"no place for bert\.encoder\.layer\.0\.extra\.weight\. Get"):
        polyad.load(folder)
    assert without_other_heads(again, ["cls.seq_relationship.weight", "nothing.weight"]) == ["nothing.weight"]


def test_a_base_models_missing_part_is_refused(tmp_path):
    folder = written(tiny.model(), tmp_path / "model")
    edit_config(folder, architectures=["LlamaForSequenceClassification"], num_labels=3)
    with pytest.raises(ValueError, match=r"no numbers for score\.weight"):
        polyad.load(folder)


class Runs:
    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickled_weights_are_read_without_running_code(tmp_path):
    model = tiny.model()
    folder = written(model, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert torch.equal(tiny.logits(polyad.load(folder)), tiny.logits(model))
    bad = Runs()
    bad.path = tmp_path / "ran"
    torch.save({**tensors, "extra": bad}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"the model in .*model cannot be read: .*; copy the folder again"):
        polyad.load(folder)
    assert not bad.path.exists()
    pickle.loads(pickle.dumps(bad)).close()
    assert bad.path.exists(), "the file that was refused would have run this"


@pytest.mark.parametrize(
    "name", ["pipeline", "LlamaConfig", "AutoTokenizer", "logging", ["LlamaForCausalLM"], 3, "Trainer"]
)
def test_a_configuration_names_a_class_of_models_and_nothing_else(name, tmp_path):
    plain = written(tiny.model(), tmp_path / "model")
    ours = polyad.save(tiny.model(), tmp_path / "ours")
    mixed = tiny.model()
    mixed.model.layers[0].mlp.up_proj = polyad.layers.Linear(polyad.decompose.svd(torch.randn(48, 32), 4))
    mixed = polyad.save(mixed, tmp_path / "mixed")
    for folder in (plain, ours, mixed):
        edit_config(folder, architectures=[name])
        with pytest.raises(ValueError, match=r"says that the model is a .* no class of models|cannot be read: .*"):
            polyad.load(folder)


CODE = """
import pathlib
pathlib.Path(r"{ran}").write_text("ran")
from transformers import {what}
class {name}({what}):
    model_type = "strange"
"""


def remote(tmp_path, model_type):
    """A folder whose configuration brings a Python file, which leaves a mark where it runs."""
    folder = written(tiny.model(), tmp_path / "model")
    tiny.tokenizer().save_pretrained(folder)
    code = CODE.format(ran=tmp_path / "ran", what="LlamaConfig", name="Strange")
    code += "from transformers import LlamaForCausalLM\nclass StrangeModel(LlamaForCausalLM):\n"
    (folder / "strange.py").write_text(code + "    config_class = Strange\n")
    edit_config(
        folder, model_type=model_type, architectures=["StrangeModel"],
        auto_map={"AutoConfig": "strange.Strange", "AutoModelForCausalLM": "strange.StrangeModel"},
    )  # fmt: skip
    return folder


def test_code_of_a_folder_runs_where_it_is_allowed_and_nowhere_else(tmp_path, monkeypatch):
    folder = remote(tmp_path, "strange")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ValueError, match=r"brings Python code of its own, .* trust_remote_code=True\), or --trust"):
        polyad.load(folder)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(TypeError, match="trust_remote_code='yes' is neither True nor False"):
        polyad.load(folder, trust_remote_code="yes")
    again = polyad.load(folder, trust_remote_code=True)
    assert type(again).__name__ == "StrangeModel"
    assert (tmp_path / "ran").exists()
    assert torch.equal(tiny.logits(again), tiny.logits(tiny.model()))


@pytest.mark.parametrize("command", ["inspect", "generate"])
def test_the_command_line_runs_code_of_a_folder_by_an_option_alone(tmp_path, monkeypatch, command):
    folder = remote(tmp_path, "strange")
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = [command, str(folder), *(["one two", "--tokens", "1"] if command == "generate" else [])]
    refused = CliRunner().invoke(app, words)
    assert "brings Python code of its own" in str(refused.exception)
    assert not (tmp_path / "ran").exists()
    allowed = CliRunner().invoke(app, [*words, "--trust-remote-code"], catch_exceptions=False)
    assert allowed.exit_code == 0
    assert (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="brings Python code of its own"):  # the trust ends with the command
        polyad.load(folder)


@pytest.mark.parametrize("name", ["compress", "compare", "adapt", "cache", "convert", "evaluate", "merge"])
def test_every_command_that_loads_has_the_option(name):
    assert "--trust-remote-code" in CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output


def test_a_dtype_by_name_is_refused_as_it_is_in_saving(tmp_path):
    with pytest.raises(TypeError, match=r"dtype is a str and no dtype; such as torch.float16"):
        polyad.load(tmp_path, dtype="float16")


def test_code_of_a_tokenizer_runs_nowhere_unasked(tmp_path, monkeypatch):
    folder = written(tiny.model(), tmp_path / "model")
    tiny.tokenizer().save_pretrained(folder)
    code = CODE.format(ran=tmp_path / "ran", what="PreTrainedTokenizerFast", name="Strange")
    (folder / "strange.py").write_text(code)
    path = folder / "tokenizer_config.json"
    stated = {**json.loads(path.read_text()), "tokenizer_class": "Strange",
              "auto_map": {"AutoTokenizer": [None, "strange.Strange"]}}  # fmt: skip
    path.write_text(json.dumps(stated))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ValueError, match=r"brings Python code of its own, .* trust_remote_code=True\), or --trust"):
        polyad.load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "", ".."])
def test_files_outside_of_a_folder_are_not_read(name, tmp_path):
    ours = polyad.save(tiny.model(), tmp_path / "ours")
    stated = json.loads((ours / "polyad.json").read_text())
    stated["sha256"] = {name: "0"}
    (ours / "polyad.json").write_text(json.dumps({k: v for k, v in stated.items() if k != "checksum"}))
    with pytest.raises(ValueError, match=r"polyad\.json names a file .* outside of its folder"):
        polyad.load(ours)
    plain = tmp_path / "plain"
    tiny.model().save_pretrained(plain, max_shard_size="20KB")
    index = plain / "model.safetensors.index.json"
    homes = json.loads(index.read_text())
    homes["weight_map"][next(iter(homes["weight_map"]))] = name
    index.write_text(json.dumps(homes))
    with pytest.raises(ValueError, match=r"index\.json names a file .* outside of its folder"):
        polyad.load(plain)
