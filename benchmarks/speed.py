"""Is a model with a quarter fewer operations faster on the clock?

Cuts SmolLM2-135M to three quarters of a token's operations (the output head included) in three ways, with numbers
that do not matter to the clock (the first units stay), and times prefill and decoding in turn with the original.
Prints one JSON object. About five minutes on two cores: python benchmarks/speed.py [--dtype bfloat16] [--turns 15]
"""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import asdict

import torch

import polyad
from polyad.evaluation import operations_per_token, speeds
from polyad.formats import LowRank
from polyad.models import blocks, replace
from polyad.models.replacement import Replacement, merge_replacements, modules

SHARE = 0.75


def mlp_only(model, share):
    """Every MLP narrower, by one width."""
    found = []
    for block in blocks(model, ("mlp",)):
        weights = {role: model.get_submodule(path).weight.detach() for role, path in block.roles.items()}
        keep = max(8, round(weights["down"].shape[1] * share / 8) * 8)  # as polyad offers sizes
        cut = {r: w[:keep] if r != "down" else w[:, :keep].contiguous() for r, w in weights.items()}
        found.append(Replacement({f"{block.roles[r]}.weight": w for r, w in cut.items()}))
    return merge_replacements(found), []


def mlp_and_heads(model, share):
    """MLPs, query-key pairs and values, all to one share."""
    made, parts = mlp_only(model, share)
    weights, forward = dict(made.weights), {}
    for block in blocks(model, ("qk", "vo")):
        parts.append(block)
        half = block.width // 2 if block.kind == "qk" else block.width
        keep = round(half * share)
        get = {r: model.get_submodule(p).weight.detach() for r, p in block.roles.items()}
        if block.kind == "qk":
            rows = torch.cat((torch.arange(keep), torch.arange(keep) + half))
            for role, heads in (("q", block.heads), ("k", block.key_heads)):
                index = (torch.arange(heads)[:, None] * block.width + rows).flatten()
                weights[f"{block.roles[role]}.weight"] = get[role][index]
            pairs = torch.arange(keep).expand(block.key_heads, -1).contiguous()
            forward.setdefault(block.home, {})["pairs"] = pairs
        else:
            columns = torch.arange(keep)
            v = (torch.arange(block.key_heads)[:, None] * half + columns).flatten()
            o = (torch.arange(block.heads)[:, None] * half + columns).flatten()
            weights[f"{block.roles['v']}.weight"] = get["v"][v]
            weights[f"{block.roles['o']}.weight"] = get["o"][:, o].contiguous()
            forward.setdefault(block.home, {})["value_width"] = keep
    return Replacement(weights, forward), parts


def two_factors(model, share):
    """Every linear layer as two factors that take this share of its operations."""
    made = {}
    for path, layer in polyad.models.decoder_linears(model).items():
        n, m = layer.weight.shape
        rank = max(1, int(share * n * m / (n + m)))
        made[f"{path}.weight"] = LowRank(torch.randn(n, rank) / rank, torch.randn(rank, m) / m)
    return Replacement(made), []


def reduced(original, way):
    """A copy of the model cut so that it has SHARE of the original's operations, found by bisection."""
    goal = SHARE * operations_per_token(original)
    low, high = 0.05, 1.0
    model = original
    for _ in range(7):
        share = (low + high) / 2
        model = copy.deepcopy(original)
        made, parts = way(model, share)
        replace(model, modules(model, made, parts))
        low, high = (low, share) if operations_per_token(model) > goal else (share, high)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--turns", type=int, default=15)
    asked = parser.parse_args()
    original = polyad.load("smollm2", dtype=getattr(torch, asked.dtype))
    ways = {"MLPs alone": mlp_only, "MLPs and heads": mlp_and_heads, "two factors everywhere": two_factors}
    models = {"original": original, **{name: reduced(original, way) for name, way in ways.items()}}
    found = speeds(models, alternations=asked.turns)
    base = found["original"]
    print(json.dumps({
        "dtype": asked.dtype, "threads": torch.get_num_threads(), "turns": asked.turns,
        "models": {name: {
            "operations": operations_per_token(models[name]) / operations_per_token(original),
            "prefill_speedup": one.prefill.median / base.prefill.median,
            "decode_speedup": one.decode.median / base.decode.median,
            **asdict(one),
        } for name, one in found.items()},
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
