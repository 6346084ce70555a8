"""Adapters on layers whose class has a forward pass of its own: scales, standardised weights, tuples, arguments."""

import copy

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

import tiny
from polyad.adapters import Adapters, DoRA, LoHa, LoRA, PiSSA, SVFit
from polyad.adapters.training.settings import Finetuning
from polyad.testing.adapters import move

SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
SEQ = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
       "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}  # fmt: skip
MODELS = {
    "Gemma2": ("ForCausalLM", {"head_dim": 8}, "*embed_tokens"),
    "Gemma3Text": ("ForCausalLM", {"head_dim": 8}, "*embed_tokens"),
    "MBart": ("ForCausalLM", {**SEQ, "scale_embedding": True}, "*embed_*"),
    "OPT": ("ForCausalLM", {"word_embed_proj_dim": 32, "ffn_dim": 48}, "*embed_*"),
    "Falcon": ("ForCausalLM", {}, "*query_key_value"),
    "Whisper": (
        "ForConditionalGeneration",
        {**SEQ, "max_source_positions": 20, "num_mel_bins": 8, "decoder_start_token_id": 1},
        ["*embed_*", "*conv*"],
    ),
}  # fmt: skip


def network(family, head="ForCausalLM", **more):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SHAPE, **more})
    name = "Gemma3ForCausalLM" if family == "Gemma3Text" else family + head
    return getattr(transformers, name)(config).eval()


def output(model):
    ids = torch.arange(12).reshape(2, 6)
    if model.main_input_name == "input_ids":
        return model(ids).logits
    return model(torch.linspace(-1, 1, 320).reshape(1, 8, 40), decoder_input_ids=ids[:1]).logits


@pytest.mark.parametrize("method", [LoRA, DoRA])
@pytest.mark.parametrize("family", MODELS)
def test_an_adapter_changes_what_the_changed_weight_changes(family, method):
    head, more, which = MODELS[family]
    model = network(family, head, **more)
    with torch.no_grad():
        plain = output(model)
    adapters = Adapters(model)
    adapters.attach("a", which, method, rank=2, of=("linear", "conv", "embedding"), tied=True)
    move(adapters, "a")
    expected = copy.deepcopy(model)
    for path, update in [(p, u) for p, layer in adapters.layers().items() for _, u in layer.updates("a")]:
        layer = expected.get_submodule(path).layer
        dense = update.to_dense() if hasattr(update, "to_dense") else update
        weight = nn.Parameter(layer.weight.detach() + dense.reshape(layer.weight.shape))
        layer._parameters["weight"] = weight
        owner, _, leaf = path.rpartition(".")
        expected.get_submodule(owner)._modules[leaf] = layer
    result = output(model)
    assert (result - plain).abs().max() > 1e-3
    with torch.no_grad():
        assert torch.allclose(output(model), result, atol=1e-5)
        assert torch.allclose(output(expected), result, atol=1e-4)
    result.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapters.parameters("a"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gain_of_a_scaled_embedding_is_the_one_of_its_dtype(dtype):
    model = network("Gemma3Text", head_dim=8, hidden_size=24).to(dtype)
    adapters = Adapters(model)
    adapters.attach("a", "*embed_tokens", LoRA, rank=2, of=("embedding",), tied=True)
    base = model.get_input_embeddings().base
    assert base.gain == float(torch.tensor(24**0.5).to(dtype))
    assert not base.own


class Standardised(nn.Conv2d):
    def forward(self, x):
        w = self.weight.flatten(1)
        return F.conv2d(x, ((w - w.mean(1, True)) / w.std(1, keepdim=True)).reshape(self.weight.shape), self.bias)


class Normed(nn.Linear):
    def forward(self, x):
        return F.linear(x, F.normalize(self.weight), self.bias)


class Router(nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        return y.softmax(-1), y


class Same(nn.Conv2d):
    """Pads as the input's size asks, and takes a cache that it does not use."""

    def forward(self, x, cache=None):
        sides = zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        pads = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in sides]
        x = F.pad(x, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride)


class Halved(nn.Linear):
    def forward(self, x):
        return F.linear(x[..., ::2], self.weight[:, ::2], self.bias) * 0.5


class Two(nn.Linear):
    def forward(self, x, gate):
        return super().forward(x) * gate


class Net(nn.Module):
    def __init__(self, layer, call):
        super().__init__()
        self.layer, self.other, self.call = layer, nn.Linear(3, 3), call

    def forward(self, x):
        return self.call(self, x)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (Standardised(3, 4, 3), "a Standardised: its forward pass is not linear in the weight"),
        (Normed(3, 4), "a Normed: its forward pass is not linear in the weight"),
        (Router(3, 4), "a Router: its forward pass returns a tuple, not one tensor"),
    ],
)
def test_what_is_not_linear_in_the_weight_is_refused_by_name_and_left_out_by_pattern(layer, said):
    adapters = Adapters(Net(layer, lambda net, x: net.layer(x)))
    with pytest.raises(ValueError, match=rf"an adapter cannot act on layer, {said}.*; leave this layer out"):
        adapters.attach("a", "layer", LoRA, rank=1)
    assert adapters.attach("a", "*", LoRA, rank=1) == ["other"]


@pytest.mark.parametrize("family", ["Llama4Text", "Phimoe"])
def test_routers_that_return_tuples_are_left_out(family):
    torch.manual_seed(0)
    more = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "intermediate_size_mlp": 48}
    config = getattr(transformers, f"{family}Config")(**SHAPE, **more)
    model = getattr(transformers, {"Llama4Text": "Llama4ForCausalLM"}.get(family, f"{family}ForCausalLM"))(
        config
    ).eval()
    adapters = Adapters(model)
    router = next(path for path, m in model.named_modules() if "Router" in type(m).__name__)
    with pytest.raises(ValueError, match=rf"{router}, a .*Router: its forward pass returns a tuple"):
        adapters.attach("a", router, LoRA, rank=1)
    names = adapters.attach("a", "*", LoRA, rank=1, of=("linear",))
    assert names
    assert router not in names
    move(adapters, "a")
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        before = model(ids).logits
        adapters.merge()
        assert torch.allclose(model(ids).logits, before, atol=1e-4)


CALLS = {
    "same padding": (Same(3, 4, 3, stride=2), lambda net, x: net.layer(x, cache=None), (2, 3, 9, 10)),
    "part of the weight": (Halved(8, 4), lambda net, x: net.layer(x), (5, 8)),
    "two inputs": (Two(8, 4), lambda net, x: net.layer(x, x[:, :4]), (5, 8)),
    "two by name": (Two(8, 4), lambda net, x: net.layer(gate=x[:, :4], x=x), (5, 8)),
    "input by name": (nn.Linear(8, 4), lambda net, x: net.layer(input=x), (5, 8)),
    "a kernel's by name": (nn.Conv1d(3, 4, 3), lambda net, x: net.layer(input=x), (5, 3, 8)),
    "an embedding's by name": (nn.Embedding(9, 4), lambda net, x: net.layer(input=x.abs().long()), (5, 3)),
    "Conv1D's by name": (Conv1D(4, 8), lambda net, x: net.layer(x=x), (5, 8)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("method", [LoRA, DoRA, LoHa, PiSSA, SVFit])
def test_a_layer_called_in_its_own_way_acts_as_its_changed_weight_does(name, method):
    layer, call, shape = CALLS[name]
    torch.manual_seed(0)
    model, x = Net(copy.deepcopy(layer), call), torch.randn(shape)
    plain = model(x)
    adapters = Adapters(model)
    adapters.attach("a", "layer", method, of=("linear", "conv", "embedding"), rank=1)
    move(adapters, "a")
    changed = model(x)
    assert not torch.allclose(changed, plain, atol=1e-3)
    with torch.no_grad():
        assert torch.allclose(model(x), changed, atol=1e-5)
        adapters.merge()
        assert torch.allclose(model(x), changed, atol=1e-4)
        adapters.unmerge()
        adapters.activate([])
        assert torch.equal(model(x), plain)


def test_rows_of_a_batch_take_their_own_adapter_through_such_a_layer():
    layer, call, shape = CALLS["two by name"]
    torch.manual_seed(0)
    model, x = Net(layer, call), torch.randn(shape)
    adapters, alone = Adapters(model), [model(x)]
    for name in ("a", "b"):
        adapters.attach(name, "layer", LoRA, rank=1)
        move(adapters, name)
    for name in ("a", "b"):
        adapters.activate(name)
        alone.append(model(x))
    with adapters.routed([None, "a", "b", "a", None]):
        rows = model(x)
    assert torch.allclose(rows, torch.stack([alone[i][row] for row, i in enumerate((0, 1, 2, 1, 0))]), atol=1e-6)


def test_dropout_spares_embeddings_and_drops_elsewhere():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 8))
    adapters = Adapters(model)
    with pytest.raises(ValueError, match=r"dropout=0.5 can drop inputs of none of the layers chosen, such as 0 "):
        adapters.attach("a", "0", LoRA, rank=1, dropout=0.5, of=("embedding",))
    adapters.attach("a", "*", LoRA, rank=2, dropout=0.5, of=("linear", "embedding"))
    move(adapters, "a")
    ids = torch.arange(9)
    model.train()
    assert torch.equal(model[0](ids), model[0](ids))
    x = torch.ones(64, 8)
    assert not torch.equal(model[1](x), model[1](x))


@pytest.mark.parametrize(("kind", "count"), [("gpt2", 8), ("llama", 21)])
def test_by_default_every_linear_layer_but_the_head_is_adapted(kind, count):
    model = tiny.model(kind)
    names = Adapters(model).attach("a", Finetuning(("stdlib",)).which(model), LoRA, rank=2)
    assert len(names) == count
    assert "lm_head" not in names
