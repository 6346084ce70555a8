"""Modules and biases that peft trains whole, read and written beside peft itself; attached, saved and merged."""

import copy
import json
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, VeraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, DistilBertConfig, DistilBertModel

from polyad import save
from polyad.adapters import Adapters, LoRA, combine
from polyad.adapters.training.loop import train
from polyad.interop.peft import from_peft, to_peft

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
         "vocab_size": 50}  # fmt: skip
IDS = torch.randint(1, 50, (4, 6), generator=torch.Generator().manual_seed(0))
OTHER = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 50}
PEFT = {
    "head": (LoraConfig, {"r": 2, "target_modules": ["query"], "task_type": "SEQ_CLS"}),
    "all biases": (LoraConfig, {"r": 2, "target_modules": ["query"], "bias": "all"}),
    "head and all biases": (LoraConfig, {"r": 2, "target_modules": ["query"], "bias": "all", "task_type": "SEQ_CLS"}),
    "own biases": (LoraConfig, {"r": 2, "target_modules": ["query", "dense"], "bias": "lora_only"}),
    "norms": (LoraConfig, {"r": 2, "target_modules": ["query"], "modules_to_save": ["LayerNorm", "classifier"]}),
    "embedding": (LoraConfig, {"r": 2, "target_modules": ["query"], "modules_to_save": ["word_embeddings"]}),
    "both named": (
        LoraConfig, {"r": 2, "target_modules": ["query", "classifier"], "modules_to_save": ["classifier"]},
    ),
    "vera": (VeraConfig, {"r": 4, "target_modules": ["query"], "modules_to_save": ["pooler", "classifier"]}),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with an encoder without a head."""
    torch.manual_seed(0)
    BertModel(BertConfig(**SMALL)).save_pretrained(tmp_path_factory.mktemp("base") / "bert")
    return tmp_path_factory.getbasetemp() / "base0" / "bert"


def classifier(folder, seed=0):
    """The encoder with a random head of three classes."""
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()


def hosted(folder, name="mine", **how):
    host = Adapters(classifier(folder))
    host.attach(name, "*query", LoRA, rank=2, **how)
    return host


def shift(parameters, seed=1):
    """Move the numbers of parameters, so that all that is trained differs from where it began."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.3)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("case", PEFT)
def test_what_peft_trains_whole_is_read(base, tmp_path, case):
    config, how = PEFT[case]
    model = get_peft_model(classifier(base), config(**how))
    shift(p for p in model.parameters() if p.requires_grad)
    model.save_pretrained(tmp_path / "theirs")
    ours = classifier(base)
    before = logits(ours)
    host = Adapters(ours)
    from_peft(host, tmp_path / "theirs")
    close(logits(ours), logits(model.eval()))
    host.detach("peft")
    assert torch.equal(logits(ours), before)


@pytest.mark.parametrize("case", [case for case in PEFT if case != "vera"])
def test_what_is_read_is_written_for_peft_and_saved_here(base, tmp_path, case):
    config, how = PEFT[case]
    model = get_peft_model(classifier(base), config(**how))
    shift(p for p in model.parameters() if p.requires_grad)
    model.save_pretrained(tmp_path / "theirs")
    expected = logits(model.eval())
    host = Adapters(classifier(base))
    from_peft(host, tmp_path / "theirs")
    to_peft(host, "peft", tmp_path / "again")
    seed = 0 if case in ("all biases", "own biases", "embedding") else 5  # of those the head was not trained
    close(logits(PeftModel.from_pretrained(classifier(base, seed=seed), tmp_path / "again").eval()), expected)
    host.save("peft", tmp_path / "ours")
    other = classifier(base, seed=seed)
    Adapters(other).load(tmp_path / "ours")
    close(logits(other), expected)


def test_names_that_end_alike_are_saved_as_peft_finds_them(tmp_path):
    torch.manual_seed(0)
    DistilBertModel(DistilBertConfig(**OTHER)).save_pretrained(tmp_path / "base")
    model = get_peft_model(
        classifier(tmp_path / "base"), LoraConfig(r=2, target_modules=["q_lin"], task_type="SEQ_CLS")
    )
    shift(p for p in model.parameters() if p.requires_grad)
    model.save_pretrained(tmp_path / "theirs")
    host = Adapters(classifier(tmp_path / "base", seed=5))
    from_peft(host, tmp_path / "theirs")
    assert {key.rpartition(".")[0] for key in host.trained("peft")} == {
        "trained.classifier",
        "trained.pre_classifier",
    }
    close(logits(host.model), logits(model.eval()))
    host = Adapters(classifier(tmp_path / "base"))
    host.attach("mine", "*q_lin", LoRA, rank=2, trained="classifier")
    shift(host.parameters("mine"))
    to_peft(host, "mine", tmp_path / "ours")
    close(
        logits(PeftModel.from_pretrained(classifier(tmp_path / "base", seed=5), tmp_path / "ours")),
        logits(host.model),
    )


def test_a_folder_that_does_not_fit_is_refused(base, tmp_path):
    model = get_peft_model(classifier(base), LoraConfig(**PEFT["head"][1]))
    model.save_pretrained(tmp_path / "theirs")
    wide = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
    with pytest.raises(ValueError, match=r"classifier.weight has shape \(4, 16\) here and \(3, 16\) .*num_labels="):
        from_peft(Adapters(wide), tmp_path / "theirs")
    with pytest.raises(
        ValueError, match=r"this model has no place for classifier\.(weight|bias)|which this model does not"
    ):
        from_peft(Adapters(BertModel.from_pretrained(base)), tmp_path / "theirs")


def test_what_peft_cannot_hold_is_refused(base, tmp_path):
    host = hosted(base, trained="*LayerNorm.weight")
    with pytest.raises(ValueError, match=r"trains bert.embeddings.LayerNorm.weight alone, and peft trains whole"):
        to_peft(host, "mine", tmp_path / "out")
    host = hosted(base, trained=("*query.bias", "*pooler.dense.bias"))
    shift(host.parameters("mine"))
    to_peft(host, "mine", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["bias"] == "all"
    assert "base_model.model.bert.pooler.dense.bias" in load_file(tmp_path / "out" / "adapter_model.safetensors")
    close(logits(PeftModel.from_pretrained(classifier(base), tmp_path / "out")), logits(host.model))


def test_a_random_head_that_is_frozen_is_warned_about(base):
    with pytest.warns(UserWarning, match=r"classifier has random numbers.*trained=\('classifier',\)"):
        host = hosted(base)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        host.detach("mine")
        host.attach("mine", "*query", LoRA, rank=2, trained="classifier")
        Adapters(BertModel.from_pretrained(base)).attach("mine", "*query", LoRA, rank=2)
        Adapters(BertModel(BertConfig(**SMALL))).attach("mine", "*query", LoRA, rank=2)


def test_a_head_is_trained_saved_switched_and_merged(base, tmp_path):
    host = hosted(base, "one", trained="classifier")
    model, random = host.model, logits(host.model)
    learned = train(host, "one", lambda _: (model(IDS).logits - 1).square().mean(), steps=20, rate=0.02)
    assert learned.losses[-1] < 0.5 * learned.losses[0]
    trained = logits(model)
    host.activate([])
    assert torch.equal(logits(model), random)
    host.attach("two", "*value", LoRA, rank=1, trained=["classifier", "*LayerNorm.bias"])
    shift(host.parameters("two"))
    second = logits(model)
    host.activate("one")
    assert torch.equal(logits(model), trained)
    host.activate("two")
    assert torch.equal(logits(model), second)
    assert not torch.equal(second, trained)
    copied = copy.deepcopy(model)
    shift(host.parameters("two"), seed=2)
    assert torch.equal(logits(copied), second)
    twin = Adapters(copied)
    twin.activate("one")
    assert torch.equal(logits(copied), trained)
    host.save("one", tmp_path / "one")  # while another acts
    again = Adapters(classifier(base, seed=5))
    again.load(tmp_path / "one")
    assert torch.equal(logits(again.model), trained)
    again.merge(keep=False)
    close(logits(again.model), trained)
    assert (again.names, all(p.requires_grad for p in again.model.parameters())) == ([], True)
    save(again.model, tmp_path / "merged")
    close(logits(AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")), trained)
    host.detach("two")
    host.detach("one")
    assert torch.equal(logits(model), random)
    assert all(p.requires_grad for p in model.parameters())


def test_a_training_goes_on_with_its_head(base, tmp_path):
    def run(state, stop=None):
        host = hosted(base, trained="classifier")

        def loss(step):
            if step == stop:
                raise KeyboardInterrupt
            return (host.model(IDS).logits - 1).square().mean()

        train(host, "mine", loss, steps=6, rate=0.02, state=tmp_path / state, every=2)
        return logits(host.model)

    with pytest.raises(KeyboardInterrupt):
        run("killed", stop=5)
    assert torch.equal(run("killed"), run("whole"))


def test_what_cannot_be_trained_whole_is_refused_and_leaves_the_model(base):
    host = hosted(base, "one", trained="classifier")
    before = logits(host.model)
    for how, said in (
        ({"trained": "clasifier"}, "their paths look like classifier"),
        ({"trained": 3}, "give paths or patterns"),
        ({"trained": "*dropout"}, "modules without parameters"),
        (
            {"trained": "*.query"},
            "names every layer that was chosen, such as bert.encoder.layer.0.attention.self.q",
        ),
        ({"trained": "classifier"}, "'one' and 'two' both train classifier.weight, so that one of them can act"),
    ):
        with pytest.raises((ValueError, TypeError), match=said):
            host.attach("two", "*query", LoRA, rank=2, **how)
        assert host.names == ["one"]
        assert torch.equal(logits(host.model), before)
    with pytest.raises(ValueError, match=r"'one' trains classifier.weight whole, which takes no weight"):
        host.activate({"one": 0.5})
    with pytest.raises(ValueError, match=r"'one' trains classifier.weight whole, and a LoRA holds no such sum"):
        combine(host, "sum", {"one": 1.0}, rank=1)
    with pytest.raises(ValueError, match="routed"), host.routed(["one", None, None, "one"]):
        pass
    assert torch.equal(logits(host.model), before)


def test_a_tied_head_is_refused_unless_asked_for(base, tmp_path):
    import tiny

    model = tiny.model("tied")
    host = Adapters(model)
    with pytest.raises(ValueError, match=r"lm_head.weight, which another module shares; with tied=True"):
        host.attach("mine", "*q_proj", LoRA, rank=2, trained="lm_head")
    host.attach("mine", "*q_proj", LoRA, rank=2, trained="lm_head", tied=True)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    host.detach("mine")
    assert model.lm_head.weight is model.model.embed_tokens.weight
