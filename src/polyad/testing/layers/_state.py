"""What modules that hold a format register, keep, copy, save and load."""

from __future__ import annotations

import copy
import json
import pickle

import torch
from torch import nn

from polyad.formats import Format, Sum
from polyad.layers import Embedding, Factors, Linear
from polyad.testing._contract import exactness
from polyad.testing._no_densifying import no_densifying
from polyad.testing.layers._modules import modules


def names(format: Format) -> None:
    """State-dict names are the format's dotted names; trainable floats are parameters, all else buffers."""
    exact, held = exactness(format), format.tensors()
    factors = Factors(format)
    assert set(factors.state_dict()) == set(held), f"the state dict names {sorted(factors.state_dict())}"
    trained = {name for name, _ in factors.named_parameters()}
    assert trained == {name for name in held if not exact[name]}, f"the parameters are {sorted(trained)}"
    assert {name for name, _ in factors.named_buffers()} == set(held) - trained, "buffers and parameters overlap"
    frozen = Factors(format, trainable=False)
    assert not list(frozen.parameters()), "a frozen module has parameters"
    assert set(frozen.state_dict()) == set(held), "a frozen module names its tensors otherwise"
    for each in modules(format):
        found = {name.removeprefix("weight.") for name in each.module.state_dict() if name != "bias"}
        assert found == set(held), f"{type(each.module).__name__} names {sorted(found)}"
    assert factors().spec() == format.spec(), "the format that the module gives has another spec"
    same = (factors.shape, factors.dtype, factors.device)
    assert same == (format.shape, format.dtype, format.device), f"shape, dtype and device are {same}"


def exact(format: Format) -> None:
    """Casting a module keeps the integers and the tensors that the format calls exact, bit for bit."""
    keeps, before = exactness(format), format.tensors()
    casts = {
        "to(bfloat16)": (torch.bfloat16, lambda module: module.to(torch.bfloat16)),
        "bfloat16()": (torch.bfloat16, nn.Module.bfloat16),
        "half()": (torch.float16, nn.Module.half),
        "double()": (torch.float64, nn.Module.double),
        "type(float16)": (torch.float16, lambda module: module.type(torch.float16)),
    }
    for name, (dtype, change) in casts.items():
        factors = change(Factors(copy.deepcopy(format)))
        for path, tensor in factors.state_dict().items():
            if keeps[path]:
                same = tensor.dtype == before[path].dtype and torch.equal(tensor, before[path])
                assert same, f"{name} changes {path}, which is exact, to {tensor.dtype}"
            else:
                assert tensor.dtype == dtype, f"{name} leaves {path} in {tensor.dtype}"
        assert factors.dtype == factors().dtype == dtype, f"after {name} the format says {factors().dtype}"


def copies(format: Format) -> None:
    """pickle and deepcopy give modules of equal output and equal state that share no memory."""
    for each in modules(format):
        expected = each.module(each.input)
        for other in (pickle.loads(pickle.dumps(each.module)), copy.deepcopy(each.module)):
            assert torch.equal(other(each.input), expected), f"a copied {type(other).__name__} answers otherwise"
            apart = _pointers(other).isdisjoint(_pointers(each.module))
            assert apart, f"a copied {type(other).__name__} shares memory with the first"


def loading(format: Format) -> None:
    """Through a state dict and a spec in JSON: onto a device, and assigned onto the meta device, dtypes kept."""
    for each in modules(format):
        kind, state = type(each.module), each.module.state_dict()
        spec = json.loads(json.dumps(each.module.spec()))
        blank, empty = kind.from_spec(spec, device="cpu"), kind.from_spec(spec)
        assert all(t.is_meta for t in empty.state_dict().values()), f"{kind.__name__}.from_spec is not on meta"
        blank.load_state_dict(state)
        empty.load_state_dict(state, assign=True)
        for how, loaded in (("copied", blank), ("assigned", empty)):
            for name, tensor in loaded.state_dict().items():
                same = tensor.dtype == state[name].dtype and torch.equal(tensor, state[name])
                assert same, f"{name} of {kind.__name__} is not what was loaded ({how})"
            assert torch.equal(loaded(each.input), each.module(each.input)), (
                f"{kind.__name__} answers otherwise ({how})"
            )
            trained = {name for name, _ in loaded.named_parameters()}
            assert trained == {name for name, _ in each.module.named_parameters()}, (
                f"{kind.__name__} trains {trained}"
            )


def ties(format: Format) -> None:
    """Two layers on one Factors stay tied when cast and copied; a tensor held twice is one parameter."""
    factors = Factors(copy.deepcopy(format))
    pair = nn.ModuleDict({"embedding": Embedding(factors), "head": Linear(factors)})
    for tied in (pair, copy.deepcopy(pair), pickle.loads(pickle.dumps(pair)), copy.deepcopy(pair).double()):
        assert tied["embedding"].weight is tied["head"].weight, "two layers on one Factors came apart"
    count = len(list(factors.parameters()))
    assert len(list(pair.parameters())) == count, "a tied tensor counts as two parameters"
    twice = Factors(Sum((format, format)))
    found = len(list(twice.parameters()))
    assert found == count, f"a sum of a format and itself has {found} parameters, the format alone {count}"
    assert twice().nbytes == format.nbytes, "what a format shares is stored twice in the module"
    assert twice.double()().nbytes == format.to(torch.float64).nbytes, "what a format shares comes apart in a cast"


def training(format: Format) -> None:
    """Gradients reach x and every parameter of every layer, and are finite; nothing densifies."""
    for each in modules(format):
        x = each.input.clone()
        if x.is_floating_point():
            x.requires_grad_()
        with no_densifying():
            y = each.module(x)
        if not y.requires_grad:
            assert not list(each.module.parameters()), f"{type(each.module).__name__} has parameters, but no gradient"
            continue
        y.square().sum().backward()
        reached = [*each.module.named_parameters(), *([("x", x)] if x.requires_grad else [])]
        for name, tensor in reached:
            assert tensor.grad is not None, f"no gradient reaches {name} of {type(each.module).__name__}"
            assert bool(torch.isfinite(tensor.grad).all()), f"the gradient of {name} is not finite"


def _pointers(module: nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in module.state_dict().values() if tensor.numel()}
