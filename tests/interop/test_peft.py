"""Folders of peft's, read and written, beside peft itself."""

import json

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftModel, VeraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

import tiny
from polyad.adapters import AdaLoRA, Adapters, DoRA, LoHa, LoKr, LoRA, PiSSA, VeRA
from polyad.interop.peft import from_peft, is_peft, to_peft


class Net(nn.Module):
    """A layer of each kind that peft adapts; the linear layers have one length or another."""

    def __init__(self):
        super().__init__()
        self.words, self.conv = nn.Embedding(11, 8), nn.Conv2d(8, 12, (3, 1), padding=(1, 0))
        self.wave = nn.Conv1d(12, 12, 3, padding=1)
        self.first, self.second, self.turned = nn.Linear(12, 16), nn.Linear(16, 8, bias=False), Conv1D(6, 8)

    def forward(self, ids):
        x = self.wave(self.conv(self.words(ids).mT[..., None])[..., 0]).mT
        return self.turned(torch.tanh(self.second(torch.tanh(self.first(x)))))


LINEAR = ["first", "second"]
ALL = ["words", "conv", "wave", "first", "second"]
CASES = {
    "lora": (LoraConfig, {"r": 3, "lora_alpha": 7, "target_modules": ALL}),
    "patterns": (
        LoraConfig,
        {"r": 3, "lora_alpha": 7, "target_modules": ALL, "use_rslora": True, "lora_dropout": 0.3,
         "rank_pattern": {"first": 2}, "alpha_pattern": {"^second": 5}},
    ),
    "turned": (LoraConfig, {"r": 2, "target_modules": ["turned"], "fan_in_fan_out": True}),
    "dora": (LoraConfig, {"r": 2, "lora_alpha": 3, "use_dora": True, "target_modules": ["conv", "wave", *LINEAR]}),
    "loha": (LoHaConfig, {"r": 2, "alpha": 3, "target_modules": ["conv", "wave", *LINEAR]}),
    "lokr": (LoKrConfig, {"r": 100, "alpha": 30, "decompose_factor": 4, "target_modules": ["conv", *LINEAR]}),
    "lokr-thin": (LoKrConfig, {"r": 1, "alpha": 3, "decompose_both": True, "target_modules": ALL[1:]}),
    "vera": (VeraConfig, {"r": 20, "target_modules": LINEAR}),
    "vera-drawn": (
        VeraConfig, {"r": 5, "target_modules": LINEAR, "save_projection": False, "projection_prng_key": 3},
    ),
}  # fmt: skip
KINDS = {"patterns": LoRA, "turned": LoRA, "lora": LoRA, "dora": DoRA, "loha": LoHa, "lokr": LoKr, "vera": VeRA}
IDS = torch.randint(0, 11, (3, 5), generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    made = Net().eval()
    nn.init.normal_(made.turned.weight)
    return made


@pytest.fixture
def theirs(tmp_path):
    """Makes a folder with peft: (the folder, what its model gives)."""

    def make(case):
        config, how = CASES[case]
        model = get_peft_model(net(), config(**how))
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    noise = torch.randn(parameter.shape) * 0.3
                    parameter.copy_(parameter * (1 + noise) if "magnitude" in name else noise)
        model.save_pretrained(tmp_path / case)
        return tmp_path / case, model.eval()(IDS)

    return make


@pytest.mark.parametrize("case", CASES)
def test_what_peft_wrote_computes_what_it_did(case, theirs, tmp_path):
    folder, expected = theirs(case)
    assert is_peft(folder)
    model = net()
    assert float((model(IDS) - expected).detach().abs().max()) > 0.05
    adapters = Adapters(model)
    assert from_peft(adapters, folder, "theirs") == "theirs"
    torch.testing.assert_close(model(IDS), expected, rtol=1e-5, atol=1e-5)
    held = list(adapters.of("theirs").values())
    assert {type(adapter) for adapter in held} == {KINDS[case.partition("-")[0]]}
    assert all(p.requires_grad for adapter in held for p in adapter.parameters())
    adapters.save("theirs", tmp_path / "ours")
    fresh = net()
    Adapters(fresh).load(tmp_path / "ours")
    assert torch.equal(fresh(IDS), model(IDS))
    adapters.detach("theirs")
    assert torch.equal(model(IDS), net()(IDS))


def test_dropout_and_ranks_of_patterns_are_kept(theirs):
    folder, _ = theirs("patterns")
    adapters = Adapters(net())
    from_peft(adapters, folder)
    first, second = adapters.of("peft")["first"], adapters.of("peft")["second"]
    assert (len(first.A), len(second.A)) == (2, 3)
    assert first.scale == pytest.approx(7 / 2**0.5)
    assert second.scale == pytest.approx(5 / 3**0.5)


def drawn(method, which, **given):
    model = net()
    adapters = Adapters(model)
    adapters.attach("a", which, method, of=("linear", "conv", "embedding"), **given)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in adapters.parameters("a"):
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model, adapters


@pytest.mark.parametrize(
    ("method", "which", "given"),
    [
        (LoRA, [*ALL], {"rank": {"first": 2, "*": 3}, "alpha": 5.0}),
        (LoRA, ["turned"], {"rank": 2}),
        (LoRA, ["first", "second"], {"rank": 2, "parts": {"first": [(0, 4), (10, 16)]}}),
        (AdaLoRA, LINEAR, {"rank": 2, "spare": 1}),
        (PiSSA, LINEAR, {"rank": 2}),
        (VeRA, LINEAR, {"rank": 4}),
    ],
)
def test_low_rank_updates_are_written_exactly(method, which, given, tmp_path):
    model, adapters = drawn(method, which, **given)
    errors = to_peft(adapters, "a", tmp_path / "out")
    assert errors == dict.fromkeys(dict.fromkeys(key.partition("[")[0] for key in adapters.of("a")), 0.0)
    theirs = PeftModel.from_pretrained(net(), tmp_path / "out").eval()
    torch.testing.assert_close(theirs(IDS), model(IDS), rtol=1e-5, atol=1e-5)
    again = net()
    from_peft(Adapters(again), tmp_path / "out")
    torch.testing.assert_close(again(IDS), model(IDS), rtol=1e-5, atol=1e-5)


def test_factors_that_layers_share_are_written_for_each(tmp_path):
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    adapters = Adapters(model)
    adapters.attach("a", "*", VeRA, rank=3)
    with torch.no_grad():
        for parameter in adapters.parameters("a"):
            parameter.add_(0.5)
    assert to_peft(adapters, "a", tmp_path / "out") == {"0": 0.0, "1": 0.0}
    x, expected = torch.ones(1, 6), model(torch.ones(1, 6))
    adapters.detach("a")
    assert float((model(x) - expected).detach().abs().max()) > 1e-3
    torch.testing.assert_close(PeftModel.from_pretrained(model, tmp_path / "out").eval()(x), expected)


@pytest.mark.parametrize(("method", "given"), [(DoRA, {"rank": 2}), (LoKr, {"factor": 4}), (LoHa, {"rank": 3})])
def test_other_updates_are_cut_at_the_error_that_is_told(method, given, tmp_path):
    model, adapters = drawn(method, LINEAR, **given)
    with pytest.raises(
        ValueError,
        match=r"the update of first is no low-rank format, which is all that peft's LoRA holds; give rank=",
    ):
        to_peft(adapters, "a", tmp_path / "out")
    whole = to_peft(adapters, "a", tmp_path / "whole", rank=16)
    assert max(whole.values()) < 1e-6
    theirs = PeftModel.from_pretrained(net(), tmp_path / "whole").eval()
    torch.testing.assert_close(theirs(IDS), model(IDS), rtol=1e-4, atol=1e-5)
    cut = to_peft(adapters, "a", tmp_path / "cut", rank=2)
    tensors = load_file(tmp_path / "cut" / "adapter_model.safetensors")
    adapter, site = adapters.of("a")["second"], adapters.layers()["second"]
    update = site.base.dense(adapter.update(site.base)).detach() * adapter.scale
    A, B = (tensors[f"base_model.model.second.lora_{half}.weight"] for half in "AB")
    assert cut["second"] == pytest.approx(float((update - B @ A).norm() / update.norm()), rel=1e-4)
    values = torch.linalg.svdvals(update)
    assert cut["second"] == pytest.approx(float(values[2:].norm() / values.norm()), rel=1e-4)


def changed(folder, tensors=None, **how):
    """The folder with other settings or tensors."""
    config = folder / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **how}))
    if tensors is not None:
        save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"peft_type": "BOFT"}, "the type BOFT; readable are LORA, LOHA, LOKR, VERA, IA3, OFT; put it into the"),
        ({"bias": "some"}, "trained with bias='some', which peft does not write"),
        ({"lora_bias": True}, "made with lora_bias=True, which is not read"),
        ({"layer_replication": [[0, 1]]}, "made with layer_replication"),
        ({"init_lora_weights": "pissa_niter_4"}, "also changes the weights adapted; save it as an ordinary LoRA"),
    ],
)
def test_settings_that_are_not_read_are_refused(how, said, theirs):
    folder, _ = theirs("lora")
    model = net()
    with pytest.raises(ValueError, match=said):
        from_peft(Adapters(model), changed(folder, **how))
    assert torch.equal(model(IDS), net()(IDS))


def test_a_kronecker_product_that_peft_lays_out_otherwise_is_refused(tmp_path):
    made = get_peft_model(net(), LoKrConfig(r=100, decompose_factor=4, target_modules=["wave"]))
    made.save_pretrained(tmp_path / "wave")
    with pytest.raises(ValueError, match=r"second factor of wave has shape \(3, 3, 3\), .* no Kronecker product"):
        from_peft(Adapters(net()), tmp_path / "wave")


def test_copies_of_the_models_own_embeddings_are_no_hindrance(tmp_path):
    config = LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"], init_lora_weights=False)
    theirs = get_peft_model(tiny.model("tied"), config).eval()
    theirs.save_pretrained(tmp_path / "lora")
    key = "base_model.model.model.embed_tokens.base_layer.weight"
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    model = tiny.model("tied").eval()
    from_peft(Adapters(model), tmp_path / "lora")
    torch.testing.assert_close(model(tiny.ids()).logits, theirs(tiny.ids()).logits, rtol=1e-4, atol=1e-4)
    for other in (tensors[key] + 1, tensors[key][:9]):
        folder = changed(tmp_path / "lora", {**tensors, key: other.clone()})
        with pytest.raises(ValueError, match=r"weight of its own for model.embed_tokens, .* not the model's"):
            from_peft(Adapters(tiny.model("tied")), folder)


def test_a_convolution_of_groups_is_refused_by_name(tmp_path):
    grouped = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2))
    get_peft_model(grouped, LoraConfig(r=4, target_modules=["0"])).save_pretrained(tmp_path / "lora")
    with pytest.raises(ValueError, match="0 is a convolution of 2 groups, in which peft's LoRA"):
        from_peft(Adapters(nn.Sequential(nn.Conv2d(8, 8, 3, groups=2))), tmp_path / "lora")


def test_folders_that_do_not_fit_are_refused(theirs, tmp_path):
    folder, _ = theirs("lora")
    tensors = load_file(folder / "adapter_model.safetensors")
    key = "base_model.model.first.lora_A.weight"
    lost = {k: t for k, t in tensors.items() if k != key}
    for other, said in (
        (lost, r"first lacks the tensors \['lora_A'\]"),
        ({**tensors, "base_model.model.first.weight": torch.ones(2)}, "first.weight is no part of an adapter"),
        (
            {**tensors, key: tensors[key][:, :4].clone()},
            r"first needs A of shape \(3, 12\) and the folder holds \(3, 4\)",
        ),
        ({**tensors, key: tensors[key] / 0}, "NaN or infinite"),
        ({"base_model.model.other.lora_A.weight": torch.ones(2, 2)}, "adapts other, which this model does not have"),
    ):
        model = net()
        with pytest.raises(ValueError, match=said):
            from_peft(Adapters(model), changed(folder, other))
        assert not Adapters(model).names
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ValueError, match="a pickle is not read"):
        from_peft(Adapters(net()), folder)
    with pytest.raises(ValueError, match="holds no adapter of peft's"):
        from_peft(Adapters(net()), tmp_path / "none")


def test_a_folder_of_pefts_is_put_on_by_the_command_line(polyad_command, tiny_folder, tiny_text, tmp_path):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder)
    made = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    made.save_pretrained(tmp_path / "lora")
    told = ("evaluate", tiny_folder, "--text", tiny_text, "--windows", 1, "--json")
    plain, adapted = (json.loads(polyad_command(*told, *more)[1])["perplexity"]["topics"]["perplexity"]
                      for more in ((), ("--adapter", tmp_path / "lora")))  # fmt: skip
    assert abs(adapted / plain - 1) > 0.01
