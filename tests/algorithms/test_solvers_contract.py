"""Solvers and sketches of the catalogue, held to the public contracts; wrong ones of our own, each caught."""

import pytest
import torch

import polyad.algorithms
import polyad.decompose  # noqa: F401
from polyad._card import Card, Paper, methods
from polyad.linalg import Gaussian
from polyad.testing import sketches, solvers

CASES = {
    f"{card.name}-{check.__name__}": (card, check)
    for suite, kind in ((solvers, "solve"), (sketches, "sketch"))
    for card in methods(kind)
    for check in suite.CHECKS
}


@pytest.mark.parametrize(("card", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, check):
    check(card)


PAPER = Paper("Nobody", 2000, "Nothing", "arXiv:0")


def refused(x, b):
    for name, t in (("x", x), ("b", b)):
        if not t.is_floating_point() or t.dtype == torch.bfloat16:
            raise TypeError(f"{name} is of {t.dtype}; give float32 or float64")
        if t.ndim == 0 or t.numel() == 0 or not bool(torch.isfinite(t).all()):
            raise ValueError(f"{name} is empty or holds numbers that are not finite")
    if x.ndim != 2 or b.shape != x.shape[:1]:
        raise ValueError(f"x {tuple(x.shape)} and b {tuple(b.shape)} do not fit each other")


def lstsq(x, b):
    refused(x, b)
    (x, size), (b, height) = ((t / t.abs().max(), t.abs().max()) for t in (x.detach(), b.detach()))
    q, r = torch.linalg.qr(x)
    return torch.linalg.solve_triangular(r, (q.T @ b)[:, None], upper=True)[:, 0] * (height / size)


def problem(generator):
    x, b = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((20, 4), (20,)))
    return {"x": x, "b": b}


def residual(w, x, b):
    """How far the residual is from orthogonal to the columns, in ten thousands of roundings."""
    eps, x, b, w = torch.finfo(x.dtype).eps, x.double(), b.double(), w.double()
    x, w, b = x / x.abs().max(), w * (x.abs().max() / b.abs().max()), b / b.abs().max()
    return float((x.T @ (b - x @ w)).norm() / (x.T @ b).norm()) / (1e4 * eps)


def solver(function, off=residual):
    return Card("toy", "solve", function, None, (PAPER,), {"arguments": problem, "off": off, "scale": ("x", "b")})


def rounded(x, b):
    return lstsq(x.float(), b.float()).to(x)


def narrowed(x, b):
    return lstsq(x, b).float()


def squared(x, b):
    refused(x, b)
    x, b = x.detach(), b.detach()
    return torch.linalg.pinv(x.T @ x) @ (x.T @ b)


def noisy(x, b):
    return lstsq(x, b) * (1 + 1e-15 * torch.rand(4, dtype=x.dtype))


def in_place(x, b):
    found = lstsq(x, b)
    b.mul_(2)
    return found


def contiguous_only(x, b):
    return lstsq(x if x.is_contiguous() else 2 * x, b)


def attached(x, b):
    return lstsq(x, b) if not x.requires_grad else lstsq(x.detach().clone(), b.detach().flip(0))


def trusting(x, b):
    return lstsq(x.nan_to_num(), b)


def unnamed(x, b):
    try:
        return lstsq(x, b)
    except ValueError:
        raise ValueError("something that was given cannot be used, look again") from None


def raw(x, b):
    if x.ndim == 2 and len(x) != len(b):
        return x.T @ b
    return lstsq(x, b)


def test_a_good_solver_passes():
    for check in solvers.CHECKS:
        check(solver(lstsq))


SOLVERS = [
    ("solution", solver(rounded), "times as far off"), ("solution", solver(narrowed), "gives result in"),
    ("sensitive", solver(lstsq, off=lambda w, **_: 0.0), "takes a result that is off by a tenth"),
    ("any_scale", solver(squared), "times 1e-30"), ("repeatable", solver(noisy), "gives two different numbers"),
    ("repeatable", solver(in_place), "gives two different numbers"), ("layout", solver(contiguous_only), "strided"),
    ("layout", solver(attached), "requires grad"), ("refusals", solver(trusting), "accepted nan in x"),
    ("refusals", solver(unnamed), "does not name 'x'"), ("refusals", solver(raw), "a raw RuntimeError"),
]  # fmt: skip


@pytest.mark.parametrize(("prop", "card", "said"), SOLVERS)
def test_each_check_catches_a_solver_that_breaks_it(prop, card, said):
    with pytest.raises(AssertionError, match=said):
        getattr(solvers, prop)(card)


def short(x, rows, *, generator=None):
    """A normal sketch of the rows of x."""
    refused(x, x[..., 0] if x.ndim == 2 else x)
    if rows < 1:
        raise ValueError(f"rows={rows} is below 1; a sketch keeps at least one row")
    return Gaussian.draw(rows, len(x), generator=generator).apply(x.detach())


def sketch(function=short, **given):
    example = {
        "arguments": lambda g: {"x": torch.randn(60, 3, generator=g, dtype=torch.float64), "rows": 30},
        "estimate": lambda found, **_: found.double().T @ found.double(),
        "exact": lambda x, rows: x.double().T @ x.double(),
        "bound": lambda x, rows: (2 / rows) ** 0.5 * float(x.double().norm()) ** 2,
        "size": lambda found, rows, **_: (len(found), rows),
        "scale": ("x",),
    }
    return Card("toy", "sketch", function, None, (PAPER,), {**example, **given})


def test_a_good_sketch_passes():
    for check in sketches.CHECKS:
        check(sketch())


def shrunk(x, rows, *, generator=None):
    return 0.9 * short(x, rows, generator=generator)


def short_of_half(x, rows, *, generator=None):
    return short(x, rows // 4, generator=generator)


def kept_whole(x, rows, *, generator=None):
    return torch.cat((short(x, rows, generator=generator), 0 * x))


def half_precise(x, rows, *, generator=None):
    return short(x * 1e20, rows, generator=generator) / 1e20 if float(x.abs().max()) > 1e6 else short(
        (x * 1e-30).float(), rows, generator=generator).to(x) * 1e30  # fmt: skip


def globally(x, rows, *, generator=None):
    return short(x, rows, generator=torch.default_generator)


def constant(x, rows, *, generator=None):
    return short(x, rows, generator=torch.Generator().manual_seed(3))


def viewed(x, rows, *, generator=None):
    return short(x if x.is_contiguous() else x.flip(0), rows, generator=generator)


def blind(x, rows, *, generator=None):
    return short(x.nan_to_num(), rows, generator=generator)


def uncounted(x, rows, *, generator=None):
    return short(x, max(rows, 1), generator=generator)


SKETCHES = [
    ("bias", sketch(shrunk), "standard errors"), ("bias", sketch(constant), "standard errors"),
    ("error_bound", sketch(short_of_half), "times the error that is stated"),
    ("error_bound", sketch(half_precise), "times the error that is stated"),
    ("sensitive", sketch(bound=lambda x, rows: 10 * float(x.norm()) ** 2), "allows an estimate of zero"),
    ("size", sketch(kept_whole), "holds 90 where 30"), ("random", sketch(globally), "two different numbers"),
    ("random", sketch(constant), "one estimate for two seeds"), ("layout", sketch(viewed), "strided"),
    ("refusals", sketch(blind), "accepted nan in x"), ("refusals", sketch(uncounted), "accepted 0 in rows"),
]  # fmt: skip


@pytest.mark.parametrize(("prop", "card", "said"), SKETCHES)
def test_each_check_catches_a_sketch_that_breaks_it(prop, card, said):
    with pytest.raises(AssertionError, match=said):
        getattr(sketches, prop)(card)


@pytest.mark.parametrize(("suite", "wrong"), [(solvers, SOLVERS), (sketches, SKETCHES)])
def test_every_check_has_a_wrong_method(suite, wrong):
    assert {prop for prop, *_ in wrong} == {check.__name__ for check in suite.CHECKS}
