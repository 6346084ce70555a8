"""The same function in other numbers: a model moved off the grid on which its weights were stored."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from polyad._card import Paper, method
from polyad.models.blocks import Block, blocks, decoder_layers, readers
from polyad.models.proof import LayerTrial
from polyad.models.replacement import Replacement
from polyad.models.twin import Twin

NEYSHABUR = Paper(
    "Neyshabur, Salakhutdinov, Srebro", 2015, "Path-SGD: Path-Normalized Optimization in Deep Neural Networks",
    "arXiv:1506.02617", adds="rescalings of a unit's incoming against its outgoing weights change nothing",
)  # fmt: skip


@method("rescale", makes=Replacement, papers=(NEYSHABUR,))
def equivalent_rescaling(model: nn.Module, *, generator: Generator, spread: float = 0.35) -> Replacement:
    """Multiply weights by random factors exp(uniform(-spread, spread)) wherever the network is invariant to it.

    Each normalisation's weight against the columns that read it; rows of the up projection against columns of the
    down projection; rows of the value against columns of the output projection, by head; queries against keys, by
    rotation pair. Where one forward pass of the layer shows that the function would be another (a gate or a norm
    stands between the two), the weights stay. The logits change by rounding alone. What was stored on a coarse grid
    no longer lies on it, so that rounding it again costs what it would cost any model. Cost: one copy of the
    weights, and some forward passes of each layer on a few tokens.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> small = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "vocab_size": 32}
    >>> model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, num_key_value_heads=1, **small))
    >>> made = equivalent_rescaling(model, generator=torch.Generator().manual_seed(0))
    >>> made.weights["model.layers.0.self_attn.k_proj.weight"].shape
    torch.Size([8, 16])
    """
    weights: dict[str, Tensor] = {}

    def get(name: str) -> Tensor:
        if name not in weights:
            owner, _, leaf = name.rpartition(".")
            weights[name] = getattr(model.get_submodule(owner), leaf).detach().clone()
        return weights[name]

    trial, refusals = LayerTrial(Twin(model), decoder_layers(model)), dict[str, str]()
    for norm, paths in readers(model).items():
        change = functools.partial(_rescale_norm, norm=norm, paths=paths)
        if _is_proved(trial, norm.rpartition(".")[0], "", norm, change, spread, refusals):
            change(get, Draws(spread, generator))
    for block in blocks(model):
        change = functools.partial(_rescale_block, block=block, model=model)
        home = block.home if block.kind == "mlp" else ""
        if _is_proved(trial, block.within, home, block.name, change, spread, refusals):
            change(get, Draws(spread, generator))
    if not weights:
        place, reason = next(iter(refusals.items()))
        raise ValueError(
            f"equivalent_rescaling would change what {type(model).__name__} computes: of {place}, {reason}; leave it "
            "out of the recipe"
        )
    return Replacement(weights)


class Draws:
    """Draws random factors around one."""

    def __init__(self, spread: float, generator: Generator) -> None:
        self.spread, self.generator = spread, generator

    def __call__(self, count: int) -> Tensor:
        return torch.empty(count).uniform_(-self.spread, self.spread, generator=self.generator).exp()


def _is_proved(
    trial: LayerTrial, layer: str, home: str, name: str, change: Any, spread: float, refusals: dict[str, str]
) -> bool:
    """True if one forward pass of the layer shows that a rescaling leaves its function; else the reason is noted."""

    def rescale(get: Callable[[str], Tensor]) -> Replacement:
        weights: dict[str, Tensor] = {}

        def once(name: str) -> Tensor:
            return weights.setdefault(name, weights[name] if name in weights else get(name))

        change(once, Draws(spread, Generator().manual_seed(0)))
        return Replacement(weights)

    said = trial.difference(layer, home, lambda _get: Replacement({}), rescale)
    if said is not None:
        refusals[name] = said
    return said is None


def _rescale_norm(get: Any, factors: Any, norm: str, paths: list[str]) -> None:
    scale = factors(get(norm + ".weight").shape[0])
    get(norm + ".weight").mul_(scale)
    for path in paths:
        get(path + ".weight").div_(scale)


def _rescale_block(get: Any, factors: Any, block: Block, model: nn.Module) -> None:
    def bias(role: str) -> Tensor | None:
        has = getattr(model.get_submodule(block.roles[role]), "bias", None) is not None
        return get(block.roles[role] + ".bias") if has else None

    def rows(role: str, scale: Tensor) -> None:
        get(block.roles[role] + ".weight").mul_(scale[:, None])
        old = bias(role)
        if old is not None:
            old.mul_(scale)

    group = block.heads // block.key_heads
    if block.kind == "mlp":
        scale = factors(get(block.roles["down"] + ".weight").shape[1])
        rows("up", scale)
        get(block.roles["down"] + ".weight").div_(scale)
    elif block.kind == "vo":
        scale = factors(block.key_heads * block.width)
        rows("v", scale)
        by_head = scale.view(block.key_heads, 1, -1).expand(-1, group, -1)
        get(block.roles["o"] + ".weight").div_(by_head.reshape(-1))
    else:
        pairs = factors(block.key_heads * block.width // 2).view(block.key_heads, 1, -1)
        scale = torch.cat((pairs, pairs), -1)  # both members of a pair alike
        rows("k", scale.reshape(-1))
        rows("q", scale.double().expand(-1, group, -1).reshape(-1).reciprocal())
