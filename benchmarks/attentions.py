"""Decoding with attentions of equal parameters, and with tensor products' factors as they are or multiplied out.

A decoder of 12 layers, 768 wide, 12 heads, float32, random weights: seconds of the process for a token after some
context, the kinds taking turns, medians; and the bytes that a token takes in the cache. Stored in
results/attentions.json; some minutes of one core.

    python -m benchmarks.attentions [--threads 1] [--contexts 1024 4096 8192]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from polyad.attention import decoder
from polyad.attention.decoder import ATTENTIONS
from polyad.attention.methods.tensor_product import TensorProductAttention
from polyad.cache.host.cache import HeldCache
from polyad.cache.host.layer import HeldLayer

RESULTS = Path(__file__).parent / "results" / "attentions.json"
SIZES = {"width": 768, "layers": 12, "heads": 12, "hidden": 2048}
VOCABULARY, TURNS, DECODED = 8192, 9, 4


class Rebuilding(TensorProductAttention):
    """Forms all keys and values from their factors at each token, as a cache that only stores factors must."""

    def _over_factors(self, *given: Any) -> Any:
        return self._over_heads(*given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 4096, 8192])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = {context: decoding(context) for context in given.contexts}
    for context, row in found.items():
        ratio = row["seconds"]["tpa, rebuilt"] / row["seconds"]["tpa"]
        told = ", ".join(f"{k} {1e3 * s:.1f} ms {row['bytes'][k]:,.0f} B" for k, s in row["seconds"].items())
        print(f"{context:,} tokens: {told}")
        print(f"{'met   ' if ratio > 1 else 'MISSED'} rebuilding / factors {ratio:.2f}, more than 1")
    stored = {"threads": given.threads, "torch": torch.__version__, **SIZES, "contexts": found}
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


@torch.no_grad()
def decoding(context: int) -> dict[str, dict[str, float]]:
    """Seconds a decoded token and bytes a token, by attention."""
    ids = torch.randint(0, VOCABULARY, (1, context), generator=torch.Generator().manual_seed(0))
    models, caches = {}, {}
    for kind in (*ATTENTIONS, "tpa, rebuilt"):
        torch.manual_seed(0)
        models[kind] = decoder(kind.split(",")[0], VOCABULARY, **SIZES)
        if kind == "tpa, rebuilt":
            for layer in models[kind].layers:
                layer.self_attn.__class__ = Rebuilding
        caches[kind] = HeldCache([HeldLayer(None, 0, None) for _ in models[kind].layers], None)
        for part in ids.split(256, 1):
            models[kind](part, caches[kind])
    held = {kind: float(cache.nbytes / context) for kind, cache in caches.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in models}
    for turn in range(TURNS + 1):
        for kind, model in models.items():
            started = time.process_time()
            for i in range(DECODED):
                model(ids[:, i : i + 1], caches[kind])
            if turn:
                seconds[kind].append((time.process_time() - started) / DECODED)
    return {"seconds": {kind: statistics.median(found) for kind, found in seconds.items()}, "bytes": held}


if __name__ == "__main__":
    main()
