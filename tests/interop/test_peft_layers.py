"""Layers on which peft differs, ranks, and folders that do not hold what their settings name."""

import json

import pytest
import torch
import transformers
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from polyad.adapters import Adapters, DoRA, LoHa, LoRA
from polyad.interop.peft import from_peft, to_peft

PICTURE = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))
CONVS = {
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "reflect": {"kernel_size": 3, "padding": "same", "padding_mode": "reflect"},
    "dilated": {"kernel_size": 3, "padding": "same", "dilation": 2},
    "grouped": {"kernel_size": 3, "groups": 2},
    "no-padding": {"kernel_size": 3, "padding_mode": "circular"},
    "point": {"kernel_size": 1, "padding": "same", "dilation": 2, "padding_mode": "replicate"},
    "same": {"kernel_size": 3, "padding": "same"},
}
CONFIGS = {
    "lora": (LoraConfig, {"r": 2, "init_lora_weights": False}),
    "dora": (LoraConfig, {"r": 2, "init_lora_weights": False, "use_dora": True}),
    "loha": (LoHaConfig, {"r": 2, "init_weights": False}),
    "lokr": (LoKrConfig, {"r": 100, "decompose_factor": 2, "init_weights": False}),
}
DROPPED = {
    "lora": {"circular", "reflect", "dilated", "grouped"},
    "dora": {"circular", "reflect", "dilated", "grouped"},
    "loha": {"circular", "reflect"},
    "lokr": {"circular", "reflect"},
}


def conv(kind):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 6, **CONVS[kind])).eval()


@pytest.mark.parametrize("method", CONFIGS)
@pytest.mark.parametrize("kind", CONVS)
def test_convolutions_compute_what_peft_does_or_are_refused(kind, method, tmp_path):
    if (kind, method) == ("grouped", "dora"):  # peft itself raises
        return
    config, how = CONFIGS[method]
    torch.manual_seed(1)
    theirs = get_peft_model(conv(kind), config(target_modules=["0"], **how)).eval()
    theirs.save_pretrained(tmp_path / "peft")
    model = conv(kind)
    if kind in DROPPED[method]:
        with pytest.raises(ValueError, match=r"0 is a convolution (of 2 groups|with (dilation|padding_mode)).*merge"):
            from_peft(Adapters(model), tmp_path / "peft")
        assert type(model[0]) is nn.Conv2d
        return
    from_peft(Adapters(model), tmp_path / "peft")
    torch.testing.assert_close(model(PICTURE), theirs(PICTURE), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CONVS)
def test_convolutions_are_written_for_what_peft_computes_or_refused(kind, tmp_path):
    model = conv(kind)
    adapters = Adapters(model)
    adapters.attach("a", "*", LoRA, rank=2)
    nn.init.normal_(adapters.of("a")["0"].B)
    if kind in DROPPED["lora"]:
        with pytest.raises(ValueError, match=r"0 is a convolution (of 2 groups|with (dilation|padding_mode)).*merge"):
            to_peft(adapters, "a", tmp_path / "peft")
        assert not (tmp_path / "peft").exists()
        return
    to_peft(adapters, "a", tmp_path / "peft")
    theirs = PeftModel.from_pretrained(conv(kind), tmp_path / "peft").eval()
    torch.testing.assert_close(theirs(PICTURE), model(PICTURE), rtol=1e-4, atol=1e-5)


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5)).eval()


@pytest.mark.parametrize(
    ("config", "method"),
    [
        (LoraConfig(r=7, target_modules=["0", "2"], init_lora_weights=False), LoRA),
        (LoraConfig(r=7, target_modules=["0", "2"], init_lora_weights=False, use_dora=True), DoRA),
        (LoHaConfig(r=7, target_modules=["0", "2"], init_weights=False), LoHa),
    ],
    ids=["lora", "dora", "loha"],
)
def test_a_rank_above_the_shorter_side_is_read(config, method, tmp_path):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    theirs = get_peft_model(linear(), config).eval()
    theirs.save_pretrained(tmp_path / "peft")
    model = linear()
    adapters = Adapters(model)
    from_peft(adapters, tmp_path / "peft")
    torch.testing.assert_close(model(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert type(adapters.of("peft")["0"]) is method
    adapters.save("peft", tmp_path / "ours")
    if method is LoRA:
        to_peft(adapters, "peft", tmp_path / "again")
        again = PeftModel.from_pretrained(linear(), tmp_path / "again").eval()
        torch.testing.assert_close(again(x), theirs(x), rtol=1e-5, atol=1e-5)
    fresh = linear()
    Adapters(fresh).load(tmp_path / "ours")
    assert torch.equal(fresh(x), model(x))
    adapters.merge()
    torch.testing.assert_close(model(x), theirs(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"rank=7 exceeds the shorter side"):
        Adapters(linear()).attach("a", "*", method, rank=7)


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(nn.ModuleDict({"q": nn.Linear(6, 6), "k": nn.Linear(6, 6)}) for _ in "abc")
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        for layer in self.model.layers:
            x = torch.tanh(layer["q"](x)) + layer["k"](x)
        return self.head(x)


@pytest.mark.parametrize(
    ("how", "first"),
    [
        ({"target_modules": ["q"]}, "model.layers.1.q"),
        ({"target_modules": "model.layers.*(q|k)"}, "model.layers.1.q"),
        ({"target_modules": ["q", "k"], "exclude_modules": ["1.q"]}, "model.layers.1.k"),
        ({"target_modules": ["q", "k"], "layers_to_transform": [1, 2]}, "model.layers.1.q"),
        ({"target_modules": ["q"], "layers_to_transform": 1, "layers_pattern": "layers"}, "model.layers.1.q"),
    ],
)
def test_a_folder_without_the_tensors_of_a_layer_that_it_names_is_refused(how, first, tmp_path):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    theirs = get_peft_model(Blocks(), LoraConfig(r=2, init_lora_weights=False, **how)).eval()
    theirs.save_pretrained(tmp_path / "peft")
    model = Blocks()
    from_peft(Adapters(model), tmp_path / "peft")
    torch.testing.assert_close(model(x), theirs(x), rtol=1e-5, atol=1e-5)
    file = tmp_path / "peft" / "adapter_model.safetensors"
    tensors = load_file(file)
    left = {key: t for key, t in tensors.items() if f".{first}." not in key} or {
        "base_model.model.head.lora_A.weight": torch.ones(2, 6),
        "base_model.model.head.lora_B.weight": torch.ones(4, 2),
    }
    assert len(left) < len(tensors) or how.get("layers_to_transform") == 1
    save_file(left, file)
    fresh = Blocks()
    with pytest.raises(ValueError, match=rf"no tensors, such as base_model\.model\.{first}\.lora_A\.weight"):
        from_peft(Adapters(fresh), tmp_path / "peft")
    assert not any("adapters" in name for name, _ in fresh.named_modules())


@pytest.mark.parametrize(
    ("config", "key", "shape"),
    [
        (LoraConfig(r=2, target_modules=["0"]), "lora_A.weight", (3,)),
        (LoraConfig(r=2, target_modules=["0"]), "lora_B.weight", (2, 8)),
        (LoHaConfig(r=2, target_modules=["0"]), "hada_w1_a", ()),
        (LoKrConfig(r=1, decompose_both=True, decompose_factor=2, target_modules=["0"]), "lokr_w2_a", (3, 9)),
        (LoKrConfig(r=100, target_modules=["0"]), "lokr_w1", (3,)),
    ],
)
def test_tensors_of_another_shape_are_refused_by_name(config, key, shape, tmp_path):
    get_peft_model(linear(), config).save_pretrained(tmp_path / "peft")
    file = tmp_path / "peft" / "adapter_model.safetensors"
    tensors = load_file(file)
    assert f"base_model.model.0.{key}" in tensors
    save_file({**tensors, f"base_model.model.0.{key}": torch.ones(shape)}, file)
    named, stated = key.removesuffix(".weight"), str(shape)[1:-1]
    with pytest.raises(ValueError, match=rf"0 .*{named}.*\({stated}"):
        from_peft(Adapters(linear()), tmp_path / "peft")


def test_settings_that_are_no_expression_are_refused(tmp_path):
    get_peft_model(linear(), LoraConfig(r=2, target_modules=["0"])).save_pretrained(tmp_path / "peft")
    config = tmp_path / "peft" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "target_modules": "(["}))
    with pytest.raises(ValueError, match="is no regular expression"):
        from_peft(Adapters(linear()), tmp_path / "peft")
    config.write_text("[]")
    with pytest.raises(ValueError, match="where an object is needed"):
        from_peft(Adapters(linear()), tmp_path / "peft")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lora_alpha", "eight"),
        ("r", float("inf")),
        ("r", True),
        ("rank_pattern", [1]),
        ("alpha_pattern", {"0": "x"}),
        ("target_modules", [1]),
        ("layers_to_transform", "0"),
        ("lora_dropout", []),
    ],
)
def test_settings_of_another_kind_are_refused(key, value, tmp_path):
    get_peft_model(linear(), LoraConfig(r=2, target_modules=["0"])).save_pretrained(tmp_path / "peft")
    config = tmp_path / "peft" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), key: value}))
    with pytest.raises(ValueError, match=f"has {key}=.*, which peft does not write"):
        from_peft(Adapters(linear()), tmp_path / "peft")


def gemma():
    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, vocab_size=50, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.Gemma3ForCausalLM(config).eval()


def test_scaled_embeddings_are_those_of_peft(tmp_path):
    ids = torch.arange(20).view(2, 10)
    config = LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"], init_lora_weights=False)
    torch.manual_seed(1)
    theirs = get_peft_model(gemma(), config).eval()
    theirs.save_pretrained(tmp_path / "peft")
    model = gemma()
    adapters = Adapters(model)
    from_peft(adapters, tmp_path / "peft")
    torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)
    to_peft(adapters, "peft", tmp_path / "again")
    again = PeftModel.from_pretrained(gemma(), tmp_path / "again").eval()
    torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    before = model(ids).logits
    adapters.merge()
    torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-4)
