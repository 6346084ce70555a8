"""Reading of a decoder layer: what its attention and its MLP read, and how its output is summed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from polyad.decode.outline import Attention, LayerOutline, NoLoopError, Norm
from polyad.decode.structure.attention import read_attention
from polyad.decode.structure.linears import linear_calls, other_calls
from polyad.decode.structure.mlp import read_mlp
from polyad.decode.structure.nearness import equal, multiple, same
from polyad.decode.structure.norms import read_norm
from polyad.decode.structure.own_modules import read_own_modules
from polyad.decode.structure.trace import Trace


def read_layer(trace: Trace, number: int, module: nn.Module) -> LayerOutline:
    """A decoder layer, held to the numbers that went through it."""
    what = f"layer {number}"
    attention = read_attention(trace, number, what)
    try:
        return _read_around(trace, module, attention, read_mlp(trace, module, attention.module, what), what)
    except NoLoopError as plain:
        try:
            mlp = read_own_modules(trace, module, attention.module, what)
            return _read_around(trace, module, attention, mlp, what)
        except NoLoopError:
            raise plain from None


def _read_around(
    trace: Trace, module: nn.Module, attention: Attention, read: tuple[Any, Tensor, Tensor], what: str
) -> LayerOutline:
    """The layer around an attention and an MLP with its input and output."""
    call, inner = trace.call(module, what), trace.call(attention.module, f"{what}: its attention")
    mlp, mlp_input, mlp_output = read
    linears = linear_calls(trace, module, without=attention.module)
    norms = [c for c in other_calls(trace, module, linears, without=attention.module) if _has_width(c, call.input)]
    x, y = call.input, call.result
    read_by_attention = inner.input
    norm = None if equal(read_by_attention, x) else _between(norms, x, read_by_attention, f"{what}: before attention")
    after, attended = _after(norms, inner.result, f"{what}: after attention")
    mlp_after, added = _after(norms, mlp_output, f"{what}: after its MLP")
    parallel = equal(mlp_input, read_by_attention) or _joins(norms, x, mlp_input) or equal(mlp_input, x)
    shares = parallel and equal(mlp_input, read_by_attention)
    middle, share = (x, 1.0) if parallel else _sum(norms, (x, attended, mlp_input), trace.stated, what)
    mlp_norm = None
    if not shares and not equal(mlp_input, middle):
        mlp_norm = _between(norms, middle, mlp_input, f"{what}: before its MLP")
    base = x + attended if parallel else middle
    mlp_share = multiple(y, added, trace.stated, base)
    if not same(base + mlp_share * added, y):
        raise NoLoopError(f"{what}: its output is no sum of its input, its attention and its MLP")
    return LayerOutline(attention, mlp, norm, after, share, parallel, shares, mlp_norm, mlp_after, mlp_share)


def _has_width(call: Any, x: Tensor) -> bool:
    return call[1].shape == x.shape


def _joins(norms: list[Any], x: Tensor, y: Tensor) -> bool:
    return any(equal(a, x) and equal(b, y) for _, a, b in norms)


def _between(norms: list[Any], x: Tensor, y: Tensor, what: str) -> Norm:
    """The normalisation that makes y of x."""
    for module, before, result in norms:
        if equal(before, x) and equal(result, y):
            return read_norm(module, before, what)
    raise NoLoopError(f"{what} stands something else than one normalisation")


def _after(norms: list[Any], x: Tensor, what: str) -> tuple[Norm | None, Tensor]:
    """The normalisation of an output, where there is one, and what comes of it."""
    for module, before, result in norms:
        if equal(before, x):
            return read_norm(module, before, what), result
    return None, x


def _sum(
    norms: list[Any], states: tuple[Tensor, Tensor, Tensor], stated: Collection[float], what: str
) -> tuple[Tensor, float]:
    """The sum of a layer's input and its attention, which the MLP reads or its norm does, and the latter's share."""
    x, attended, mlp_input = states
    starts = [mlp_input, *(before for _, before, result in norms if equal(result, mlp_input))]
    for middle in starts:
        share = multiple(middle, attended, stated, x)
        if share and same(x + share * attended, middle):
            return middle, share
    raise NoLoopError(f"{what}: its MLP reads no sum of the layer's input and its attention")
