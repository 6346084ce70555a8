"""The figures that serve as bars for a compressed SmolLM2, measured again on one protocol.

MLPs alone cut evenly, all three module rules evenly, output-aware factorisation of every matrix with uniform ranks,
and what polyad chooses, at 20 % and 40 % fewer of the decoder's linear parameters: perplexity over the original's, by
text. Prints one JSON object after half an hour on two cores: python benchmarks/bars.py [--calibrate 16] [--windows 6]
"""

from __future__ import annotations

import argparse
import json
from functools import partial

from polyad.allocate import uniform
from polyad.claims._smollm2_perplexity import Bench
from polyad.compress import lord, modegpt

WAYS = {
    "MLPs alone, evenly": (partial(modegpt, rules="mlp"), {"allocate": uniform}),
    "three rules, evenly": (modegpt, {"allocate": uniform}),
    "output-aware factorisation, uniform rank": (lord, {"allocate": uniform}),
    "three rules, allocated by measured importance": (modegpt, {}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibrate", type=int, default=16)
    parser.add_argument("--windows", type=int, default=6)
    asked = parser.parse_args()
    bench = Bench(calibrate=asked.calibrate, windows=asked.windows)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for keep in (0.8, 0.6):
        for name, (recipe, options) in WAYS.items():
            found.setdefault(str(keep), {})[name] = bench.ratio(bench.plan(recipe, keep, **options))
            print(keep, name, found[str(keep)][name], flush=True)
    print(json.dumps({"calibrate": asked.calibrate, "windows": asked.windows, "data": bench.data, "keep": found}))


if __name__ == "__main__":
    main()
