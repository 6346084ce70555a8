"""Compressed models in folders that transformers writes: the same to the bit, and refused without polyad."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
import transformers
from torch import nn
from transformers.utils import hub

import polyad
import tiny
from models.test_folder import CHANGES, UP, embedded, low_rank, quantized, reduced, weight
from polyad.adapters import Adapters, LoRA
from polyad.adapters.training import trainer_callback
from polyad.compress.apply import apply_with_undo
from polyad.decompose import svd
from polyad.interop.transformers import PolyadQuantizer, attach_quantizer
from polyad.layers import Linear
from polyad.models import replace
from polyad.quantize import round_to_nearest

FOR_TRAINING = {
    "learning_rate": 0.01,
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": 2,
    "report_to": [],
    "seed": 0,
}


def biased(model):
    """Every tensor of the architecture is there in its own shape, and one more."""
    old = model.get_submodule(UP)
    new = nn.Linear(old.in_features, old.out_features)
    new.weight.data.copy_(old.weight.data)
    new.bias.data.normal_()
    replace(model, {UP: new})


def narrower(model):
    for layer in model.model.layers[:1]:
        for role, cut in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
            old = getattr(layer.mlp, role).weight.detach().narrow(cut, 0, 40)
            new = nn.Linear(old.shape[1], old.shape[0], bias=False)
            new.weight.data.copy_(old)
            replace(model, {f"model.layers.0.mlp.{role}": new})


def latent(model):
    polyad.attention.convert_attention(model)


EVERY = (*CHANGES, biased, narrower, latent)


def load(folder):
    """The model that transformers reads, and nothing in its report of what was found."""
    model, notes = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(notes.values()), notes
    return model


def assert_same_tensors(again, model):
    """The same modules, the same tensors to the bit, and as much to train."""
    assert {p: type(m) for p, m in again.named_modules()} == {p: type(m) for p, m in model.named_modules()}
    first, second = (m.state_dict() for m in (model, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[n], second[n]) and first[n].dtype == second[n].dtype for n in first)
    trained, others = ({n: p.requires_grad for n, p in m.named_parameters()} for m in (model, again))
    assert trained == others


def assert_same(again, model):
    """The same in all its parts, and in what it says."""
    assert_same_tensors(again, model)
    assert torch.equal(tiny.logits(again), tiny.logits(model))


@pytest.mark.parametrize("kind", ["llama", "tied", "mistral"])
@pytest.mark.parametrize("change", EVERY, ids=lambda f: f.__name__)
def test_a_model_comes_back_to_the_last_digit(change, kind, tmp_path):
    model = tiny.model(kind)
    change(model)
    model.save_pretrained(tmp_path / "out")
    again = load(tmp_path / "out")
    assert_same(again, model)
    assert_same(polyad.load(tmp_path / "out"), model)
    again.save_pretrained(tmp_path / "twice")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


PLAIN = """
import sys, transformers
kinds = (transformers.AutoModelForCausalLM, transformers.LlamaForCausalLM, transformers.AutoModel)
for folder in sys.argv[1:]:
    for kind in kinds:
        try:
            kind.from_pretrained(folder)
        except Exception as error:
            print(folder, kind.__name__, type(error).__name__)
        else:
            print(folder, kind.__name__, "LOADED")
assert "polyad" not in sys.modules
"""


def test_without_polyad_transformers_refuses(tmp_path):
    folders = [tmp_path / f"{change.__name__}-{kind}" for change in EVERY for kind in ("llama", "tied")]
    for folder in folders:
        name, kind = folder.name.split("-")
        model = tiny.model(kind)
        {change.__name__: change for change in EVERY}[name](model)
        model.save_pretrained(folder)
    tiny.model().save_pretrained(tmp_path / "whole")
    command = [sys.executable, "-c", PLAIN, *map(str, (*folders, tmp_path / "whole"))]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, 3 * len(folders) + 3), done.stderr[-2000:]
    assert [line for line in lines if line.endswith("LOADED")] == lines[-3:]
    assert {line.split()[2] for line in lines[:-3]} == {"RuntimeError"}
    assert "got polyad" in done.stderr  # transformers names the quantiser that it does not know


def test_the_configuration_says_in_which_format_the_folder_is(tmp_path):
    model = tiny.model()
    low_rank(model)
    model.save_pretrained(tmp_path / "out")
    stated = json.loads((tmp_path / "out" / "config.json").read_text())
    assert stated["model_type"] == "llama"
    assert (stated["quantization_config"]["quant_method"], stated["quantization_config"]["version"]) == ("polyad", 1)
    assert stated["quantization_config"]["modules"][UP]["layer"] == "Linear"


def test_large_models_are_written_in_several_files(tmp_path):
    model = tiny.model("tied")
    quantized(model)
    embedded(model)
    model.save_pretrained(tmp_path / "out", max_shard_size="20KB")
    assert (tmp_path / "out" / "model.safetensors.index.json").is_file()
    assert_same(load(tmp_path / "out"), model)


def test_ties_hold(tmp_path):
    model = tiny.model("tied")
    embedded(model)
    model.save_pretrained(tmp_path / "out")
    again = load(tmp_path / "out")
    assert again.lm_head.weight is again.model.embed_tokens.weight
    model = tiny.model("tied")
    low_rank(model)
    model.save_pretrained(tmp_path / "plain")
    again = load(tmp_path / "plain")
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_a_pipeline_continues_a_text(tmp_path):
    model = tiny.model()
    reduced(model)
    model.save_pretrained(tmp_path / "out")
    tiny.tokenizer().save_pretrained(tmp_path / "out")
    pipe = transformers.pipeline("text-generation", str(tmp_path / "out"))
    said = pipe("the import", max_new_tokens=6, do_sample=False)[0]["generated_text"]
    ids = tiny.tokenizer()("the import", return_tensors="pt").input_ids
    made = model.generate(ids, max_new_tokens=6, do_sample=False)[0]
    assert said == tiny.tokenizer().decode(made, skip_special_tokens=True)


@pytest.mark.parametrize("change", [low_rank, quantized, embedded], ids=lambda f: f.__name__)
def test_a_dtype_is_that_of_polyads_own_folders(change, tmp_path):
    model = tiny.model("tied")
    change(model)
    model.save_pretrained(tmp_path / "theirs")
    polyad.save(model, tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype=torch.bfloat16)
    assert_same_tensors(again, polyad.load(tmp_path / "ours", dtype=torch.bfloat16))
    assert tiny.logits(again).dtype == torch.bfloat16
    assert again.float().dtype == torch.float32
    half = model.bfloat16()
    half.save_pretrained(tmp_path / "half")
    assert_same_tensors(load(tmp_path / "half"), half)


def test_other_architectures(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    bert = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=50, **sizes)).eval()
    path = "bert.encoder.layer.0.intermediate.dense"
    bias = bert.get_submodule(path).bias.detach()
    replace(bert, {path: Linear(round_to_nearest(weight(bert, path), 4), bias)})
    mixture = tiny.mixture()
    path = "model.layers.0.self_attn.q_proj"
    replace(mixture, {path: Linear(svd(weight(mixture, path), 3))})
    ids = torch.arange(12)[None]
    for name, model, kind in (
        ("bert", bert, transformers.AutoModelForMaskedLM),
        ("mixture", mixture, transformers.AutoModelForCausalLM),
    ):
        model.save_pretrained(tmp_path / name)
        again, notes = kind.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not any(notes.values())
        with torch.no_grad():
            assert torch.equal(again(ids).logits, model(ids).logits)


def test_a_model_that_polyad_loaded_is_written_too(tmp_path):
    model = tiny.model()
    quantized(model)
    polyad.save(model, tmp_path / "ours")
    polyad.load(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    assert_same(load(tmp_path / "theirs"), model)
    before = {file.name: file.read_bytes() for file in (tmp_path / "ours").iterdir()}
    polyad.save(load(tmp_path / "theirs"), tmp_path / "again")
    after = {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()}
    assert after.keys() == before.keys()
    assert [name for name in after if name not in ("config.json", "README.md") and after[name] != before[name]] == []
    assert "quantization_config" not in json.loads(after["config.json"])


def test_what_was_undone_is_a_plain_model_again(tmp_path):
    model = tiny.model()
    before = set(vars(model))
    plan = polyad.plan(model, "svd:rank=4", select="*.mlp.*")
    undo = apply_with_undo(model, plan)
    other = replace(model, {"lm_head": Linear(svd(weight(model, "lm_head"), 4))})
    undo()
    assert isinstance(model.hf_quantizer, PolyadQuantizer)  # the head is still another
    model.save_pretrained(tmp_path / "head")
    assert_same(load(tmp_path / "head"), model)
    other()
    other()
    assert set(vars(model)) - {"_weight_conversions"} == before
    model.save_pretrained(tmp_path / "whole")
    assert "quantization_config" not in json.loads((tmp_path / "whole" / "config.json").read_text())
    assert torch.equal(tiny.logits(load(tmp_path / "whole")), tiny.logits(model))


def test_a_replacement_that_changes_nothing_leaves_a_plain_folder(tmp_path):
    model = tiny.model()
    replace(model, {UP: copy.deepcopy(model.get_submodule(UP))})
    model.save_pretrained(tmp_path / "out")
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_copies_and_pickles_are_written_as_the_model_is(tmp_path):
    model = tiny.model()
    low_rank(model)
    for name, other in (("copy", copy.deepcopy(model)), ("pickle", pickle.loads(pickle.dumps(model)))):
        other.save_pretrained(tmp_path / name)
        assert_same(load(tmp_path / name), model)


def test_a_quantiser_of_another_stays():
    model = tiny.model()
    model.hf_quantizer = another = object()
    assert attach_quantizer(model) == [model.model]
    assert model.hf_quantizer is another
    assert attach_quantizer(nn.Linear(2, 2)) == []


def test_a_folder_without_its_numbers_is_refused(tmp_path):
    model = tiny.model()
    low_rank(model)
    model.save_pretrained(tmp_path / "out")
    tiny.model().save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "out" / "model.safetensors")
    with pytest.raises(ValueError, match=rf"no numbers were found for {UP}\.weight\.left, .* in .*; copy it again"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_what_is_pushed_to_the_hub_loads(tmp_path, monkeypatch):
    model = tiny.model()
    quantized(model)

    def record(self, working_dir, *_args, **_more):
        shutil.copytree(working_dir, tmp_path / "pushed")

    class Repository:
        def create_repo(self, repo_id, **_more):
            return type("Url", (), {"repo_id": repo_id})

    monkeypatch.setattr(hub.PushToHubMixin, "_upload_modified_files", record)
    monkeypatch.setattr(hub, "hf_api", lambda: Repository())
    monkeypatch.setattr(hub, "create_and_tag_model_card", lambda *_args, **_more: type("Card", (), {"save": print}))
    model.push_to_hub("someone/smaller")
    assert sorted(file.name for file in (tmp_path / "pushed").iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors",
    ]  # fmt: skip
    assert_same(load(tmp_path / "pushed"), model)


def rows(count=16):
    return [{"input_ids": ids, "labels": ids} for ids in tiny.ids(count, 12)]


def trainer(model, folder, steps, callbacks=()):
    asked = transformers.TrainingArguments(
        str(folder), max_steps=steps, save_steps=3, use_cpu=True, logging_steps=1, **FOR_TRAINING
    )
    return transformers.Trainer(model, asked, train_dataset=rows(), callbacks=list(callbacks))


@pytest.mark.parametrize("kind", ["llama", "tied"])
def test_a_training_goes_on_from_a_trainers_checkpoint(kind, tmp_path):
    def fresh():
        model = tiny.model(kind)
        low_rank(model)
        embedded(model)
        return model

    whole = fresh()
    trainer(whole, tmp_path / "whole", 6).train()
    trainer(fresh(), tmp_path / "part", 3).train()
    checkpoint = tmp_path / "part" / "checkpoint-3"
    resumed = load(checkpoint)
    trainer(resumed, tmp_path / "again", 6).train(str(checkpoint))
    assert_same(resumed.eval(), whole.eval())
    assert not torch.equal(tiny.logits(load(checkpoint)), tiny.logits(whole))
    assert_same(load(tmp_path / "whole" / "checkpoint-6"), whole)


def test_adapters_that_stand_on_compressed_layers_are_refused_and_not_misread(tmp_path):
    model = tiny.model()
    low_rank(model)
    Adapters(model).attach("a", UP, LoRA, rank=2)
    model.save_pretrained(tmp_path / "out")
    with pytest.raises(RuntimeError):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_the_decoder_of_a_model_is_written_too(tmp_path):
    model = tiny.model()
    quantized(model)
    model.save_pretrained(tmp_path / "whole")
    for name, one in (("first", model), ("second", load(tmp_path / "whole"))):
        one.model.save_pretrained(tmp_path / name)
        again = transformers.AutoModel.from_pretrained(tmp_path / name)
        ids = tiny.ids()
        with torch.no_grad():
            assert torch.equal(again(ids).last_hidden_state, model.model(ids).last_hidden_state)


def test_a_training_of_adapters_on_a_compressed_model_goes_on(tmp_path):
    def fresh():
        model = tiny.model()
        low_rank(model)
        adapters = Adapters(model)
        adapters.attach("a", "*.mlp.*", LoRA, rank=2, seed=0)
        return model, trainer_callback(adapters)

    (whole, callback), (part, other) = fresh(), fresh()
    trainer(whole, tmp_path / "whole", 6, [callback]).train()
    trainer(part, tmp_path / "part", 3, [other]).train()
    resumed, callback = fresh()
    trainer(resumed, tmp_path / "again", 6, [callback]).train(str(tmp_path / "part" / "checkpoint-3"))
    assert torch.equal(tiny.logits(resumed.eval()), tiny.logits(whole.eval()))


DESCRIBED = ("quantization_config", "modules", UP)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("quantization_config", "wrapped"), True),
        (("quantization_config", "ties"), {"a": 1}),
        (("quantization_config", "dtype"), 3),
        (DESCRIBED, None),
        (DESCRIBED, {}),
        ((*DESCRIBED, "layer"), {}),
        ((*DESCRIBED, "weight"), None),
        ((*DESCRIBED, "bias"), "yes"),
        ((*DESCRIBED, "weight", "fields", "zero"), 2**70),
    ],
)
def test_a_damaged_description_is_refused_in_words(path, value, tmp_path):
    model = tiny.model()
    quantized(model)
    model.save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "config.json"
    config = json.loads(file.read_text())
    inside = config
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    file.write_text(json.dumps(config))
    for read in (transformers.AutoModelForCausalLM.from_pretrained, polyad.load):
        with pytest.raises(ValueError, match=r"copy (it|the folder|the file) again"):
            read(tmp_path / "saved")
