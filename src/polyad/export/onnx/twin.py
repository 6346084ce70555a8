"""The copy of a model that is traced: its numbers in one dtype, its codes as an ONNX file holds them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from polyad.export.copies import copy_in_dtype, modules_outside_formats
from polyad.export.onnx.encode import encode_format, stored_layers
from polyad.formats import Format
from polyad.layers import Factors


class SharedLinear(nn.Module):
    """A linear layer whose matrix other modules read too, and which therefore stays as it lies in the file.

    An exporter stores the matrix of a plain one again, transposed.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.shape[0]
        flat = x.reshape(-1, x.shape[-1])
        out = torch.onnx.ops.symbolic(
            "::Gemm", (flat, self.weight), {"transB": 1}, dtype=x.dtype, shape=(flat.shape[0], rows), version=13
        ).reshape(*x.shape[:-1], rows)
        return out if self.bias is None else out + self.bias


def traceable_twin(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of the model, with numbers in ``dtype``, that an exporter can trace; the model is not touched."""
    twin = copy_in_dtype(model, dtype, encode_format)
    readers = Counter(id(m._parameters["weight"]) for m in twin.modules() if "weight" in m._parameters)
    for module in list(twin.modules()):
        for name, child in module._modules.items():
            if type(child) is nn.Linear and readers[id(child.weight)] > 1:
                module._modules[name] = SharedLinear(child)
    _gather_experts(twin)
    return twin


def _gather_experts(twin: Any) -> None:
    """Let experts of transformers gather the matrices of each token, the one way that can be traced."""
    if getattr(getattr(twin, "config", None), "_experts_implementation", None) is not None:
        twin.set_experts_implementation("batched_mm")


def codes_of(twin: nn.Module) -> list[Format]:
    """Every quantised tensor that the file will hold, a shared one once."""
    formats = {id(m): m() for m in modules_outside_formats(twin) for m in m.children() if isinstance(m, Factors)}
    return [code for weight in formats.values() for code in stored_layers(weight)]
