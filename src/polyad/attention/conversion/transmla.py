"""Grouped-query attention written as latent attention: exactly at the size of its cache, then smaller."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.attention.conversion._example import draw_decoder, logits_change
from polyad.attention.methods.latent import LatentAttention, settings_of
from polyad.attention.module import check_pairs
from polyad.models import Block, Moments, blocks, decoder_layers

TRANSMLA = Paper(
    "Meng, Tang, Tang, Yao, Sun, Zhang", 2025, "TransMLA: Multi-Head Latent Attention Is All You Need",
    "arXiv:2502.07864", "transmla",
    "GQA as MLA, rotation of keys that commutes with RoPE, balanced joint PCA of keys and values",
)  # fmt: skip
POSITIONS = 1024
"""Relative positions over which the harm of an omitted rotation is averaged."""


@method(
    "operation",
    example={
        "arguments": lambda g: {"model": draw_decoder(g)},
        "off": lambda modules, model: logits_change(modules, model) / 1e-4,
    },
    papers=(TRANSMLA,),
)
def transmla(
    model: nn.Module,
    *,
    rank: int | None = None,
    rope: int | None = None,
    moments: Mapping[str, Moments] | None = None,
) -> dict[str, LatentAttention]:
    """Latent attention for every attention module of a decoder of Llama's kind, by path; the model is not changed.

    Without ``rank`` the modules compute what the model did: the rotary key is the keys of all g heads side by side
    (g d numbers a token) and the latent their values, so that the cache has the size that it had. With ``rank``:

    - for each rotation frequency an orthogonal matrix over the g heads, which commutes with the rotation, turns their
      keys to principal components (RoRoPE); ``rope`` numbers (by default d) go on being rotated, the others are not;
    - unrotated keys, scaled to the mean square of the values, and values together go into the best latent of ``rank``
      numbers (PCA, uncentred), rank ≤ 2 g d - rope.

    Rotated are the pairs whose omitted rotation would harm scores most: energy of keys times that of queries times
    the mean of |e^{iθm} - 1|² over 1,024 relative positions m. The paper takes the first components of frequencies
    folded together. ``moments`` holds ``second`` and ``mean`` of the inputs of each ``k_proj``
    (``polyad.models.collect``). Weights are made in float64 and have the model's dtype. Biases are kept; the queries'
    projection grows to heads (d + rope) rows.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = {"hidden_size": 32, "intermediate_size": 8, "num_attention_heads": 4, "vocab_size": 9}
    >>> model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, num_key_value_heads=2, **sizes))
    >>> latent = transmla(model)["model.layers.0.self_attn"]
    >>> latent.rope, latent.rank
    (16, 16)
    """
    sites = {b.home: b for b in blocks(model, ("qk",))}
    absent = [p for p in decoder_layers(model) if not any(home.startswith(f"{p}.") for home in sites)]
    if absent:
        raise ValueError(f"the attention of {absent[0]} is not of a kind that can be converted; nothing was changed")
    if rank is None and rope is not None:
        raise ValueError(f"rope={rope} was given without rank; the exact conversion rotates all keys")
    first = next(iter(sites.values()))
    if rank is not None:
        rope, every = first.width if rope is None else rope, first.key_heads * first.width
        _check.rank(rope, every, f"the width of all keys, {first.key_heads} x {first.width}", "rope")
        check_pairs("rope", rope)
        _check.rank(rank, 2 * every - rope, f"what is left of keys and values beside rope={rope}")
        if moments is None:
            raise ValueError(
                f"rank={rank} needs moments; give those of polyad.models.collect, or call "
                "polyad.attention.convert_attention"
            )
    harm = _harm(model, first.width // 2)
    return {
        path: _Conversion(model.get_submodule(path), block).module(
            rank, rope, None if moments is None else moments[block.roles["k"]], harm
        )
        for path, block in sites.items()
    }


def _harm(model: Any, half: int) -> Tensor:
    """The mean of |e^{iθm} - 1|² for each frequency; ones where the model does not give its table."""
    table = getattr(model.base_model, "rotary_emb", None)
    if table is None:
        return torch.ones(half, dtype=torch.float64)
    cos, sin = table(torch.zeros(1, dtype=torch.float64), torch.arange(POSITIONS)[None])
    length = (cos.square() + sin.square()).sqrt()
    return (2 - 2 * cos / length).double().mean(1)[0, :half].cpu()


class _Conversion:
    """One layer's projections in float64; the last column of each is its bias."""

    def __init__(self, before: nn.Module, block: Block) -> None:
        self.before, self.heads, self.groups, self.d = before, block.heads, block.key_heads, block.width
        self.half = self.d // 2
        self.biased = {r: getattr(before.get_submodule(f"{r}_proj"), "bias") is not None for r in "qkv"}  # noqa: B009
        self.q = self._rows("q").view(self.heads, 2, self.half, -1)
        self.k = self._rows("k").view(self.groups, 2, self.half, -1)
        self.v = self._rows("v")

    def _rows(self, role: str) -> Tensor:
        layer: Any = self.before.get_submodule(f"{role}_proj")
        weight = layer.weight.detach().double()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().double()
        return torch.cat((weight, bias[:, None]), 1)

    def module(self, rank: int | None, rope: int | None, stats: Moments | None, harm: Tensor) -> LatentAttention:
        count = self.groups * self.half
        if rank is None or rope is None or stats is None:
            turn = torch.eye(self.groups, dtype=torch.float64).expand(self.half, -1, -1)
            return self._assemble(turn, torch.arange(count), torch.arange(0), None, None)
        moment = _moment(stats)
        spread = torch.einsum("gpjx,xy,hpjy->jgh", self.k, moment, self.k)
        energy, vectors = torch.linalg.eigh(spread)
        turn = vectors.mT.flip(1)  # (frequencies, components, heads)
        asked = torch.einsum("hpjx,xy,hpjy->hj", self.q, moment, self.q).unflatten(0, (self.groups, -1)).sum(1)
        asking = torch.einsum("jcg,gj->jc", turn.square(), asked)
        order = (energy.flip(1) * asking * harm[:, None]).mT.flatten().argsort(descending=True, stable=True)
        return self._assemble(turn, order[: rope // 2].sort().values, order[rope // 2 :].sort().values, moment, rank)

    def _assemble(
        self, turn: Tensor, kept: Tensor, rest: Tensor, moment: Tensor | None, rank: int | None
    ) -> LatentAttention:
        """The module that rotates the pairs ``kept``; pair c * half + j is component c of frequency j."""
        keys = torch.einsum("jcg,gpjx->pcjx", turn, self.k).flatten(1, 2)
        share = turn.permute(2, 1, 0).flatten(1).repeat_interleave(self.heads // self.groups, 0)  # (heads, pairs)
        rotary = (share[:, None, kept, None] * self.q[:, :, kept % self.half]).flatten(1, 2)
        basis, latent = self._basis(keys[:, rest].flatten(0, 1), moment, rank)
        n = 2 * len(rest)
        spread = basis.new_zeros(self.heads, 2, len(rest), 2, self.half)
        for part in range(2):
            spread[:, part, torch.arange(len(rest)), part, rest % self.half] = share[:, rest]
        key_up = spread.view(self.heads, n, self.d).mT[:, : self.d if n else 0] @ basis[:n]
        value_up = basis[n:].unflatten(0, (self.groups, self.d)).repeat_interleave(self.heads // self.groups, 0)
        queries = torch.cat((self.q.flatten(1, 2), rotary), 1) if n else rotary
        return self._build(
            queries, torch.cat((latent, keys[:, kept].flatten(0, 1))), key_up, value_up, kept % self.half
        )

    def _basis(self, keys: Tensor, moment: Tensor | None, rank: int | None) -> tuple[Tensor, Tensor]:
        """The matrix (n + g d, rank) from latents to unrotated keys and values, and the rows that make the latent."""
        if moment is None:
            return torch.eye(len(self.v), dtype=torch.float64), self.v
        squares = [float(torch.einsum("nx,xy,ny->", rows, moment, rows)) for rows in (keys, self.v)]
        scale = (squares[1] / squares[0]) ** 0.5 if len(keys) and squares[0] else 1.0
        rows = torch.cat((scale * keys, self.v))
        vectors = torch.linalg.eigh(rows @ moment @ rows.mT)[1].flip(1)[:, :rank]
        basis = vectors.clone()
        basis[: len(keys)] /= scale
        return basis, vectors.mT @ rows

    def _build(
        self, queries: Tensor, down: Tensor, key_up: Tensor, value_up: Tensor, pairs: Tensor
    ) -> LatentAttention:
        old: Any = self.before.get_submodule("q_proj")
        with torch.device("meta"):  # every number is set below, none is drawn
            module = LatentAttention(
                old.in_features, self.heads, rank=value_up.shape[-1], nope=key_up.shape[1], rope=2 * len(pairs),
                value=self.d, pairs=pairs, scaling=float(getattr(self.before, "scaling", self.d**-0.5)),  # pyright: ignore[reportArgumentType]
                query_bias=self.biased["q"], latent_bias=self.biased["k"] or self.biased["v"],
                **copy.deepcopy(settings_of(self.before)),  # training what is made here must not change the model
            )  # fmt: skip
        for layer, rows in ((module.q_proj, queries.flatten(0, 1)), (module.kv_down, down)):
            layer.weight = nn.Parameter(rows[:, :-1].to(old.weight))
            if layer.bias is not None:
                layer.bias = nn.Parameter(rows[:, -1].to(old.weight))
        module.key_up = nn.Parameter(key_up.to(old.weight))
        module.value_up = nn.Parameter(value_up.to(old.weight))
        module.pairs = pairs.to(old.weight.device)
        return module


def _moment(stats: Moments) -> Tensor:
    """E[x xᵀ] of inputs with a one behind them, for the biases."""
    second, mean = (t.double().cpu() for t in (stats.second, stats.mean) if t is not None)
    return torch.cat((torch.cat((second, mean[:, None]), 1), torch.cat((mean[None], torch.ones(1, 1)), 1)))
