"""The frozen weight that an adapter changes: its numbers, its product, and how an update is applied beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad._moved import Renamed
from polyad.adapters.frozen.foreign_weight import is_foreign, numbers_of
from polyad.adapters.frozen.format_gradients import GRADIENTS
from polyad.adapters.frozen.layer_function import LayerFunction, function_of, has_hooks
from polyad.adapters.frozen.low_rank_product import is_traced, low_rank_product
from polyad.adapters.frozen.structured_product import structured_product
from polyad.formats import Format, LowRank
from polyad.layers import Factors, Linear
from polyad.layers.linear import as_autocast
from polyad.models.layer_matrices import is_transposed

Update = Format | Tensor
"""A change of a weight: a format or a tensor of the weight's own shape, or of (out, the rest) for a kernel."""


class Frozen:
    """The layer below an adapter, as the adapter sees it; each subclass knows one kind of layer.

    Calling it gives the layer's product without its bias. ``part`` limits it to some rows of a fused weight.
    """

    kind = "linear"
    plain: tuple[Callable[..., Any], ...] = (nn.Linear.forward, Linear.forward)
    """Forward passes that are exactly a product with ``weight`` and a bias."""

    def __init__(self, layer: nn.Module, part: tuple[int, int] | None = None) -> None:
        self.layer, self.part = layer, part
        self.transposed = is_transposed(layer)
        weight = layer._parameters.get("weight")
        codes = weight is not None and is_foreign(weight)
        self.exact = not codes and (self.transposed or type(layer).forward in self.plain)
        """True where the layer is its weight and nothing else; a quantised layer of another library is not."""
        self._function: LayerFunction | None = None
        self._tried = False

    @property
    def function(self) -> LayerFunction | None:
        """The function that the layer is of its weight where that is not torch's own and can be told."""
        if not self.exact and not self._tried:
            self._function, self._tried = function_of(self.layer), True
        return self._function

    @property
    def own(self) -> bool:
        """True where a changed weight has to stand in the layer, since its output is not torch's own product."""
        return self.function is not None and self.function.kind in ("own", "unknown")

    @property
    def must_call(self) -> bool:
        """True where the layer itself must be called, since it has hooks or another forward pass."""
        return has_hooks(self.layer)

    @property
    def stored_weight(self) -> Update:
        """The weight as the layer stores it: a tensor (out, …) or a format of (out, the rest)."""
        weight: Any = self.layer.weight
        if isinstance(weight, Factors):
            return weight()
        weight = weight() if callable(weight) else weight  # torch's own quantised layers
        weight = numbers_of(self.layer, weight) if is_foreign(weight) else weight
        return weight.mT if self.transposed else weight

    @property
    def mergeable(self) -> bool:
        """True where the weight is a floating-point tensor that an update can be added to."""
        weight = self.layer._parameters.get("weight")  # one that follows from others, as pruned ones do, is not there
        acts = self.exact or self.function is not None
        return acts and isinstance(weight, Tensor) and weight.is_floating_point()

    @property
    def weight(self) -> Tensor:
        """The dense weight, of ``shape``. A format is multiplied out, and a quantised weight read, at every call."""
        stored = self.stored_weight
        dense = stored.to_dense() if isinstance(stored, Format) else stored
        dense = dense if self.part is None else dense[self.part[0] : self.part[1]]
        if dense.numel() != torch.Size(self.shape).numel():
            raise ValueError(
                f"the weight of this {type(self.layer).__name__} is stored as {tuple(dense.shape)} and stands for "
                f"{self.shape}, in a way that only its own library can read; choose a method that does not read the "
                "weight, or put a dense layer in its place first"
            )
        return dense.reshape(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in) of this part of the weight; (out, in / groups, *kernel) for a convolution."""
        layer: Any = self.layer
        out, n = (layer.nf, layer.nx) if self.transposed else (layer.out_features, layer.in_features)
        return (int(out) if self.part is None else self.part[1] - self.part[0], int(n))  # some models hold tensors

    @property
    def bias(self) -> Tensor | None:
        bias: Any = getattr(self.layer, "bias", None)
        bias = bias() if callable(bias) else bias
        return bias if bias is None or self.part is None else bias[self.part[0] : self.part[1]]

    def rows(self, x: Tensor) -> int:
        """The number of rows that the layer multiplies for the input x."""
        return x.numel() // x.shape[-1]

    def __call__(self, x: Tensor) -> Tensor:
        """The frozen product, without bias."""
        if isinstance(self.layer, Linear) and self.exact and not self.must_call:
            y = self.layer.multiply(x)
            return y if self.part is None else y[..., self.part[0] : self.part[1]]
        stored = self.stored_weight if self.exact and not self.must_call else None
        if stored is None:
            y = self.layer(x) if self.bias is None else self.layer(x) - self.bias
            return y if self.part is None else y[..., self.part[0] : self.part[1]]
        y = self.product(x, stored) if isinstance(stored, Tensor) else self.apply_update(stored, x)
        return y if self.part is None else y[..., self.part[0] : self.part[1]]

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer with another weight in place of its own, without bias."""
        return F.linear(x, weight)

    def add_bias(self, y: Tensor) -> Tensor:
        """Add the layer's bias to y."""
        return y if self.bias is None else y + self.along(self.bias.to(y.dtype), y)

    def along(self, v: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002
        """One number a row of the weight, (out,), shaped to multiply the product with x."""
        return v

    def apply_update(self, update: Update, x: Tensor) -> Tensor:
        """Multiply x by an update, by its structure."""
        if isinstance(update, Tensor):
            return self.product(x, update.to(as_autocast(x).dtype))
        return update.linear(as_autocast(x))

    def add_update(
        self, total: Tensor, update: Update, x: Tensor, scale: float, dropout: float, gains: Tensor | None = None
    ) -> Tensor:
        """Add ``scale`` times the product of the update with x, of which a share is dropped, to ``total``; multiply
        all of it by ``gains``, one number a row of the weight."""
        if not isinstance(update, LowRank) or self.kind != "linear":
            if gains is None and self._has_gradients(update, x, total):
                assert isinstance(update, Format)
                return structured_product(total, x, update, scale, dropout)
            change = self.apply_update(update, F.dropout(x, dropout) if dropout else x).to(total.dtype)
            total = total + scale * change
            return total if gains is None else total * self.along(gains.to(total.dtype), x)
        x = as_autocast(x)
        gains = None if gains is None else gains.to(x.dtype)
        low = update.left.to(x.dtype), update.right.to(x.dtype)
        return low_rank_product(x, None, total.to(x.dtype), *low, scale, dropout, gains)

    def _has_gradients(self, update: Update, x: Tensor, total: Tensor) -> bool:
        """True for updates whose own gradients, which keep x alone, are known."""
        if type(update) not in GRADIENTS or self.kind != "linear" or not torch.is_grad_enabled() or is_traced():
            return False
        return update.dtype == total.dtype == x.dtype and as_autocast(x) is x

    def can_fuse(self, x: Tensor) -> bool:
        """True where a low-rank change can be applied in one pass with the product: the layer is a weight of x's
        dtype without hooks, and torch does not compile."""
        weight = self.layer._parameters.get("weight")
        if is_traced() or self.part is not None or not self.exact or self.kind != "linear":
            return False
        if type(weight) is not nn.Parameter or weight.dtype != x.dtype or self.must_call:
            return False
        return as_autocast(x) is x

    def fuse_low_rank(
        self, update: LowRank, x: Tensor, scale: float, dropout: float, gains: Tensor | None = None
    ) -> Tensor:
        """Run the layer and a low-rank update in one pass; ``gains`` multiply the sum before a bias is added."""
        parameters, left, right = self.layer._parameters, update.left, update.right
        weight, bias = (
            parameters["weight"],
            parameters.get("bias"),
        )  # read past ``stored_weight``, which takes as long as a small product
        assert weight is not None
        weight = weight.mT if self.transposed else weight
        if left.dtype != x.dtype:
            left, right = left.to(x.dtype), right.to(x.dtype)
        if gains is None:
            return low_rank_product(x, weight, bias, left, right, scale, dropout)
        return self.add_bias(low_rank_product(x, weight, None, left, right, scale, dropout, gains.to(x.dtype)))

    def dense(self, update: Update) -> Tensor:
        """The update as a tensor of ``shape``."""
        return (update.to_dense() if isinstance(update, Format) else update).reshape(self.shape)

    watched, held, biased = Renamed("must_call"), Renamed("stored_weight"), Renamed("add_bias")
    applied, onto = Renamed("apply_update"), Renamed("add_update")
    joins, joined = Renamed("can_fuse"), Renamed("fuse_low_rank")


def suffix(part: tuple[int, int] | None) -> str:
    """The rows of a part of a weight, which follow its layer's path in its name; nothing for the whole."""
    return "" if part is None else f"[{part[0]}:{part[1]}]"
