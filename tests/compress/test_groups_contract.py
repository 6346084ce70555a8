"""Every group method of the catalogue, held to the public contract on real decoders, and wrong ones to catch."""

import pytest
import torch

import polyad.compress  # noqa: F401
from polyad._card import Card, Paper, card, methods
from polyad.compress import modegpt
from polyad.models.replacement import Replacement
from polyad.statistics import Moments
from polyad.testing import groups

CASES = {f"{c.name}-{check.__name__}": (c, check) for c in methods("group") for check in groups.CHECKS}


@pytest.mark.parametrize(("card", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, check):
    check(card)


def changed(block, weights, stats, keep, role, change):
    """What modegpt gives, with one tensor of it changed, where the block has this role."""
    made = modegpt(block, weights, stats, keep)
    name = f"{block.roles.get(role)}.weight"
    return Replacement({n: change(t) if n == name else t for n, t in made.weights.items()}, made.forward)


def shrunk(block, weights, stats, keep):
    return changed(block, weights, stats, keep, "down", lambda w: 0.999 * w)


def heads_rolled(block, weights, stats, keep):
    return changed(block, weights, stats, keep, "v", lambda w: w.roll(keep, 0))


def columns_rolled(block, weights, stats, keep):
    return changed(block, weights, stats, keep, "k", lambda w: w.roll(1, 0))


def without_constant(block, weights, stats, keep):
    made = modegpt(block, weights, stats, keep)
    return Replacement({n: t for n, t in made.weights.items() if n != f"{block.roles.get('o')}.bias"}, made.forward)


def pairs_flipped(block, weights, stats, keep):
    made = modegpt(block, weights, stats, keep)
    return Replacement(made.weights, {path: {**a, "pairs": a["pairs"].flip(1)} if "pairs" in a else a
                                      for path, a in made.forward.items()})  # fmt: skip


def unfitted(block, weights, stats, keep):
    """The right neurons, without the least squares that makes up for the others."""
    if block.kind != "mlp":
        return modegpt(block, weights, stats, keep)
    up, down = (weights[block.roles[r] + ".weight"] for r in ("up", "down"))
    made = modegpt(block, weights, stats, keep)
    kept = [int((up == row).all(1).nonzero()[0]) for row in made.weights[block.roles["up"] + ".weight"]]
    return Replacement({**made.weights, block.roles["down"] + ".weight": down[:, kept]}, made.forward)


def chosen(block, weights, stats, keep, order):
    """The neurons of a wrong order, fitted as they should be."""
    second = stats[block.roles["down"]].second.clone() if block.kind == "mlp" else None
    if second is None:
        return modegpt(block, weights, stats, keep)
    place = order(second).argsort()
    moments = Moments(1, second=second)
    moments.derived["leverage", 1.0] = place
    return modegpt(block, weights, {**stats, block.roles["down"]: moments}, keep)


def first(block, weights, stats, keep):
    return chosen(block, weights, stats, keep, lambda c: torch.arange(len(c)))


def smallest(block, weights, stats, keep):
    return chosen(block, weights, stats, keep, lambda c: c.diagonal())


def drawn(block, weights, stats, keep):
    return changed(block, weights, stats, keep, "down", lambda w: w + 1e-3 * torch.rand(()).to(w.dtype))


def one_fewer(block, weights, stats, keep):
    return modegpt(block, weights, stats, max(1, keep - 1))


def least_pairs(block, weights, stats, keep):
    if block.kind != "qk":
        return modegpt(block, weights, stats, keep)
    turned = {
        p: Moments(m.count, second=m.second, output_square=1 / (m.output_square + 1e-9)) for p, m in stats.items()
    }
    return modegpt(block, weights, turned, keep)


def in_double(block, weights, stats, keep):
    made = modegpt(block, weights, stats, keep)
    return Replacement({n: t.double() for n, t in made.weights.items()}, made.forward)


def uncut(block, weights, stats, keep):
    whole = {f"{block.roles.get('gate')}.weight"}
    made = modegpt(block, weights, stats, keep)
    return Replacement({n: t for n, t in made.weights.items() if n not in whole}, made.forward)


def in_place(block, weights, stats, keep):
    made = modegpt(block, weights, stats, keep)
    next(iter(weights.values())).mul_(2)
    return made


def raw_cholesky(block, weights, stats, keep):
    for path in block.roles.values():
        torch.linalg.cholesky(stats[path].second.double())
    return modegpt(block, weights, stats, keep)


def awake(block, weights, stats, keep):
    return changed(block, weights, stats, keep, "up", lambda w: w + (w == 0))


def dividing(block, weights, stats, keep):
    sizes = [1 / float(weights[path + ".weight"].abs().max()) for path in block.roles.values()]
    return modegpt(block, weights, stats, keep if sizes else 1)


def forgiving(block, weights, stats, keep):
    return modegpt(block, {n: t.nan_to_num() for n, t in weights.items()}, stats, keep)


def trusting(block, weights, stats, keep):
    known = {p: Moments(m.count, **{n: t.nan_to_num() for n, t in m.values.items()}) for p, m in stats.items()}
    return modegpt(block, weights, known, keep)


def unnamed(block, weights, stats, keep):
    if any(not bool(t.isfinite().all()) for t in weights.values()):
        raise ValueError("some weight of this model holds NaN or infinite numbers")
    return modegpt(block, weights, stats, keep)


def keyed(block, weights, stats, keep):
    _ = [stats[path] for path in block.roles.values()]
    return modegpt(block, weights, stats, keep)


def clamped(block, weights, stats, keep):
    return modegpt(block, weights, stats, max(1, min(int(keep or 1), 4)))


def rounding(block, weights, stats, keep):
    return modegpt(block, weights, stats, round(keep) if isinstance(keep, float) else keep)


def shared(block, weights, stats, keep):
    return modegpt(block, weights, stats, 1 if keep is True else keep)


def twice(block, weights, stats):
    return 2 * card("modegpt").curve(block, weights, stats)


def short(block, weights, stats):
    return card("modegpt").curve(block, weights, stats)[:-1]


def never_zero(block, weights, stats):
    return 1 + card("modegpt").curve(block, weights, stats)


WRONG = {
    "all_units": ({"function": shrunk}, {"function": heads_rolled}, {"function": columns_rolled},
              {"function": without_constant}, {"function": pairs_flipped}),
    "error_curve": ({"function": unfitted}, {"function": smallest}, {"function": one_fewer}, {"curve": twice},
                {"curve": short}, {"curve": never_zero}),
    "permutation": ({"function": first}, {"function": drawn}, {"function": heads_rolled}),
    "dead_units": ({"function": first}, {"function": smallest}, {"function": least_pairs}),
    "shapes": ({"function": in_double}, {"function": uncut}, {"function": in_place}, {"function": drawn},
             {"function": one_fewer}),
    "dead_blocks": ({"function": raw_cholesky}, {"function": awake}, {"function": dividing}, {"curve": never_zero}),
    "damage": ({"function": forgiving}, {"function": trusting}, {"function": unnamed}, {"function": keyed}),
    "refusals": ({"function": clamped}, {"function": rounding}, {"function": shared}),
}  # fmt: skip
SPOILT = {
    f"{prop}-{next(iter(wrong.values())).__name__}": (prop, wrong)
    for prop, several in WRONG.items()
    for wrong in several
}


@pytest.mark.parametrize(("prop", "wrong"), SPOILT.values(), ids=list(SPOILT))
def test_each_check_catches_group_methods_that_break_it(prop, wrong):
    torch.manual_seed(0)
    known = card("modegpt")
    source = Paper("Nobody", 2000, "Nothing", "arXiv:0")
    entries = {"function": modegpt, "curve": known.curve, **wrong}
    spoilt = Card(
        "spoilt", "group", entries["function"], None, (source,), known.example, known.needs, entries["curve"]
    )
    with pytest.raises(AssertionError):
        getattr(groups, prop)(spoilt)
