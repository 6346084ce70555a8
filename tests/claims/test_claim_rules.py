"""Every line of every stored result, held to the rules of a claim, and what is still owed by handle."""

import re
from dataclasses import replace

import pytest

from polyad.claims import handles, results
from polyad.claims.record import Line, mean_and_error

LEAST_SEEDS, LEAST_WINDOWS = 3, 6
STORED = results()


def breaches(line):
    """The rules of the record that a line breaks: ``error``, ``repeats``, ``rival``, ``control`` and ``source``."""
    broken = set()
    if line.error is None:
        broken.add("error")  # an exact figure has 0, and says so
    elif line.error and (line.seeds or 1) < LEAST_SEEDS and (line.windows or 1) < LEAST_WINDOWS:
        broken.add("repeats")
    if not (line.rival or "").strip():
        broken.add("rival")
    if not re.search(r"\b\d", line.control or ""):
        broken.add("control")  # its figure, and that it fails
    if not line.data or not line.commit or line.minutes is None:
        broken.add("source")
    return broken


def every(*rules):
    return frozenset(rules)


UNPAIRED = every("error", "rival", "control")
OWED = {
    **dict.fromkeys((
        "aflora", "afm-ctr", "block-lora", "bridge-ensembles", "c3a", "coord-sampling", "core-shapes",
        "diffusekrona", "dyn-kron-projection", "edora", "eigenlorax", "eora", "fast-update-tsvd", "figmn",
        "flora-tucker", "gear", "genai-math", "gralora", "igmn-scalable", "ksort-bfp", "loldu",
        "loqt", "lora-asymmetry", "lora-ensembles", "loraplus", "lord", "lorkd", "lotr", "lowrank-tales",
        "matryoshkakv", "modegpt", "ortho-diag", "palu", "prefixkv", "random-support-slr",
        "riemannlora", "rmm", "singlora", "soka", "sparse-kernel-mv", "spm", "squat", "stream-top-eig", "surm",
        "svfit", "tensorpoly", "tera", "tlora-transform", "tnale", "tpa", "tpla", "transmla", "trg-ising",
        "vidkv", "welore", "xkv",
    ), UNPAIRED),
    **dict.fromkeys(("cheb-tucker", "ftfi", "greedy-tn", "kronecker-attention-nets"), every("rival", "control")),
    **dict.fromkeys(("ia3", "nonnegative-tucker", "oft"), every("control")),
}  # fmt: skip
"""The rules that the lines of a claim break together. A claim that is brought to the rules leaves this list; none
joins it."""

GOOD = Line(
    handle="some", assertion="A over B", figure=0.9, error=0.01, relation="<=", bound=1.0, seeds=3, rival="B, tuned",
    control="A without its term: 1.3, which fails", data={"text": "ab"}, commit="cd", minutes=0.1,
)  # fmt: skip


def test_every_line_follows_the_rules_but_for_what_is_owed():
    broken = {result.handle: frozenset().union(*map(breaches, result.lines)) for result in STORED}
    found = {handle: rules for handle, rules in broken.items() if rules}
    assert {h: sorted(r) for h, r in found.items()} == {h: sorted(r) for h, r in OWED.items()}
    assert set(handles()) == set(broken), "claims without a stored result"


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("error", {"error": None}), ("repeats", {"seeds": 2}), ("repeats", {"seeds": None, "windows": 4}),
        ("repeats", {"seeds": 1, "windows": 5}), ("rival", {"rival": None}), ("rival", {"rival": " "}),
        ("control", {"control": None}), ("control", {"control": "it fails"}), ("source", {"data": {}}),
        ("source", {"commit": None}), ("source", {"minutes": None}),
    ],
)  # fmt: skip
def test_each_rule_is_seen_to_be_broken(rule, change):
    assert breaches(GOOD) == set()
    assert breaches(replace(GOOD, seeds=1, windows=6)) == set()
    assert breaches(replace(GOOD, error=0.0, seeds=1)) == set()  # exact
    assert breaches(replace(GOOD, **change)) == {rule}


@pytest.mark.parametrize("result", STORED, ids=lambda result: result.handle)
def test_the_verdict_is_what_figure_error_and_bound_say(result):
    """Worked out here once more: 95 % of Student's t over seeds, or over windows where there is one seed."""
    t = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 7: 2.365, 11: 2.201, 15: 2.131, 19: 2.093, 23: 2.069}
    for line in result.lines:
        repeats = line.seeds if (line.seeds or 1) > 1 else line.windows or 1
        reach = t[repeats - 1] * line.error if line.error else 0.0
        signed = (line.bound - line.figure) * (1 if line.relation == "<=" else -1)
        expected = "no clear difference" if reach and abs(signed) <= reach else "holds" if signed >= 0 else "fails"
        assert line.verdict == expected


def test_an_error_over_two_seeds_decides_less_than_over_three():
    """12.7 and 4.3 standard errors."""
    values = [0.90, 0.94]
    line = replace(GOOD, **mean_and_error(values), seeds=2)
    assert line.verdict == "no clear difference"
    assert replace(GOOD, **mean_and_error([0.90, 0.92, 0.94]), seeds=3).verdict == "holds"
