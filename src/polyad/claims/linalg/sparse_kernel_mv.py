"""Gaussian kernel products by hashing and sampling: error, entries computed, and the assumption on real attention.

A minute or two. Clusters are drawn here; queries and keys come from three layers of SmolLM2-135M on 1024 tokens.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.algorithms import kernel_matvec, near_pairs
from polyad.algorithms.kernel_matvec import sample_size
from polyad.claims.record import Result
from polyad.data import digest

MINUTES = 2
SIZES = (512, 1024, 2048, 4096)
LENGTHS = (256, 512, 1024)
LAYERS = (1, 10, 20)
EPS = 0.5


def clusters(n: int, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, eight of each around every centre, and a vector of both signs."""
    centres = 6 * torch.randn(n // 8, 16, generator=g)
    place = torch.arange(n) % len(centres)
    q, k = (centres[place] + 0.2 * torch.randn(n, 16, generator=g) for _ in range(2))
    return q, k, torch.randn(n, generator=g)


def exponent(values: dict[int, float]) -> float:
    """The slope of a line through logarithms."""
    x, y = (torch.tensor([float(v) for v in part]).log() for part in (values.keys(), values.values()))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def entries_and_error(q: Tensor, k: Tensor, x: Tensor) -> tuple[float, float, float]:
    """Entries computed, error over ‖x‖, and the sum of the kernel."""
    n = len(q)
    exact = torch.exp(-torch.cdist(q, k).square() / 2)
    error = float((kernel_matvec(q, k, x, eps=EPS) - exact @ x).norm() / x.norm())
    radius = math.sqrt(2 * math.log(math.sqrt(n) / EPS))
    count = len(near_pairs(q, k, radius=radius)[0]) + n * sample_size(n, EPS)
    return float(count), error, float(exact.sum())


def claim(callback: Callback | None = None) -> Result:
    """Errors stay below eps ‖x‖ while the entries computed grow with an exponent below 2."""
    g = Generator().manual_seed(0)
    sha, counts, errors = hashlib.sha256(), {}, {}
    for n in SIZES:
        q, k, x = clusters(n, g)
        sha.update(torch.cat((q, k, x.unsqueeze(1)), 1).numpy().tobytes())
        counts[n], errors[n], _ = entries_and_error(q, k, x)
    if callback is not None:
        callback(1, 2, errors)
    tokens, heads = attention()
    real = [_head(q, k) for q, k in heads]
    linear = [head for head in real if head["sum"] <= 1.2]
    return Result(
        f"errors at most {EPS} ‖x‖ on planted clusters; exponent by which the entries computed grow, 512 to 4096",
        exponent(counts) if max(errors.values()) <= EPS else math.inf, "<=", 1.75,
        {"clusters drawn here": sha.hexdigest(), "tokens (stdlib)": digest(tokens)}, 0,
        {"share of entries computed": {n: c / n**2 for n, c in counts.items()}, "error / ‖x‖": errors,
         "SmolLM2 heads": len(real), "heads whose kernel sum grows with an exponent of at most 1.2": len(linear),
         "of these, share with error <= eps": sum(h["error"] <= EPS for h in linear) / max(len(linear), 1),
         "of these, mean share of entries computed at 1024": sum(h["share"] for h in linear) / max(len(linear), 1),
         "mean exponent of the kernel sum over all heads": sum(h["sum"] for h in real) / len(real)},
    )  # fmt: skip


def _head(q: Tensor, k: Tensor) -> dict[str, float]:
    """One head at growing lengths; the error and the share of entries are those of the longest."""
    sums: dict[int, float] = {}
    error = share = 0.0
    for n in LENGTHS:
        x = torch.randn(n, generator=Generator().manual_seed(n))
        count, error, sums[n] = entries_and_error(q[:n], k[:n], x)
        share = count / n**2
    return {"sum": exponent(sums), "error": error, "share": share}


def attention() -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """The tokens, and queries and keys with rotated positions, over d^¼, by layer and head."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    from polyad.data import evaluation
    from polyad.models import load

    model: Any = load("smollm2", dtype=torch.float32)
    tokens = next(iter(evaluation(model, ("stdlib",), count=4).values())).flatten()[: LENGTHS[-1]].unsqueeze(0)
    outputs: dict[str, Tensor] = {}
    hooks = []
    for layer in LAYERS:
        for role in ("q_proj", "k_proj"):
            module = getattr(model.model.layers[layer].self_attn, role)
            name = f"{layer}.{role}"
            hooks.append(
                module.register_forward_hook(lambda _m, _i, out, name=name: outputs.update({name: out.detach()}))
            )
    with torch.no_grad():
        model.model(tokens)
        cos, sin = model.model.rotary_emb(outputs["1.q_proj"], torch.arange(tokens.shape[1]).unsqueeze(0))
    for hook in hooks:
        hook.remove()
    size = model.config.head_dim
    heads = []
    for layer in LAYERS:
        q, k = (outputs[f"{layer}.{role}"].unflatten(-1, (-1, size)).transpose(1, 2) for role in ("q_proj", "k_proj"))
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        heads += [(a / size**0.25, b / size**0.25) for a, b in zip(q[0], k[0], strict=True)]
    return tokens, heads
