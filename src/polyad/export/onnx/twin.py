"""The copy of a model that is traced: its numbers in one dtype, its codes as an ONNX file holds them."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from polyad.export.onnx.codes import BlockCodes, PlainCodes
from polyad.export.onnx.encode import encode_format, stored_layers
from polyad.layers import Factors
from polyad.models.twin import shared_twin


class SharedLinear(nn.Module):
    """A linear layer whose matrix other modules read too, and which therefore stays as it lies in the file.

    An exporter stores the matrix of a plain one again, transposed.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.shape[0]
        flat = x.reshape(-1, x.shape[-1])
        out = torch.onnx.ops.symbolic(
            "::Gemm", (flat, self.weight), {"transB": 1}, dtype=x.dtype, shape=(flat.shape[0], rows), version=13
        ).reshape(*x.shape[:-1], rows)
        return out if self.bias is None else out + self.bias


def traceable_twin(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of the model, with numbers in ``dtype``, that an exporter can trace; the model is not touched."""
    twin = shared_twin(model).eval()
    encoded: dict[int, Factors] = {}
    for module in list(twin.modules()):
        for name, child in module._modules.items():
            if isinstance(child, Factors) and not isinstance(module, Factors):
                if id(child) not in encoded:
                    encoded[id(child)] = Factors(encode_format(child()), trainable=False)
                module._modules[name] = encoded[id(child)]
    cast_copies(twin, dtype)
    _mark_shared(twin)
    return twin.requires_grad_(False)


def cast_copies(twin: nn.Module, dtype: torch.dtype) -> None:
    """Give a copy numbers of this dtype, in tensors of its own; those that share one go on sharing.

    Scales, integers and rotary frequencies keep theirs. ``Module.to`` would write into the parameters that the copy shares.
    """
    new: dict[int, Tensor] = {}
    keep = {id(t) for m in twin.modules() if isinstance(m, Factors) for t in _exact(m)}
    for module in twin.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None or not tensor.is_floating_point() or id(tensor) in keep or name.endswith("inv_freq"):
                    continue
                if id(tensor) not in new:
                    cast = tensor.detach().to(dtype)
                    new[id(tensor)] = nn.Parameter(cast, False) if isinstance(tensor, nn.Parameter) else cast
                table[name] = new[id(tensor)]  # pyright: ignore[reportArgumentType]


def _exact(factors: Factors) -> list[Tensor]:
    return [t for code in stored_layers(factors()) for n, t in code.tensors().items() if n.split(".")[0] in code.exact]


def _mark_shared(twin: nn.Module) -> None:
    readers = Counter(id(m._parameters["weight"]) for m in twin.modules() if "weight" in m._parameters)
    for module in list(twin.modules()):
        for name, child in module._modules.items():
            if type(child) is nn.Linear and readers[id(child.weight)] > 1:
                module._modules[name] = SharedLinear(child.weight, child.bias)


def codes_of(twin: nn.Module) -> list[BlockCodes | PlainCodes]:
    """Every quantised matrix that the file will hold, a shared one once."""
    stands = {id(m): m for parent in twin.modules() for m in parent._modules.values() if isinstance(m, Factors)}
    inner = {id(m) for f in stands.values() for m in f.modules() if m is not f}
    outer = [m for key, m in stands.items() if key not in inner]
    return [code for m in outer for code in stored_layers(m())]  # pyright: ignore[reportReturnType]
