"""Reading of an attention module: projections, norms of heads, rotation, and the attention itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from polyad.decode.outline import Attention, NoLoopError, Norm
from polyad.decode.steps.attend import attend_plainly
from polyad.decode.structure.linears import linear_calls, other_calls
from polyad.decode.structure.nearness import equal, multiple, same
from polyad.decode.structure.norms import normalize, read_norm
from polyad.decode.structure.rotary import rotaries, rotate_heads
from polyad.decode.structure.trace import Attended, Trace
from polyad.models.attention import ReducedAttention


def read_attention(trace: Trace, number: int, what: str) -> Attention:
    """The attention of layer ``number`` of the cache."""
    attended = trace.attended[number]
    module = attended.module
    read = _sizes(trace, number, what)
    call = trace.call(module, f"{what}: its attention")
    linears = linear_calls(trace, module)
    outputs = [c for c in linears if equal(c[1].flatten(2), attended.result[..., : read.value_width].flatten(2))]
    if len(outputs) != 1 or not equal(outputs[0][2], call.result):
        raise NoLoopError(f"{what}: something else than one linear layer follows its attention")
    before = [c for c in linears if c is not outputs[0]]
    inputs = [c for c in before if equal(c[1], before[0][1])]
    if len(inputs) != len(before) or len(before) not in (1, 3):
        raise NoLoopError(f"{what}: {len(before)} linear layers make its queries, keys and values")
    read = dataclasses.replace(read, output=outputs[0][0], window=trace.windows[number])
    for candidate, states in _splits(read, before):
        norms = _norms(trace, module, linears, states, what)
        for rotary in rotaries(trace, call, read.width, module):
            whole = _explained(dataclasses.replace(candidate, rotary=rotary), states, norms, attended)
            if whole is not None:
                _check_function(read, attended, what)
                return whole
    raise NoLoopError(f"{what}: its queries and keys are not made by the projections, norms and rotations known here")


def _sizes(trace: Trace, number: int, what: str) -> Attention:
    """The sizes and the numbers that the attention function was given."""
    attended = trace.attended[number]
    options = {name: value for name, value in attended.options.items() if value is not None}
    if options.get("sliding_window") not in (None, trace.windows[number]):
        raise NoLoopError(f"{what}: its attention and its cache disagree about a window")
    kinds = set(getattr(trace.config, "layer_types", None) or ())
    if any("chunk" in kind for kind in kinds):
        raise NoLoopError(f"{what}: some layers attend by chunks")
    keys, values = attended.keys, attended.values
    scale = options.get("scaling", attended.query.shape[-1] ** -0.5)
    module = attended.module
    reduced = isinstance(module, ReducedAttention)
    return Attention(
        module, (), module, attended.query.shape[1], keys.shape[1],
        attended.query.shape[-1] if not reduced else _reduced_width(module),
        module.value_width if reduced else values.shape[-1],
        float(scale), softcap=options.get("softcap"),
    )  # fmt: skip


def _reduced_width(module: ReducedAttention) -> int:
    return module.head_width if module.pairs is None else 2 * module.pairs.shape[1]


def _splits(read: Attention, before: list[Any]) -> Iterator[tuple[Attention, tuple[Tensor, Tensor, Tensor]]]:
    """The ways in which projections may lie, with queries, keys and values (1, tokens, heads, width) of each."""
    heads, key_heads = read.heads, read.key_heads
    layers = tuple(call[0] for call in before)
    if len(before) == 3:
        for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1), (0, 2, 1), (1, 2, 0), (2, 1, 0)):
            outputs = [before[i][2] for i in order]
            if [x.shape[-1] for x in outputs] == _widths(read):
                chosen = dataclasses.replace(read, projections=tuple(layers[i] for i in order))
                counts = (heads, key_heads, key_heads)
                yield chosen, tuple(x.unflatten(-1, (n, -1)) for x, n in zip(outputs, counts, strict=True))  # pyright: ignore
        return
    fused = before[0][2]
    if fused.shape[-1] != sum(_widths(read)):
        return
    chosen = dataclasses.replace(read, projections=layers)
    parts = fused.split(_widths(read), -1)
    yield chosen, tuple(x.unflatten(-1, (n, -1)) for x, n in zip(parts, (heads, key_heads, key_heads), strict=True))  # pyright: ignore
    if read.width == read.value_width:
        group = heads // key_heads
        by_head = fused.unflatten(-1, (key_heads, group + 2, read.width))
        queries = by_head[..., :group, :].flatten(2, 3)
        yield dataclasses.replace(chosen, grouped=True), (queries, by_head[..., group, :], by_head[..., group + 1, :])


def _widths(read: Attention) -> list[int]:
    return [read.heads * read.width, read.key_heads * read.width, read.key_heads * read.value_width]


Norms = tuple[Norm | None, Norm | None, bool]
"""Those of queries and of keys, and whether each is of all heads at once."""


def _norms(trace: Trace, module: nn.Module, linears: list[Any], states: Any, what: str) -> Any:
    """(norms, last) for each arrangement in which the modules of the attention normalise queries and keys."""
    calls = [c for c in other_calls(trace, module, linears) if any(True for _ in c[0].parameters(recurse=False))]
    if not calls:
        return [((None, None, False), False)]
    arrangements: list[Any] = []
    pair, flat = [], False
    for state in states[:2]:
        layouts = ((state, False), (state.transpose(1, 2), False), (state.flatten(2), True))
        matching = [(m, x, f) for m, x, _ in calls for layout, f in layouts if equal(x, layout)]
        if matching:
            read, flat = read_norm(matching[0][0], matching[0][1], what), matching[0][2]
            pair.append(read)
        else:
            pair.append(None)
    if len(calls) == sum(norm is not None for norm in pair):
        arrangements.append(((*pair, flat), False))
    elif len(calls) == 2 and pair == [None, None]:  # tried after the rotation, on numbers of their own
        pair = [read_norm(m, x, what) for m, x, _ in calls]
        arrangements += [((*pair, False), True), ((*pair[::-1], False), True)]
    return arrangements


def _explained(read: Attention, states: Any, arrangements: Any, attended: Attended) -> Attention | None:
    """The attention with those norms that, with its rotation, make the queries, keys and values that were seen."""
    if not equal(states[2].transpose(1, 2), attended.values[..., : read.value_width]):
        return None
    for (query_norm, key_norm, flat), last in arrangements:
        whole = dataclasses.replace(read, query_norm=query_norm, key_norm=key_norm, flat_norms=flat, norms_last=last)
        query, keys = (x[..., : read.width].transpose(1, 2) for x in (attended.query, attended.keys))
        if same(_turn(whole, states[1], key_norm), keys):
            turned = _turn(whole, states[0], query_norm)
            factor = multiple(query, turned)
            if same(factor * turned, query):  # some scale their queries before
                return dataclasses.replace(whole, scale=read.scale * factor)
    return None


def _turn(read: Attention, x: Tensor, norm: Norm | None) -> Tensor:
    """Queries or keys (1, tokens, heads, width) after their norm and their rotation."""
    heads = x.shape[2]
    if norm is not None and not read.norms_last:
        x = normalize(norm, x.flatten(2) if read.flat_norms else x).reshape(x.shape)
    if read.rotary is not None:
        x = rotate_heads(read.rotary, x, heads)
    return normalize(norm, x) if norm is not None and read.norms_last else x


def _check_function(read: Attention, attended: Attended, what: str) -> None:
    q, k = attended.query[..., : read.width], attended.keys[..., : read.width]
    result = attend_plainly(q, k, attended.values[..., : read.value_width], read.scale, read.softcap, read.window)
    if not same(result.transpose(1, 2), attended.result[..., : read.value_width]):
        raise NoLoopError(f"{what}: its attention is no plain causal one")
