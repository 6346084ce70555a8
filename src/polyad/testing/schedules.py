"""The contract of a schedule: what every training procedure owes the loop that hosts it, whatever its idea is.

A schedule is made with its card's ``example``, in which ``model``, a function without arguments, gives the model to
train where the small network here will not do; it maps rows (*, 8) to rows (*, 4).
"""

from __future__ import annotations

import contextlib
import functools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from polyad._callback import Callback
from polyad._card import Card
from polyad.models import load, save
from polyad.testing._contract import seeded_generator
from polyad.testing._saved import assert_same
from polyad.train import Schedule, descend

STEPS, RATE = 12, 0.02
HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


def network() -> nn.Module:
    """The model to train: three linear layers, the same ones at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4))


def make_schedule(card: Card) -> tuple[Schedule, nn.Module]:
    """A schedule with its example's settings, and a model to train."""
    settings = {name: value for name, value in card.example.items() if name != "model"}
    return card.function(**settings), card.example.get("model", network)()


def run(
    schedule: Schedule,
    model: nn.Module,
    *,
    steps: int = STEPS,
    file: Path | None = None,
    callback: Callback | None = None,
    watch: Callable[[int], None] | None = None,
) -> list[float]:
    """Train a model to reproduce a fixed function, with other rows at every step; the losses."""
    x = torch.randn(96, 8, generator=seeded_generator(1))
    y = (x @ torch.randn(8, 4, generator=seeded_generator(2)) / 2).tanh()
    dtype = next(model.parameters()).dtype

    def loss(step: int) -> Tensor:
        if watch is not None:
            watch(step)
        rows = torch.randperm(96, generator=seeded_generator(step))[:48]
        return (model(x[rows].to(dtype)).float() - y[rows]).square().mean()

    return descend(model, loss, steps=steps, rate=RATE, state=file, every=1, schedule=schedule, callback=callback)


def descent(card: Card) -> None:
    """The loss falls, and it and all numbers stay finite, in float32 and bfloat16."""
    for dtype in (torch.float32, torch.bfloat16):
        schedule, model = make_schedule(card)
        losses = run(schedule, model.to(dtype), steps=4 * STEPS)
        last = sum(losses[-STEPS:]) / STEPS
        assert last < 0.9 * losses[0], f"{card.name} trains nothing: the loss goes from {losses[0]:.3g} to {last:.3g}"
        for name, tensor in model.state_dict().items():
            assert bool(torch.isfinite(tensor).all()), f"{card.name} leaves numbers in {name} that are not finite"


def ordinary(card: Card) -> None:
    """However short the run, what it ends in holds nothing of the schedule, and is saved and loaded as any model."""
    for steps in (1, 2, STEPS):
        schedule, model = make_schedule(card)
        run(schedule, model, steps=steps)
        for path, module in model.named_modules():
            left = [hooks for hooks in HOOKS if getattr(module, hooks, None)]
            assert not left, f"{card.name} leaves {left} on the module {path!r} after {steps} steps"
            assert not parametrize.is_parametrized(module), f"{card.name} leaves a parametrization on {path!r}"
            assert "forward" not in vars(module), f"{card.name} leaves another forward on {path!r}"
        x = torch.randn(5, 8, generator=seeded_generator(3))
        assert torch.equal(_load_back(model, make_schedule(card)[1])(x), model(x)), (
            f"{card.name} ends in another model than saved"
        )


def _load_back(model: nn.Module, plain: nn.Module) -> nn.Module:
    """The model's state in the architecture that training began with, or, where layers changed, from a folder."""
    with contextlib.suppress(RuntimeError):
        plain.load_state_dict(model.state_dict())
        return plain
    with tempfile.TemporaryDirectory() as folder:
        return load(save(model, Path(folder) / "model"), like=plain)


def resume(card: Card) -> None:
    """Killed after any step, a run goes on to the same losses and the same numbers."""
    schedule, model = make_schedule(card)
    losses = run(schedule, model)
    expected = model.state_dict()
    for killed in (1, 2, STEPS // 2, STEPS - 2, STEPS - 1):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "state"
            with contextlib.suppress(_KilledError):
                run(*make_schedule(card), file=file, callback=functools.partial(_kill, killed))
            schedule, model = make_schedule(card)
            again = run(schedule, model, file=file)
        what = f"{card.name}, killed after step {killed},"
        assert again == losses, f"{what} goes on to other losses"
        assert_same(model.state_dict(), expected, what)


class _KilledError(Exception):
    pass


def _kill(last: int, step: int, *_: Any) -> None:
    if step == last:
        raise _KilledError


def repeatable(card: Card) -> None:
    """Two runs give the same numbers and leave torch's own generator alone; so does one schedule started twice."""
    before = torch.get_rng_state()
    schedule, model = make_schedule(card)
    run(schedule, model)
    again, other = make_schedule(card)
    run(again, other)
    assert torch.equal(torch.get_rng_state(), before), f"{card.name} draws from torch's own generator"
    assert_same(other.state_dict(), model.state_dict(), f"{card.name}, run twice,")
    third = make_schedule(card)[1]
    run(again, third)
    assert_same(third.state_dict(), model.state_dict(), f"{card.name}, started a second time,")


def coverage(card: Card) -> None:
    """At every step the groups hold each trained parameter once, at rates that follow the run's."""
    schedule, model = make_schedule(card)

    def check(*_: Any) -> None:
        members = [id(p) for group in schedule.groups(RATE) for p in group["params"]]
        assert len(members) == len(set(members)), f"{card.name} has a parameter in two groups"
        trained = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
        missing = [name for key, name in trained.items() if key not in members]
        assert not missing, f"{card.name} has {missing[:3]} in no group"
        assert set(members) <= trained.keys(), f"{card.name} trains what is not in the model or is frozen"
        for one, two in zip(schedule.groups(RATE), schedule.groups(2 * RATE), strict=True):
            doubled = math.isclose(two["lr"], 2 * one["lr"])
            assert doubled, f"{card.name} does not let the rate of {len(one['params'])} parameters follow the run's"

    run(schedule, model, callback=check, watch=check)


def penalties(card: Card) -> None:
    """At every step, and where all weights are zero, the penalty is one finite number with finite gradients."""
    schedule, model = make_schedule(card)

    def check(*_: Any) -> None:
        penalty = schedule.penalty()
        if penalty is None:
            return
        assert penalty.numel() == 1, f"the penalty of {card.name} has the shape {tuple(penalty.shape)}"
        assert penalty.requires_grad, f"nothing that is trained has a part in the penalty of {card.name}"
        trained = [p for p in model.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(penalty, trained, allow_unused=True)
        assert any(g is not None for g in slopes), f"the penalty of {card.name} is of other parameters"
        for numbers in (penalty, *(g for g in slopes if g is not None)):
            assert bool(torch.isfinite(numbers).all()), f"the penalty of {card.name} or its gradient is not finite"

    run(schedule, model, watch=check)
    schedule, model = make_schedule(card)
    schedule.start(model)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    check()


CHECKS = (descent, ordinary, resume, repeatable, coverage, penalties)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "coverage", "descent", "make_schedule", "network", "ordinary", "penalties", "repeatable", "resume",
    "run",
]  # fmt: skip
