"""IA3 and OFT in folders of peft's, read, merged and trained, beside peft itself."""

import json

import pytest
import torch
import transformers
from peft import IA3Config, OFTConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from polyad.adapters import IA3, OFT, Adapters, LoRA, combine, diagnose
from polyad.interop.peft import from_peft, to_peft

IDS = torch.randint(0, 11, (3, 5), generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Layers of the kinds that either method has, with biases that are not zero and without."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.conv, self.point = nn.Embedding(11, 8), nn.Conv2d(8, 12, (3, 1)), nn.Conv2d(12, 12, 1)
        self.first, self.second, self.turned = nn.Linear(12, 16), nn.Linear(16, 8, bias=False), Conv1D(6, 8)
        nn.init.normal_(self.turned.weight)
        nn.init.normal_(self.turned.bias)

    def forward(self, ids):
        x = self.point(torch.tanh(self.conv(self.words(ids).mT[..., None])))[..., 0].mT
        return self.turned(torch.tanh(self.second(torch.tanh(self.first(x)))))


def ia3(ahead, **how):
    return IA3Config(target_modules=["conv", "first", "second"], feedforward_modules=ahead, **how)


def oft(**how):
    return OFTConfig(**{"target_modules": ["words", "point", "first", "second"], "r": 0, "oft_block_size": 4, **how})


CASES = {
    "ia3": (lambda: ia3([]), IA3),
    "ia3-ahead": (lambda: ia3(["conv", "second"]), IA3),
    "ia3-pattern": (lambda: ia3("(first|conv)"), IA3),
    "ia3-turned": (
        lambda: IA3Config(target_modules=["turned", "second"], feedforward_modules=["second"], fan_in_fan_out=True),
        IA3,
    ),
    "ia3-turned-ahead": (
        lambda: IA3Config(target_modules=["turned"], feedforward_modules=["turned"], fan_in_fan_out=True), IA3,
    ),
    "oft": (oft, OFT),
    "oft-solved": (lambda: oft(use_cayley_neumann=False), OFT),
    "oft-shared": (lambda: oft(block_share=True), OFT),
    "oft-count": (lambda: oft(r=2, oft_block_size=0, use_cayley_neumann=False), OFT),
    "oft-two": (lambda: oft(num_cayley_neumann_terms=2), OFT),
    "oft-three": (lambda: oft(num_cayley_neumann_terms=3), OFT),
    "oft-four": (lambda: oft(num_cayley_neumann_terms=4), OFT),
    "oft-seven": (lambda: oft(num_cayley_neumann_terms=7), OFT),
    "oft-limited": (lambda: oft(coft=True, eps=0.6), OFT),
    "oft-limited-shared": (lambda: oft(coft=True, eps=0.6, block_share=True, use_cayley_neumann=False), OFT),
    "oft-dropout": (lambda: oft(module_dropout=0.5), OFT),
}  # fmt: skip


def made(case, folder):
    """A model of peft's with random numbers in its adapter, written to a folder."""
    model = get_peft_model(Net(), CASES[case][0]()).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("case", CASES)
def test_what_peft_wrote_computes_and_merges_as_it_does(case, tmp_path):
    theirs = made(case, tmp_path / "peft")
    model, plain = Net(), Net()
    adapters = Adapters(model)
    from_peft(adapters, tmp_path / "peft")
    assert {type(adapter) for adapter in adapters.of("peft").values()} == {CASES[case][1]}
    expected = theirs(IDS)
    assert float((expected - plain(IDS)).detach().abs().max()) > 0.02
    torch.testing.assert_close(model(IDS), expected, rtol=1e-5, atol=1e-5)
    adapters.save("peft", tmp_path / "ours")
    fresh = Net()
    Adapters(fresh).load(tmp_path / "ours")
    assert torch.equal(fresh(IDS), model(IDS))
    adapters.merge()
    torch.testing.assert_close(model(IDS), expected, rtol=1e-5, atol=1e-5)
    merged = dict(theirs.merge_and_unload().named_parameters())
    for name, parameter in model.named_parameters():
        if "adapters" not in name:
            torch.testing.assert_close(
                parameter, merged[name], rtol=1e-5, atol=1e-6, msg=lambda m, name=name: name + m
            )
    adapters.unmerge()
    adapters.detach("peft")
    assert torch.equal(model(IDS), plain(IDS))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("case", ["ia3-ahead", "oft-solved", "oft-shared", "oft-limited"])
def test_gradients_are_those_of_peft(case, tmp_path):
    theirs = made(case, tmp_path / "peft")
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_("ia3_l" in name or "oft_" in name)
    model = Net()
    adapters = Adapters(model)
    from_peft(adapters, tmp_path / "peft")
    theirs(IDS).square().sum().backward()
    model(IDS).square().sum().backward()
    expected = {n.removeprefix("base_model.model."): p.grad for n, p in theirs.named_parameters() if p.requires_grad}
    for path, adapter in adapters.of("peft").items():
        grad = next(g for n, g in expected.items() if n.startswith(f"{path}."))
        one = next(iter(adapter.parameters())).grad
        sign = 1 if case == "ia3-ahead" or (path == "words") == (case != "oft-solved") else -1
        torch.testing.assert_close(one.flatten(), sign * grad.flatten(), rtol=1e-4, atol=1e-5)


def test_a_wide_kernel_under_oft_is_refused(tmp_path):
    get_peft_model(Net(), oft(target_modules=["conv"])).save_pretrained(tmp_path / "peft")
    with pytest.raises(ValueError, match=r"conv is a convolution with the kernel \(3, 1\) .* cannot be read"):
        from_peft(Adapters(Net()), tmp_path / "peft")


def test_groups_whose_inputs_ia3_scales_are_refused(tmp_path):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(4, 6, 3, groups=2))

    for ahead in ([], ["0"]):
        theirs = get_peft_model(model(), IA3Config(target_modules=["0"], feedforward_modules=ahead)).eval()
        nn.init.normal_(theirs.base_model.model[0].ia3_l["default"])
        theirs.save_pretrained(tmp_path / f"peft{len(ahead)}")
        fresh, x = model(), torch.ones(1, 4, 5, 5)
        if ahead:
            with pytest.raises(ValueError, match="0 is a convolution of groups, whose inputs"):
                from_peft(Adapters(fresh), tmp_path / "peft1")
        else:
            from_peft(Adapters(fresh), tmp_path / "peft0")
            torch.testing.assert_close(fresh(x), theirs(x))


@pytest.mark.parametrize(
    ("case", "key", "tensor", "said"),
    [
        ("ia3", "first.ia3_l", torch.ones(12, 1), r"first needs factors of shape \(16,\) .* ia3_l \(12, 1\)"),
        ("ia3", "first.ia3_l", torch.ones(16), r"first has ia3_l of shape \(16,\), which is no matrix"),
        ("oft", "first.oft_R.weight", torch.ones(3, 5), r"first has oft_R of shape \(3, 5\)"),
        ("oft", "first.oft_R.weight", torch.ones(2, 6), r"first has oft_R of shape \(2, 6\), .* have \(3, 6\)"),
        ("oft", "first.oft_r", torch.ones(2, 6), r"first has the tensors \['oft_r'\] too, which are"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(case, key, tensor, said, tmp_path):
    made(case, tmp_path / "peft")
    file = tmp_path / "peft" / "adapter_model.safetensors"
    save_file({**load_file(file), f"base_model.model.{key}": tensor}, file)
    model = Net()
    with pytest.raises(ValueError, match=said):
        from_peft(Adapters(model), tmp_path / "peft")
    assert type(model.first) is nn.Linear


def test_a_changed_bias_is_merged_and_is_in_no_change_of_a_weight(tmp_path):
    made("ia3", tmp_path / "peft")
    model = Net()
    adapters = Adapters(model)
    from_peft(adapters, tmp_path / "peft")
    adapters.attach("other", "*first", LoRA, rank=2)
    nn.init.normal_(adapters.of("other")["first"].B)
    for ask in ({"peft": 0.5}, {"peft": 2.0, "other": -1.0}):
        adapters.activate(ask)
        expected = model(IDS)
        adapters.merge()
        torch.testing.assert_close(model(IDS), expected, rtol=1e-5, atol=1e-5)
        adapters.unmerge()
    with pytest.raises(ValueError, match="'peft' changes the bias of conv too"):
        to_peft(adapters, "peft", tmp_path / "lora", rank=8)
    with pytest.raises(ValueError, match="'peft' changes the bias of conv too"):
        combine(adapters, "sum", {"peft": 1.0}, rank=2)
    assert not (tmp_path / "lora").exists()
    assert diagnose(adapters, "peft")["first"]["drift"] > 0


def test_parts_and_rows_have_their_own_biases():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 6)), torch.randn(3, 4)
    adapters = Adapters(model)
    adapters.attach("a", "0", IA3, parts={"0": [(1, 3)]})
    with torch.no_grad():
        adapters.of("a")["0[1:3]"].factors.copy_(torch.tensor([2.0, -1.0]))
    expected = nn.functional.linear(x, model[0].weight, model[0].bias) * torch.tensor([1, 2, -1, 1, 1, 1.0])
    torch.testing.assert_close(model(x), expected)
    with adapters.routed(["a", None, "a"]):
        torch.testing.assert_close(model(x)[::2], expected[::2])
    adapters.merge()
    torch.testing.assert_close(model(x), expected)


def test_a_radius_is_kept_by_training(tmp_path):
    made("oft-limited", tmp_path / "peft")
    model = Net()
    adapters = Adapters(model)
    from_peft(adapters, tmp_path / "peft")
    optimiser = torch.optim.SGD(adapters.parameters("peft"), lr=10.0)
    model(IDS).square().sum().backward()
    optimiser.step()
    adapters.after_step(0, 1)
    for adapter in adapters.of("peft").values():
        norms = adapter.skew.norm(dim=1) * 2**0.5
        assert float(norms.max()) <= 0.6 / len(adapter.skew) ** 0.5 * (1 + 1e-5)


def test_models_of_transformers_with_defaults_of_peft(tmp_path):
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=50, attention_bias=True,
    )  # fmt: skip

    def model():
        torch.manual_seed(0)
        llama = transformers.LlamaForCausalLM(config).eval()
        for name, parameter in llama.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter)
        return llama

    ids = torch.arange(10)[None]
    for name, settings in {"ia3": IA3Config(), "oft": OFTConfig()}.items():
        theirs = get_peft_model(model(), settings).eval()
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, 1.0 if name == "ia3" else 0.0, 0.1)
        theirs.save_pretrained(tmp_path / name)
        fresh = model()
        from_peft(Adapters(fresh), tmp_path / name)
        torch.testing.assert_close(fresh(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)
        again = PeftModel.from_pretrained(model(), tmp_path / name).eval()
        torch.testing.assert_close(fresh(ids).logits, again(ids).logits, rtol=1e-4, atol=1e-4)
        assert json.loads((tmp_path / name / "adapter_config.json").read_text())["peft_type"] == name.upper()


class Standardised(nn.Conv2d):
    """A convolution that is linear in its weight in a way of its own, and takes two inputs."""

    def forward(self, x, more=0.0):
        return super().forward(2 * x + more)


def test_a_layer_that_is_called_with_changed_parameters_has_its_changed_bias():
    torch.manual_seed(0)
    model, x = nn.ModuleDict({"conv": Standardised(3, 4, 2)}), torch.randn(1, 3, 4, 4)
    adapters = Adapters(model)
    plain = model["conv"](x, 1.0)
    adapters.attach("a", "conv", IA3)
    with torch.no_grad():
        adapters.of("a")["conv"].factors.copy_(torch.tensor([2.0, -1.0, 0.5, 3.0]))
    expected = plain * torch.tensor([2.0, -1.0, 0.5, 3.0])[:, None, None]
    torch.testing.assert_close(model["conv"](x, 1.0), expected)
    adapters.merge()
    torch.testing.assert_close(model["conv"](x, 1.0), expected)


@pytest.mark.parametrize("config", [ia3(["second"]), oft()])
def test_two_that_multiply_one_weight_are_not_added_up_in_silence(tmp_path, config):
    get_peft_model(Net(), config).save_pretrained(tmp_path)
    adapters = Adapters(Net())
    from_peft(adapters, tmp_path, "a")
    with pytest.raises(ValueError, match=r"'a' acts on \w+ and multiplies its weight as this adapter does: peft mul"):
        from_peft(adapters, tmp_path, "b")
    adapters.activate([])
    from_peft(adapters, tmp_path, "b")
    assert adapters.active == {"b": 1.0}
