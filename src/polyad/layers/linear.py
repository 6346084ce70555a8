"""Layers whose weight is a format: drop-in replacements of torch's own."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from polyad._stated import check_stated
from polyad.formats import Format
from polyad.layers.factors import Factors
from polyad.layers.kernels.prepared import prepared_run
from polyad.layers.kernels.runs import run_flat


def as_autocast(x: Tensor) -> Tensor:
    """x in the dtype to which autocast would bring a linear layer's input."""
    kind = x.device.type
    if kind == "meta":  # for which torch knows no autocast, not even whether it is on
        return x
    if torch.is_autocast_enabled(kind) and x.is_floating_point() and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(kind))
    return x


def as_factors(weight: Format | Factors, trainable: bool) -> Factors:
    """The module of a format; one that is a module already stays the same object, so that ties hold."""
    return weight if isinstance(weight, Factors) else Factors(weight, trainable=trainable)


def as_matrix(weight: Factors) -> tuple[int, int]:
    """The shape of a matrix; formats of other than two dimensions are refused."""
    shape = weight.shape
    if len(shape) != 2:
        raise ValueError(f"weight has the shape {tuple(shape)}; a layer needs a matrix: two dimensions")
    return shape[0], shape[1]


class Linear(nn.Module):
    """``y = x Wᵀ + b`` for a format W of shape (out, in); x of shape (…, in), y of shape (…, out).

    Computes in x's dtype, or in autocast's, as torch.nn.Linear does.
    """

    weight: Factors
    bias: nn.Parameter | None

    def __init__(self, weight: Format | Factors, bias: Tensor | None = None, *, trainable: bool = True) -> None:
        super().__init__()
        self.weight = as_factors(weight, trainable)
        self.out_features, self.in_features = as_matrix(self.weight)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=trainable))

    def multiply(self, x: Tensor) -> Tensor:
        """The product with the weight, without the bias, by the kernels that ``polyad.layers.kernels`` chose."""
        x = as_autocast(x)
        run = prepared_run(self.weight, x)
        return self.weight().linear(x) if run is None else run_flat(run, x)

    def forward(self, x: Tensor) -> Tensor:
        y = self.multiply(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def spec(self) -> dict[str, Any]:
        """JSON from which ``from_spec`` makes this module again, without its numbers."""
        return {"layer": "Linear", "weight": self.weight().spec(), "bias": _bias(self.bias)}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], device: torch.device | str = "meta") -> Linear:
        """An uninitialised layer of this description."""
        return cls(Format.from_spec(spec["weight"], device), _empty_bias(spec["bias"], device))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(nn.Module):
    """Rows of a format W of shape (count, width) by index; never forms W."""

    def __init__(self, weight: Format | Factors, *, trainable: bool = True) -> None:
        super().__init__()
        self.weight = as_factors(weight, trainable)
        self.weight.looked_up = True
        self.num_embeddings, self.embedding_dim = as_matrix(self.weight)

    def forward(self, index: Tensor) -> Tensor:
        prepared = self.weight.prepared
        weight = self.weight() if prepared is None else prepared.format
        return weight.rows(index).to(weight.dtype)  # autocast does not touch torch's embedding either

    def spec(self) -> dict[str, Any]:
        """JSON from which ``from_spec`` makes this module again, without its numbers."""
        return {"layer": "Embedding", "weight": self.weight().spec()}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], device: torch.device | str = "meta") -> Embedding:
        """An uninitialised layer of this description."""
        return cls(Format.from_spec(spec["weight"], device))


class Geometry(TypedDict):
    """A convolution's kernel and geometry, as its description states them."""

    kernel: list[int]
    stride: NotRequired[list[int]]
    padding: NotRequired[list[int]]
    dilation: NotRequired[list[int]]
    groups: NotRequired[int]


class Conv(nn.Module):
    """A convolution in one to three dimensions whose kernel is a format of shape (out, in * prod(kernel)).

    ``geometry`` holds stride, padding and dilation as tuples of one number a dimension, and groups.
    """

    weight: Factors
    bias: nn.Parameter | None

    def __init__(
        self,
        weight: Format | Factors,
        bias: Tensor | None,
        kernel: tuple[int, ...],
        geometry: dict[str, Any],
        *,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        self.weight = as_factors(weight, trainable)
        self.kernel, self.geometry = tuple(kernel), dict(geometry)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=trainable))

    @classmethod
    def like(
        cls, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, weight: Format | Factors, bias: Tensor | None = None
    ) -> Conv:
        """The convolution that does what ``layer`` does, with ``weight`` as its kernel and, if given, this bias."""
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise ValueError(
                f"padding={layer.padding!r} with padding_mode={layer.padding_mode!r} has no factorised form here; "
                "leave that layer out, or pad explicitly before it"
            )
        geometry: dict[str, Any] = {name: tuple(getattr(layer, name)) for name in ("stride", "padding", "dilation")}
        geometry["groups"] = layer.groups
        if bias is None and layer.bias is not None:
            bias = layer.bias.detach()
        return cls(weight, bias, tuple(layer.kernel_size), geometry)

    def forward(self, x: Tensor) -> Tensor:
        y = self.weight().convolve(as_autocast(x), self.kernel, **self.geometry)
        return y if self.bias is None else y + self.bias.to(y.dtype).reshape(-1, *(1 for _ in self.kernel))

    def spec(self) -> dict[str, Any]:
        """JSON from which ``from_spec`` makes this module again, without its numbers."""
        geometry = {k: list(v) if isinstance(v, tuple) else v for k, v in self.geometry.items()}
        weight = self.weight().spec()
        return {
            "layer": "Conv", "weight": weight, "bias": _bias(self.bias),
            "kernel": list(self.kernel), "geometry": geometry,
        }  # fmt: skip

    @classmethod
    def from_spec(cls, spec: dict[str, Any], device: torch.device | str = "meta") -> Conv:
        """An uninitialised layer of this description."""
        _refuse_geometry(spec)
        geometry = {k: tuple(v) if isinstance(v, list) else v for k, v in spec["geometry"].items()}
        weight = Format.from_spec(spec["weight"], device)
        return cls(weight, _empty_bias(spec["bias"], device), tuple(spec["kernel"]), geometry)


LEAST = {"stride": 1, "padding": 0, "dilation": 1}
"""The least numbers of a convolution's geometry."""


def _refuse_geometry(spec: dict[str, Any]) -> None:
    """Refuse the description of a convolution of which there is none."""
    stated = {"kernel": spec["kernel"], **spec["geometry"]}
    check_stated(stated, Geometry, "the description of a convolution", "copy the folder again")
    unknown = stated.keys() - Geometry.__annotations__.keys()
    if unknown:
        raise ValueError(f"no convolution has {sorted(unknown)} in its geometry; copy the folder again")
    count, groups = len(stated["kernel"]), stated.get("groups", 1)
    for name, value in ((n, v) for n, v in stated.items() if n != "groups"):
        if len(value) != count or not all(LEAST.get(name, 1) <= v < 2**20 for v in value) or not 1 <= count <= 3:
            raise ValueError(
                f"a convolution with {name}={value} and kernel={stated['kernel']} is none; copy it again"
            )
    if not 1 <= groups < 2**20:
        raise ValueError(f"a convolution of groups={groups} is none; copy the folder again")


def _bias(bias: Tensor | None) -> dict[str, Any] | None:
    return None if bias is None else {"shape": list(bias.shape), "dtype": str(bias.dtype).removeprefix("torch.")}


def _empty_bias(spec: dict[str, Any] | None, device: torch.device | str) -> Tensor | None:
    return None if spec is None else torch.empty(spec["shape"], dtype=getattr(torch, spec["dtype"]), device=device)
