"""Allocation by block influence: layers that change their input least are cut most."""

from __future__ import annotations

import math
from collections.abc import Mapping

from polyad._card import Paper, method
from polyad.allocate.curve import Curve, Sizes, check_budget, spend_rest

SHORTGPT = Paper("Men, Xu, Zhang, Yuan, Wang, Lin, Lu, Han, Chen", 2024,
                 "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect",
                 "arXiv:2403.03853", adds="the score: 1 - E[cos] of a layer's input and output")  # fmt: skip
MODEGPT = Paper("Lin, Gao, Smith, Patel, Tuli, Shen, Jin, Hsu", 2024,
                "MoDeGPT: Modular Decomposition for Large Language Model Compression", "arXiv:2408.09632",
                handle="modegpt", adds="a layer's sparsity as a softmax of its score")  # fmt: skip


@method("allocate", papers=(MODEGPT, SHORTGPT), needs={"layer": {"influence"}})
def block_influence(
    items: Mapping[str, Curve], budget: float, *, scores: Mapping[str, float], temperature: float = 0.1
) -> Sizes:
    """Cut a share proportional to exp(-s / T) from every item, with s the block influence of the item's layer.

    With layers of equal cost this is the paper's φ = L φ̄ softmax(-s / T), the maximum of Σ s (1 - φ) + T H(φ) at a
    mean sparsity φ̄. Departs from the paper where that would take more than all of an item: the item is cut as far as
    it goes, and the others by more. All items of a layer share its score. ``scores`` maps each item to
    1 - E[cos(x, y)] of its layer's input and output, which ``polyad.plan`` measures; a high ``temperature`` (the
    paper's ε) is uniform. What steps leave over goes to the finest ones. Cost: 100 binary searches an item.
    Raises for items without a finite score and for a temperature that is not above 0.

    >>> import numpy as np
    >>> curve = Curve(np.arange(1, 11), np.arange(1.0, 11.0), np.arange(9.0, -1.0, -1.0))
    >>> block_influence({"first": curve, "second": curve}, 14.0, scores={"first": 0.3, "second": 0.2})
    {'first': 8, 'second': 6}
    """
    check_budget(items, budget)
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature!r} is not above 0; give a number such as temperature=0.1")
    missing = [name for name in items if not math.isfinite(scores.get(name, math.nan))]
    if missing:
        raise ValueError(
            f"scores holds no finite score of {', '.join(missing[:3])}; give 1 - E[cos(x, y)] of every item's layer"
        )
    least = min(scores[name] for name in items)
    logs = {name: -(scores[name] - least) / temperature for name in items}  # of the cut share, up to a factor

    def places(level: float) -> dict[str, int]:
        shares = {name: -math.expm1(min(level + log, 0.0)) for name, log in logs.items()}
        return {name: curve.affordable(shares[name] * curve.whole) for name, curve in items.items()}

    def fits(level: float) -> bool:
        return sum(float(items[n].costs[at]) for n, at in places(level).items()) <= budget * (1 + 1e-12)

    low, high = -40.0, -min(logs.values())  # nothing is cut, and everything as far as it goes
    if fits(low):
        high = low
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return spend_rest(items, places(high), budget)
