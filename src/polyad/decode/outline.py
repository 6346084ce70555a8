"""The parts of a decoder that the loop runs, as they were read from the model's modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class NoLoopError(Exception):
    """The reason why a model is not decoded by the loop; whoever asks takes transformers' own."""


@dataclass(frozen=True)
class Norm:
    """A normalisation over the last dimension: ``rms`` or ``layer``, with what it multiplies by and adds.

    ``weight`` is (width,), or (heads, width) where each head has its own.
    """

    kind: str
    eps: float
    weight: Tensor | None = None
    bias: Tensor | None = None


@dataclass(frozen=True)
class Rotary:
    """The rotation of queries and keys: ``table`` gives cosines and sines for positions (tokens,), each
    (tokens, width), to be multiplied with a channel and with its ``partner``; the sine has the partner's sign."""

    table: Callable[[Tensor], tuple[Tensor, Tensor]]
    partner: Tensor
    name: tuple[object, ...]
    """Equal for rotations that are the same."""
    stated: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    """Cosines and sines as the model hands them to all its heads; None where heads of a layer have their own."""


@dataclass(frozen=True)
class Attention:
    """Grouped attention: ``heads`` query heads, ``key_heads`` of keys and values.

    ``projections`` are queries, keys and values, or one layer of all; its outputs lie side by side, or by key head
    where ``grouped``. ``flat_norms`` normalise all heads at once. ``window`` counts the tokens that a token sees.
    """

    module: nn.Module
    projections: tuple[nn.Module, ...]
    output: nn.Module
    heads: int
    key_heads: int
    width: int
    value_width: int
    scale: float
    grouped: bool = False
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    flat_norms: bool = False
    norms_last: bool = False
    rotary: Rotary | None = None
    window: int | None = None
    softcap: float | None = None


@dataclass(frozen=True)
class Mlp:
    """``down(act(gate(x)) * up(x))``, or ``down(act(up(x)))``: ``ups`` are the gate and the other, one layer of both
    (``halves`` says which half the activation meets, 0 or 1), or the plain layer alone."""

    ups: tuple[nn.Module, ...]
    down: nn.Module
    act: Callable[[Tensor], Tensor]
    halves: int | None = None


@dataclass(frozen=True)
class OwnModules:
    """The model's own modules in the place of an MLP, their outputs summed: experts with their router, or whatever
    else treats each token by itself. ``flat`` where they take rows (tokens, width) without a batch."""

    modules: tuple[nn.Module, ...]
    flat: bool


@dataclass(frozen=True)
class LayerOutline:
    """A decoder layer: norms before and after its attention and its MLP, and what each is scaled by in the sum.

    ``parallel`` where the MLP reads the layer's input, through ``mlp_norm`` or, where ``shares_norm``, through the
    attention's.
    """

    attention: Attention
    mlp: Mlp | OwnModules
    norm: Norm | None
    attention_after: Norm | None
    attention_share: float
    parallel: bool
    shares_norm: bool
    mlp_norm: Norm | None
    mlp_after: Norm | None
    mlp_share: float


@dataclass(frozen=True)
class Outline:
    """A whole decoder. ``positions`` is a table of learned positions, row by position; ``limit`` their number."""

    embed: nn.Module
    scale: float
    positions: Tensor | None
    layers: tuple[LayerOutline, ...]
    norm: Norm | None
    head: nn.Module
    head_scale: float
    softcap: float | None
    dtype: torch.dtype
    device: torch.device

    @property
    def limit(self) -> int | None:
        return None if self.positions is None else self.positions.shape[0]
