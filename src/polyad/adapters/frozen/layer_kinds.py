"""The kinds of layers that adapters change, as they differ from a product with a matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad.adapters.frozen.frozen import Frozen, Update
from polyad.formats import Format
from polyad.layers import Conv, Embedding, Linear
from polyad.layers.linear import as_autocast
from polyad.models.layer_matrices import is_transposed


class FrozenEmbedding(Frozen):
    """An embedding: its product is a look-up of rows."""

    kind = "embedding"
    plain = (nn.Embedding.forward, Embedding.forward)

    def __init__(self, layer: nn.Module, part: tuple[int, int] | None = None) -> None:
        super().__init__(layer, part)
        self.exact = self.exact and getattr(layer, "max_norm", None) is None  # which shortens rows as they are read

    @property
    def shape(self) -> tuple[int, ...]:
        layer: Any = self.layer
        return (layer.num_embeddings, layer.embedding_dim)

    def rows(self, x: Tensor) -> int:
        return x.numel()

    @property
    def gain(self) -> float:
        """The number by which the layer multiplies what it looks up."""
        return 1.0 if self.function is None else self.function.gain

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._scale(F.embedding(x, weight))

    def _scale(self, y: Tensor) -> Tensor:
        return y if self.gain == 1 else y * self.gain

    def along(self, v: Tensor, x: Tensor) -> Tensor:
        return v[x].unsqueeze(-1)

    def apply_update(self, update: Update, x: Tensor) -> Tensor:
        return self._scale(F.embedding(x, update) if isinstance(update, Tensor) else update.rows(x))

    def add_update(
        self,
        total: Tensor,
        update: Update,
        x: Tensor,
        scale: float,
        dropout: float,  # noqa: ARG002
        gains: Tensor | None = None,
    ) -> Tensor:
        return super().add_update(total, update, x, scale, 0.0, gains)


class FrozenConv(Frozen):
    """A convolution of one to three dimensions; updates may have the kernel's shape or (out, the rest)."""

    kind = "conv"
    plain = (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward, Conv.forward)

    def __init__(self, layer: nn.Module, part: tuple[int, int] | None = None) -> None:
        super().__init__(layer, part)
        conv: Any = layer
        of_formats = isinstance(layer, Conv)
        self.kernel: tuple[int, ...] = tuple(conv.kernel if of_formats else conv.kernel_size)
        stated = conv.geometry if of_formats else vars(conv)
        self.geometry = {name: tuple(stated[name]) for name in ("stride", "dilation")}
        self.groups = int(stated["groups"])
        mode = "zeros" if of_formats else conv.padding_mode
        self.mode = "constant" if mode == "zeros" else mode
        pads = (
            [p for n in reversed(stated["padding"]) for p in (n, n)]
            if of_formats
            else conv._reversed_padding_repeated_twice
        )
        self.pads = list(pads)
        even = self.pads[::2] == self.pads[1::2] and mode == "zeros"
        self.padding = tuple(reversed(self.pads[::2])) if even else None  # what torch's convolution can do itself

    @property
    def shape(self) -> tuple[int, ...]:
        layer: Any = self.layer
        if isinstance(layer, Conv):
            out, columns = layer.weight.shape
            return (out, columns // torch.Size(self.kernel).numel(), *self.kernel)
        return tuple(layer.weight.shape)

    def rows(self, x: Tensor) -> int:
        batch = x.shape[0] if x.ndim == len(self.kernel) + 2 else 1
        return batch * x.shape[-len(self.kernel) :].numel()

    def along(self, v: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002
        return v.reshape(-1, *(1 for _ in self.kernel))

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        x, padding = self.pad_input(x)
        run = (F.conv1d, F.conv2d, F.conv3d)[len(self.kernel) - 1]
        return run(x, weight.reshape(self.shape), None, padding=padding, groups=self.groups, **self.geometry)

    def apply_update(self, update: Update, x: Tensor) -> Tensor:
        x = as_autocast(x)
        if isinstance(update, Format) and len(update.shape) == 2 and self.groups == 1:
            x, padding = self.pad_input(x)
            return update.convolve(x, self.kernel, padding=padding, groups=1, **self.geometry)
        return self.product(x, self.dense(update).to(x.dtype))  # a grouped kernel has no structure to apply

    def pad_input(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Pad x where torch's convolution cannot; return it with the padding that is left for that."""
        if self.padding is not None:
            return x, self.padding
        return F.pad(x, self.pads, mode=self.mode), (0,) * len(self.kernel)


class FrozenExpert(Frozen):
    """One expert of a mixture: a matrix of a three-dimensional parameter."""

    kind = "experts"

    def __init__(self, weight: Tensor) -> None:
        self.matrix, self.part, self.transposed, self.exact = weight, None, False, True
        self._function = None

    @property
    def must_call(self) -> bool:
        return False

    @property
    def stored_weight(self) -> Tensor:
        return self.matrix

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.matrix.shape)

    @property
    def bias(self) -> None:
        return None


def frozen_view(layer: nn.Module, part: tuple[int, int] | None = None) -> Frozen | None:
    """The view of a layer that adapters know how to change; None for other modules."""
    if isinstance(layer, nn.Embedding | Embedding):
        return FrozenEmbedding(layer, part)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | Conv):
        return FrozenConv(layer, part)
    if isinstance(layer, nn.Linear | Linear) or is_transposed(layer) or _is_quantised(layer):
        return Frozen(layer, part)
    return None


def can_drop(base: Frozen) -> bool:
    """True for layers whose inputs an adapter can drop in training: numbers, multiplied by the weight."""
    return base.kind not in ("embedding", "experts") and not base.own


def _is_quantised(layer: nn.Module) -> bool:
    """True for a linear layer of another library, which has the sizes of one and a weight."""
    return all(hasattr(layer, name) for name in ("in_features", "out_features", "weight"))
