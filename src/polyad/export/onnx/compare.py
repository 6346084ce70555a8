"""The written graph beside its model: other batches, lengths and caches than it was traced with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyad.export.onnx.graph import ExportedGraph
from polyad.interop.onnx import Session
from polyad.models.source import origin

LONGEST = 1024
"""The longest text of a comparison, so the longest sliding window that it runs past."""


@dataclass(frozen=True)
class Case:
    """A run of a graph: tokens in chunks, each with the cache of those before it, or inputs in one piece."""

    name: str
    inputs: Mapping[str, Tensor]
    chunks: tuple[int, ...] = ()
    pad: int = 0


@dataclass
class Difference:
    """The largest relative difference of any output, where it was met, and how many top entries agree."""

    worst: float = 0.0
    output: str = ""
    case: str = ""
    agree: int = 0
    rows: int = 0
    cases: int = 0

    def add(self, name: str, case: str, ours: Tensor, theirs: Tensor) -> None:
        """Take one output of one case into account."""
        if ours.shape != theirs.shape:
            self.worst, self.output, self.case = float("inf"), name, case
            return
        if not ours.is_floating_point() or ours.numel() == 0:
            return
        ours, theirs = ours.double(), theirs.double()
        apart = (ours - theirs).norm() / ours.norm().clamp_min(1e-30)
        apart = float(apart) if bool(torch.isfinite(apart)) else float("inf")
        if apart > self.worst or not self.output:
            self.worst, self.output, self.case = max(apart, self.worst), name, case
        if name == "logits" and ours.ndim > 1:
            self.agree += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
            self.rows += ours.argmax(-1).numel()

    @property
    def top(self) -> float | None:
        """The share of positions whose likeliest entry is the same, of graphs with logits."""
        return self.agree / self.rows if self.rows else None


def cases_of(model: nn.Module, graph: ExportedGraph) -> list[Case]:
    """The runs on which a graph is compared: batches of 1 and 2, several lengths, with and without a cache."""
    if graph.kind == "decoder":
        return list(_decoder_cases(model))
    if graph.kind == "text":
        return list(_text_cases(model, graph))
    parts = {
        "batch 1": {n: t[:1] for n, t in graph.inputs.items()},
        "batch 2": dict(graph.inputs),
        "batch 3": {n: torch.cat([t[1:], t]) for n, t in graph.inputs.items()},
    }
    return [Case(name, part) for name, part in parts.items()]


def _text_cases(model: nn.Module, graph: ExportedGraph) -> Iterator[Case]:
    for batch, length in ((1, 5), (2, 9), (2, 17)):
        inputs = {}
        for place, name in enumerate(graph.inputs):
            size = length + (3 if name.startswith("decoder") else 0)
            inputs[name] = (
                _tokens(model, batch, size, place)
                if name.endswith("input_ids")
                else torch.ones(batch, size, dtype=torch.long)
            )
            if name == "token_type_ids":
                inputs[name][:, : size // 2] = 0
            elif name == "attention_mask" and batch > 1 and not _predicts(graph):
                inputs[name][1, size - 2 :] = 0
        yield Case(f"batch {batch}, length {length}", inputs)


def _predicts(graph: ExportedGraph) -> bool:
    return any("cache" in note for note in graph.notes)


def _decoder_cases(model: nn.Module) -> Iterator[Case]:
    most = min(getattr(model.config, "max_position_embeddings", None) or LONGEST, LONGEST)  # pyright: ignore
    window = getattr(model.config, "sliding_window", None) or 0  # pyright: ignore
    plans = [(1, (7, 1, 1), 0), (2, (12, 1, 3), 0), (1, (1, 1), 0), (2, (9, 1), 3)]
    if 16 < window + 5 <= most:
        plans.append((1, (window + 3, 1, 1), 0))
    for batch, chunks, pad in plans:
        ids = _tokens(model, batch, min(sum(chunks), most), len(chunks))
        padded = f", {pad} of padding" if pad else ""
        yield Case(f"batch {batch}, lengths {' + '.join(map(str, chunks))}{padded}", {"input_ids": ids}, chunks, pad)


def _tokens(model: nn.Module, batch: int, length: int, seed: int) -> Tensor:
    """Tokens (batch, length): of a text where the model has a tokenizer, else at random."""
    rows: int = model.get_input_embeddings().num_embeddings  # pyright: ignore
    tokenizer = origin(model).tokenizer
    if tokenizer is not None:
        from polyad.data import stdlib

        text = stdlib().documents[seed][1][: 12 * batch * length + 200]
        ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        if len(ids) >= batch * length:
            return torch.tensor(ids[: batch * length]).reshape(batch, length)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(min(1, rows - 1), rows, (batch, length), generator=generator)


@torch.no_grad()
def compare_graph(session: Session, model: nn.Module, graph: ExportedGraph, cases: list[Case]) -> Difference:
    """Run every case in the engine and in the model, and say where they differ most."""
    difference, caller = Difference(), graph.wrap(model)
    for case in cases:
        difference.cases += 1
        if graph.kind == "decoder":
            _compare_decoder(difference, session, model, graph, case)
            continue
        ours = caller(*case.inputs.values())
        theirs = session.run(case.inputs)
        for name, value in zip(graph.outputs, ours, strict=True):
            difference.add(name, case.name, value, theirs[name])
    return difference


def _compare_decoder(
    difference: Difference, session: Session, model: nn.Module, graph: ExportedGraph, case: Case
) -> None:
    """Compare with the plain forward pass over all tokens, which knows no cache."""
    ids = case.inputs["input_ids"]
    batch = len(ids)
    mask = torch.ones_like(ids)
    mask[:1, : case.pad] = 0
    places = (mask.cumsum(1) - 1).clamp_min(0)
    named = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
    plain = {name: t for name, t in named.items() if name in graph.inputs}
    out = model(**plain, use_cache=False, return_dict=True)
    cache = {name: t.expand(batch, -1, -1, -1) for name, t in graph.cache.items()}
    seen, start = list[dict[str, Tensor]](), 0
    for size in case.chunks:
        piece = {name: t[:, start : start + size] for name, t in plain.items()}
        piece["attention_mask"] = mask[:, : start + size]
        seen.append(session.run(piece | cache))
        cache = {name: seen[-1][name.replace("past_key_values", "present")] for name in cache}
        start += size
    for name in graph.outputs:
        if name.startswith("present."):
            continue
        whole = torch.cat([part[name] for part in seen], 1)
        difference.add(name, case.name, out[name][mask.bool()], whole[mask.bool()])
    _compare_cache(difference, model, graph, case, plain, cache)


def _compare_cache(
    difference: Difference,
    model: nn.Module,
    graph: ExportedGraph,
    case: Case,
    plain: Mapping[str, Tensor],
    cache: Mapping[str, Tensor],
) -> None:
    """Compare the cache that went through all steps with the one of a single pass, layer by layer."""
    empty = [t.expand(len(plain["input_ids"]), -1, -1, -1) for t in graph.cache.values()]
    ours = graph.wrap(model)(*plain.values(), *empty)[-len(empty) :]
    keep = slice(case.pad, None)
    for (name, theirs), value in zip(cache.items(), ours, strict=True):
        difference.add(name.replace("past_key_values", "present"), case.name, value[:, :, keep], theirs[:, :, keep])
