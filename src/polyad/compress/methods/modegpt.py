"""Modular decomposition: MLPs by Nyström, queries and keys by CR, values and outputs by SVD."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.allocate.greedy import greedy
from polyad.linalg.metric import roots, tails
from polyad.models.blocks import Block
from polyad.models.replacement import Replacement
from polyad.statistics import Moments

MODEGPT = Paper(
    "Lin, Gao, Smith, Patel, Tuli, Shen, Jin, Hsu", 2024,
    "MoDeGPT: Modular Decomposition for Large Language Model Compression", "arXiv:2408.09632", handle="modegpt",
    adds="the three module rules; measured importance allocates by default, the paper's softmax is block_influence",
)  # fmt: skip

NEEDS = {"down": {"second"}, "v": {"second"}, "q": {"output_square"}, "k": {"output_square"}}

Weights = Mapping[str, Tensor]  # by parameter path
Inputs = Mapping[str, Moments]  # by module path


def errors(block: Block, weights: Weights, stats: Inputs, *, ridge: float = 1.0) -> Tensor:
    """Squared error of the block's own output at 0, 1, … kept units; float64, shape (units + 1,).

    "mlp": of the block's output, exact but for the damping. "vo": of every head's map of a token's own values, summed
    over heads, exact; what is left after attention averaged over tokens is less. "qk": E|q|² E|k|² of the dropped
    pairs, which overestimates the squares of the scores that they lose, as far as pairs are uncorrelated.
    """
    if block.kind == "mlp":
        second, order = _ranked_columns(block, stats, ridge)
        down = weights[block.roles["down"] + ".weight"]
        lower = _cholesky(second[order[:, None], order], block)
        return tails((lower.mT @ down[:, order].mT.double()).square().sum(1))
    if block.kind == "qk":
        return tails(_pair_scores(block, stats).square().sort(-1, descending=True).values.sum(0))
    return tails(_value_svd(block, weights, stats)[1].square().sum(0))


def bytes_of_modegpt(shapes: Mapping[str, tuple[int, int]], **_: Any) -> int:
    """Bytes: for "mlp" the neurons' moment, damped, factored and inverted; for "vo" both roots of the inputs'."""
    numbers = sum(out * inner for out, inner in shapes.values())
    width = shapes["down"][1] if "down" in shapes else shapes["v"][1] if "v" in shapes else 0
    return 16 * numbers + 44 * width**2


@method(
    "group", papers=(MODEGPT,), needs=NEEDS, curve=errors, allocate=greedy, example={"exact": ("mlp", "vo")},
    holds=bytes_of_modegpt,
)  # fmt: skip
def modegpt(block: Block, weights: Weights, stats: Inputs, keep: int, *, ridge: float = 1.0) -> Replacement:
    """Cut the inner dimension of a block to ``keep`` units: neurons, rotation pairs or value columns a head.

    "mlp": the neurons with the largest ridge leverage scores diag(C (C + λ)⁻¹) of C = E[z zᵀ], z the input of the
    down projection, stay; the down projection becomes W C S (Sᵀ C S)⁻¹, the least squares towards the old output.
    "qk": each key head keeps the rotation pairs with the largest products of root mean squares of queries and keys
    (summed over the query heads that share it; rotations leave the sums of pairs unchanged). "vo": the SVD of
    C^½ Wᵥᵀ [W_o of the sharing heads] is truncated a key head; a bias of the values moves into that of the output,
    where it is exact. λ is ``ridge`` times the mean of C's diagonal (unsure:
    the paper takes 1 in units of its own activations).
    The paper leaves grouped queries open; summing over the group minimises the same error for all its heads.
    Cost: O(neurons³) for "mlp", O(in³ + heads width³) for "vo". Raises where ``keep`` exceeds the block's units.

    >>> roles = {"gate": "gate", "up": "up", "down": "down"}
    >>> weights = {f"{role}.weight": torch.eye(3) for role in roles}
    >>> stats = {"down": Moments(9, second=torch.diag(torch.tensor([4.0, 0.0, 1.0])))}
    >>> made = modegpt(Block("mlp", "mlp", roles, 0), weights, stats, 2)
    >>> made.weights["up.weight"].tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    _check.rank(keep, units(block, weights), f"the block's {units(block, weights)} units", "keep")
    for path, weight in weights.items():
        _check.finite(path, weight)
    rule: Callable[..., Replacement] = {"mlp": _mlp, "qk": _queries_keys, "vo": _values_outputs}[block.kind]
    return rule(block, weights, stats, keep, ridge)


def units(block: Block, weights: Weights) -> int:
    """The units of the block uncut: neurons, rotation pairs a head, or value columns a head."""
    if block.kind == "mlp":
        return weights[block.roles["down"] + ".weight"].shape[1]
    return block.width // 2 if block.kind == "qk" else block.width


def _mlp(block: Block, weights: Weights, stats: Inputs, keep: int, ridge: float) -> Replacement:
    second, order = _ranked_columns(block, stats, ridge)
    chosen = order[:keep].sort().values
    gate, up, down = (block.roles[r] for r in ("gate", "up", "down"))
    w = weights[down + ".weight"]
    rest = order[keep:]
    cross = (
        second[chosen[:, None], rest] @ w[:, rest].mT.double()
    )  # the others' share, in terms of the chosen; (keep, out)
    fitted = w[:, chosen].double() + torch.cholesky_solve(cross, _cholesky(second[chosen[:, None], chosen], block)).mT
    new: dict[str, Any] = {down + ".weight": fitted.to(w.dtype).contiguous()}
    for path in (gate, up):
        new |= {name: weights[name][chosen] for name in (path + ".weight", path + ".bias") if name in weights}
    return Replacement(new)


def _ranked_columns(block: Block, stats: Inputs, ridge: float) -> tuple[Tensor, Tensor]:
    """E[z zᵀ] in float64, and the neurons by falling leverage score diag(C (C + λ)⁻¹) = 1 - λ diag((C + λ)⁻¹)."""
    second = _statistic(block, "down", "second", stats)
    derived = stats[block.roles["down"]].derived
    if ("leverage", ridge) not in derived:
        inverse = torch.cholesky_inverse(_cholesky(_damped_moment(second, ridge * _level(second)), block))
        derived["leverage", ridge] = inverse.diagonal().argsort()
    return second, derived["leverage", ridge]


def _level(second: Tensor) -> float:
    """The mean square of the inputs, or a number next to nothing where they are always zero."""
    return float(second.diagonal().mean()) or 1e-30


def _damped_moment(second: Tensor, by: float) -> Tensor:
    """A moment with its diagonal raised: one copy of it, since it may be large."""
    damped = second.clone()
    damped.diagonal().add_(by)
    return damped


def _statistic(block: Block, role: str, need: str, stats: Inputs) -> Tensor:
    """A statistic of one of the block's matrices, in float64, or a sentence that it is missing or no number."""
    path = block.roles[role]
    value = stats[path].values.get(need) if path in stats else None
    if value is None:
        raise ValueError(
            f"modegpt cuts {block.name} by the statistic {need!r} of {path}, which was not collected; calibrate with "
            "a text: calibrate='stdlib'"
        )
    return _check.finite(f"the statistic {need!r} of {path}", value).double()


def _cholesky(second: Tensor, block: Block) -> Tensor:
    """The lower factor of a moment that rounding may have left indefinite: damped as little as makes it work."""
    level = _level(second)
    for power in range(-5, 1):
        factor, failed = torch.linalg.cholesky_ex(_damped_moment(second, level * 10.0**power))
        if not bool(failed):
            return factor
    raise ValueError(f"the calibration moments of {block.name} are not positive definite; calibrate on more text")


def _pair_scores(block: Block, stats: Inputs) -> Tensor:
    """Root mean squares of queries times keys, by key head and rotation pair; (key heads, width / 2)."""
    q, k = (_statistic(block, role, "output_square", stats) for role in ("q", "k"))
    q = q.reshape(block.key_heads, -1, 2, block.width // 2).sum((1, 2))
    k = k.reshape(block.key_heads, 2, block.width // 2).sum(1)
    return (q * k).sqrt()


def _queries_keys(block: Block, weights: Weights, stats: Inputs, keep: int, _ridge: float) -> Replacement:
    pairs = _pair_scores(block, stats).topk(keep, dim=-1).indices.sort(-1).values  # (key heads, keep)
    both = torch.cat((pairs, pairs + block.width // 2), -1)  # columns of a head, (key heads, 2 keep)
    new: dict[str, Any] = {}
    for role, heads in (("q", block.heads), ("k", block.key_heads)):
        rows = both.repeat_interleave(heads // block.key_heads, 0) + torch.arange(heads)[:, None] * block.width
        for name in (block.roles[role] + ".weight", block.roles[role] + ".bias"):
            if name in weights:
                new[name] = weights[name][rows.reshape(-1)]
    return Replacement(new, {block.home: {"pairs": pairs}})


def _value_svd(block: Block, weights: Weights, stats: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """SVD of C^½ Wᵥᵀ W_oᵀ by key head, (in, width), (width,), (width, group out) each, and C^-½."""
    v, o = weights[block.roles["v"] + ".weight"], weights[block.roles["o"] + ".weight"]
    root, inverse = roots(_statistic(block, "v", "second", stats))
    left = root @ v.double().reshape(block.key_heads, block.width, -1).mT  # (key heads, in, width)
    right = o.double().reshape(o.shape[0], block.key_heads, -1, block.width)  # (out, key heads, group, width)
    right = right.permute(1, 3, 2, 0).flatten(2)  # (key heads, width, group out)
    q, r = torch.linalg.qr(left)
    u, s, vh = torch.linalg.svd(r @ right, full_matrices=False)
    return q @ u, s, vh, inverse


def _values_outputs(block: Block, weights: Weights, stats: Inputs, keep: int, _ridge: float) -> Replacement:
    v_path, o_path = block.roles["v"], block.roles["o"]
    u, s, vh, inverse = _value_svd(block, weights, stats)
    dtype, out = weights[v_path + ".weight"].dtype, weights[o_path + ".weight"].shape[0]
    values = (inverse @ u[..., :keep]).mT.flatten(0, 1)  # (key heads keep, in)
    output = (s[:, :keep, None] * vh[:, :keep]).unflatten(2, (-1, out))  # (key heads, keep, group, out)
    output = output.permute(3, 0, 2, 1).flatten(1)  # (out, heads keep)
    new = {v_path + ".weight": values.to(dtype).contiguous(), o_path + ".weight": output.to(dtype).contiguous()}
    bias = weights.get(v_path + ".bias")
    if bias is not None:  # attention weights sum to one, so a value's bias reaches the output as a constant
        heads = bias.reshape(block.key_heads, 1, block.width).expand(-1, block.heads // block.key_heads, -1)
        constant = weights[o_path + ".weight"] @ heads.reshape(-1)
        new[v_path + ".bias"] = torch.zeros(block.key_heads * keep, dtype=dtype, device=bias.device)
        new[o_path + ".bias"] = weights.get(o_path + ".bias", 0) + constant
    return Replacement(new, {block.home: {"value_width": keep}})
