"""The table of architectures by job, as a page of the documentation."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
JOBS = (
    "load", "save", "adapt", "merge", "compress", "cache", "unrotated", "padding", "generate", "half", "deepcopy",
    "loop", "pictures",
)  # fmt: skip
SIGNS = {"right": "+", "refused": "r", "does not apply": "", "wrong": "**wrong**"}
HEAD = """# Architectures

Every architecture of transformers {version} that builds small at random, through every job. A plus is a result
equal to plain transformers' (or to arithmetic done beside it); `r` is a refusal, with its sentence below; an empty
cell is a job without meaning there. `python -m benchmarks.architectures` runs it again, `--page` writes this page.

- `load`: a folder of transformers', loaded, to 1e-6 (memory is laid out anew).
- `save`: saved and loaded twice, and what plain transformers makes of the folder, to 1e-6 (memory is laid out anew).
- `adapt`: LoRA on every linear layer is `B A` added to its weight; loaded from its folder, the same to the bit.
- `merge`: merged, undone to the bit, merged for good, saved and loaded.
- `compress`: `svd` at half of the numbers and `rtn:bits=8`, saved and loaded again, to 1e-6.
- `cache`: token by token with the exact cache, and at eight bits.
- `unrotated`: with a codec that keeps all coordinates of keys before rotation, with padding and in a deep copy too.
- `padding`: a batch padded on the left, and its greedy tokens. `generate`: the command's text.
- `half`: loading, adapters, rounding and the exact cache in bfloat16.
- `deepcopy`: copies of adapted and compressed models and of caches in use.
- `pictures`: with a random picture in the prompt: `load`, `save`, `adapt`, `merge` and `half`, and greedy tokens with
  the exact cache. Empty too where the rules build no picture that changes what the model says.
- `loop`: greedy tokens of `polyad.generate` in float32, of a batch padded on the left too. A plus is the loop of
  polyad's own, `p` transformers' forward pass, with the reason below.

"""


def summary(stored: dict[str, Any]) -> str:
    """A line a job: how many are right of those to which it applies, and what of the rest."""
    return "\n".join(
        f"{job}: {counts['right']} of {applies} right ({counts['right'] / max(applies, 1):.0%}), "
        f"{counts['refused']} refused, {counts['wrong']} wrong"
        for job, counts, applies in _totals(stored)
    )


def _totals(stored: dict[str, Any]) -> list[tuple[str, Counter[str], int]]:
    totals = []
    for job in JOBS:
        counts = Counter(outcomes[job][0] for outcomes in stored.values() if job in outcomes)
        totals.append((job, counts, sum(counts.values()) - counts["does not apply"]))
    return totals


def write_page(stored: dict[str, Any]) -> None:
    """Write docs/architectures.md."""
    import transformers

    lines = [HEAD.format(version=transformers.__version__).rstrip(), ""]
    lines += ["| job | applies to | right | refused | wrong |", "| --- | --: | --: | --: | --: |"]
    for job, counts, applies in _totals(stored):
        share = f"{counts['right']} ({counts['right'] / max(applies, 1):.0%})"
        lines.append(f"| `{job}` | {applies} | {share} | {counts['refused']} | {counts['wrong']} |")
    built = {key: outcomes for key, outcomes in sorted(stored.items()) if "does not build" not in outcomes}
    sentences: dict[str, int] = {}
    for kind in dict.fromkeys(key.split()[0] for key in built):
        lines += ["", f"## {kind}", "", f"| architecture | {' | '.join(JOBS)} |", "| --- |" + " :-: |" * len(JOBS)]
        for key, outcomes in built.items():
            if key.split()[0] == kind:
                cells = [_cell(outcomes.get(job, ["does not apply", ""]), sentences) for job in JOBS]
                lines.append(f"| {key.split()[2]} | {' | '.join(cells)} |")
    lines += ["", "## Refusals, and reasons for transformers' forward pass", ""]
    lines += [f"{number}. {sentence}" for sentence, number in sentences.items()]
    left = [key.split()[2] for key, outcomes in sorted(stored.items()) if "does not build" in outcomes]
    lines += ["", "## Not tried", "", "These do not build small from rules by name, or read more than text: "
              + ", ".join(left) + "."]  # fmt: skip
    PAGE.write_text("\n".join(lines) + "\n")


def _cell(outcome: list[str], sentences: dict[str, int]) -> str:
    verdict, reason = outcome
    if verdict not in ("refused", "right") or not reason:
        return SIGNS[verdict]
    return f"{'r' if verdict == 'refused' else 'p'}{sentences.setdefault(_general(reason), len(sentences) + 1)}"


def _general(reason: str) -> str:
    """A refusal without the names and numbers of one model, so that alike ones share a line."""
    reason = re.sub(
        r"\S*\b[A-Z][A-Za-z0-9_]*(Model|ForCausalLM|Attention|LMHeadModel|Generation|LM|Mixer)\b", "MODEL", reason
    )
    reason = re.sub(r"\S*\b(layers?|blocks?|h|encoder|decoder)\.\d+[\w.]*", "LAYER", reason)
    reason = re.sub(r"\blayer \d+", "layer N", reason)
    return re.sub(r"(/\S*)?/architectures-\w+(/\w+)?", "FOLDER", reason).replace("\n", " ")
