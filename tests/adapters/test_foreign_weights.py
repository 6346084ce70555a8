"""Layers whose weight another library stores as codes: stand-ins that do as bitsandbytes, torchao and fp8 layers."""

import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from polyad.adapters import Adapters, DoRA, LoKr, LoRA, PiSSA, RiemannLoRA, diagnose

X = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
SCALE = 1 / 64


def dense():
    """The model whose weights the others store; every entry is a multiple of the scale."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 16))
    with torch.no_grad():
        for i in (0, 2):
            model[i].weight.copy_((model[i].weight / SCALE).round() * SCALE)
    return model


class Codes(torch.Tensor):
    """A tensor that says it is float32 and holds integers; it knows ``linear`` and ``dequantize`` alone."""

    @staticmethod
    def __new__(cls, codes):
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32, requires_grad=False)

    def __init__(self, codes):
        self.codes = codes

    def dequantize(self):
        return self.codes * SCALE

    @classmethod
    def __torch_function__(cls, function, kinds, args=(), kwargs=None):
        if function is F.linear:
            return F.linear(args[0], args[1].dequantize(), *args[2:], **(kwargs or {}))
        return super().__torch_function__(function, kinds, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, function, kinds, args=(), kwargs=None):
        if function in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(args[0].codes)
        raise NotImplementedError(f"{function} is not known of codes")


def torchao():
    model = dense()
    for i in (0, 2):
        codes = (model[i].weight.detach() / SCALE).round().to(torch.int8)
        model[i].weight = nn.Parameter(Codes(codes), requires_grad=False)
    return model


class Int8(nn.Parameter):
    """Integers beside which their scales lie."""


class Four(nn.Parameter):
    """Codes of another shape, with a state that says how to read them."""


Int8.__module__ = Four.__module__ = "bitsandbytes.nn.modules"


class Stored(nn.Linear):
    """A linear layer of another library, with a forward pass of its own."""

    def forward(self, x):
        return F.linear(x, self.read(), self.bias)


class EightBits(Stored):
    def read(self):
        return self.weight.data * SCALE

    def forward(self, x):
        if self.weight.SCB is not None:  # as bitsandbytes does at the first call
            self.state, self.weight.SCB = types.SimpleNamespace(SCB=self.weight.SCB), None
        return super().forward(x)


class FourBits(Stored):
    def read(self):
        return self.weight.data.view(self.out_features, self.in_features).view(torch.int8) * SCALE


class Float8(Stored):
    def read(self):
        return self.weight.data.float() / 8


def stored(kind, fill):
    model = dense()
    for i in (0, 2):
        layer = kind(model[i].in_features, model[i].out_features)
        layer.bias = model[i].bias
        del layer.weight
        fill(layer, (model[i].weight.detach() / SCALE).round())
        model[i] = layer
    return model


def eight(layer, codes):
    layer.weight = Int8(codes.to(torch.int8), requires_grad=False)
    layer.weight.SCB = torch.full((len(codes),), SCALE)


def four(layer, codes):
    layer.weight = Four(codes.to(torch.int8).view(torch.uint8).reshape(-1, 1), requires_grad=False)
    layer.weight.quant_state = codes.shape


def float8(layer, codes):
    layer.weight = nn.Parameter((codes * SCALE * 8).to(torch.float8_e4m3fn), requires_grad=False)


KINDS = {
    "torchao": torchao,
    "int8": lambda: stored(EightBits, eight),
    "nf4": lambda: stored(FourBits, four),
}


@pytest.fixture(autouse=True)
def bitsandbytes(monkeypatch):
    """The two functions of bitsandbytes that are called."""
    functional = types.ModuleType("bitsandbytes.functional")
    functional.int8_vectorwise_dequant = lambda codes, scales: codes * scales[:, None]
    functional.dequantize_4bit = lambda codes, shape: codes.view(torch.int8).view(shape) * SCALE
    package = types.ModuleType("bitsandbytes")
    package.functional = functional
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", functional)


def adapted(model, method, **arguments):
    adapters = Adapters(model)
    adapters.attach("a", "*", method, **arguments)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapters.parameters("a"):
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return adapters


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize(
    ("method", "arguments"), [(LoRA, {"rank": 2}), (DoRA, {"rank": 2}), (PiSSA, {"rank": 2}), (LoKr, {"factor": 4})]
)
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_read_as_the_weight_that_they_stand_for(kind, method, arguments, called, tmp_path):
    model, plain = KINDS[kind](), dense()
    torch.testing.assert_close(model(X) if called else plain(X), plain(X))
    adapters, expected = adapted(model, method, **arguments), adapted(plain, method, **arguments)
    torch.testing.assert_close(model(X), plain(X))
    assert diagnose(adapters, "a")["0"] == pytest.approx(diagnose(expected, "a")["0"], rel=1e-4)
    with pytest.raises(ValueError, match=r"weight of 0 is stored as (Codes|EightBits|Int8|FourBits|Four),"):
        adapters.merge()
    before = model(X)
    adapters.save("a", tmp_path / "a")
    adapters.detach("a")
    adapters.load(tmp_path / "a")
    torch.testing.assert_close(model(X), before)


def test_codes_that_nothing_reads_are_refused_by_name_and_class():
    model, plain = stored(Float8, float8), dense()
    for method in (DoRA, PiSSA):
        with pytest.raises(ValueError, match=r"0 of shape \(24, 16\): .* Float8 is stored as torch\.float8_e4m3fn"):
            Adapters(model).attach("a", "*", method, rank=2)
    assert type(model[0]) is Float8
    adapters = adapted(model, LoRA, rank=2)
    adapted(plain, LoRA, rank=2)
    torch.testing.assert_close(model(X), plain(X), rtol=0.1, atol=0.1)
    with pytest.raises(ValueError, match=r"0: the weight of this Float8 is stored as torch\.float8_e4m3fn"):
        diagnose(adapters, "a")


def test_a_weight_of_another_shape_is_not_read():
    layer = nn.Linear(16, 24)
    layer.weight = nn.Parameter(torch.zeros(7))
    with pytest.raises(ValueError, match=r"this Linear is stored as \(7,\) and stands for \(24, 16\)"):
        Adapters(nn.Sequential(layer)).attach("a", "*", DoRA, rank=2)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_have_no_gradient_to_start_from(kind):
    model = KINDS[kind]()
    with pytest.raises(ValueError, match="the weight of 0 is no floating-point tensor and has no gradient"):
        Adapters(model).attach("a", "*", RiemannLoRA, rank=2, loss=lambda: model(X).square().sum())


class Failing(LoRA):
    """An adapter whose change cannot be stated for one shape."""

    def update(self, base):
        if self.A.shape[1] == 24:
            raise RuntimeError("no change")
        return super().update(base)


@pytest.mark.parametrize("first", [False, True])
def test_an_attachment_that_fails_leaves_the_model_as_it_was(first):
    model = dense()
    model[0].bias.requires_grad_(False)
    adapters = Adapters(model)
    if first:
        adapters.attach("first", "0", LoRA, rank=2)
    before = [(name, type(m)) for name, m in model.named_modules()]
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(RuntimeError, match="no change"):
        adapters.attach("a", "*", Failing, rank=2)
    assert [(name, type(m)) for name, m in model.named_modules()] == before
    assert {name: p.requires_grad for name, p in model.named_parameters()} == trained
    assert adapters.names == (["first"] if first else [])
    assert adapters.attach("a", "*", LoRA, rank=2) == ["0", "2"]
