"""The contract of a transform: what every rule that turns gradients into steps owes the optimiser that hosts it.

A transform is made with its card's ``example``. In it ``lr`` is the learning rate at which it descends (0.05 by
default), and ``scale`` what becomes of the direction where all gradients are multiplied by c: 0 if it stays as it is,
1 if it is multiplied by c too; left out where neither holds.

>>> from polyad._card import card
>>> for check in CHECKS:
...     check(card("projected_adam"))
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from polyad._card import Card
from polyad.optim import Optimizer, Transform
from polyad.optim.transform import take_step
from polyad.testing._contract import normal, seeded_generator
from polyad.testing._saved import assert_same, read_back

SHAPES = ((7,), (6, 10), (12, 5), (4, 3, 2, 2))
"""Parameters of one, two and four dimensions, wide and tall."""

AWKWARD = ((), (1,), (1, 6), (6, 1), (2, 1, 3), (1, 1, 1, 1))
DTYPES = (torch.float32, torch.bfloat16, torch.float64)
SAVED = range(1, 8)
"""Steps after which a run is saved and goes on; more than the interval of a refresh that an example should have."""


def make_transform(card: Card, seed: int = 0) -> Transform:
    """A transform with its example's arguments, and with a generator of this seed where it takes one."""
    arguments = {name: value for name, value in card.example.items() if name not in ("lr", "scale")}
    if "generator" in inspect.signature(card.function).parameters:
        arguments["generator"] = seeded_generator(seed)
    return card.function(**arguments)


def parameters(
    dtype: torch.dtype = torch.float32, shapes: tuple[tuple[int, ...], ...] = SHAPES
) -> list[nn.Parameter]:
    """Normal numbers in these shapes, the same ones at every call."""
    return [nn.Parameter(normal(*shape, seed=i).to(dtype)) for i, shape in enumerate(shapes)]


def step(optimizer: Optimizer, params: list[nn.Parameter], seed: int, scale: float = 1.0) -> None:
    """One step with normal gradients of this seed."""
    for i, p in enumerate(params):
        p.grad = (scale * normal(*p.shape, seed=100 * seed + i)).to(p.dtype)
    optimizer.step()


def descent(card: Card) -> None:
    """The distance to a target, unevenly weighed, falls to a tenth, in float32 and bfloat16."""
    for dtype in (torch.float32, torch.bfloat16):
        params = parameters(dtype)
        targets = [normal(*p.shape, seed=50 + i) for i, p in enumerate(params)]
        weights = [torch.linspace(0.5, 2, p.numel()).view(p.shape) for p in params]
        optimizer = _host(card, params, lr=card.example.get("lr", 0.05))
        losses = []
        for _ in range(200):
            optimizer.zero_grad()
            terms = zip(params, targets, weights, strict=True)
            each = torch.stack([(w * (p.float() - t).square()).sum() for p, t, w in terms])
            each.sum().backward()
            losses.append(each.detach())
            optimizer.step()
        for p, first, last in zip(params, losses[0], losses[-1], strict=True):
            what = f"{card.name} on a parameter of {dtype} and shape {tuple(p.shape)}"
            assert float(last) < 0.1 * float(first), f"{what} goes from {float(first):.3g} to {float(last):.3g}"


def resume(card: Card) -> None:
    """Saved after any step and read safely, the state is the same to the last digit, and so are later steps."""
    for dtype in DTYPES:
        for saved in SAVED:
            optimizer = _host(card, params := parameters(dtype))
            for i in range(saved):
                step(optimizer, params, i)
            others = [nn.Parameter(p.detach().clone()) for p in params]
            twin = Optimizer(others, make_transform(card, seed=1), lr=0.01)
            twin.load_state_dict(read_back(optimizer.state_dict()))
            what = f"{card.name}, saved after {saved} steps in {dtype},"
            assert_same(twin.state_dict()["state"], optimizer.state_dict()["state"], what)
            for i in range(saved, saved + 3):
                step(optimizer, params, i)
                step(twin, others, i)
            for one, other in zip(params, others, strict=True):
                assert torch.equal(one, other), (
                    f"{what} takes other steps on {tuple(one.shape)} than if it had run on"
                )


def homogeneity(card: Card) -> None:
    """Gradients times c give the directions that the example's ``scale`` states."""
    if "scale" not in card.example:
        return
    power = card.example["scale"]
    plain = _directions(card, 1.0)
    for factor in (1e-3, 1e3):
        for one, scaled in zip(plain, _directions(card, factor), strict=True):
            off = float((scaled / factor**power - one).norm() / one.norm())
            assert off < 1e-3, f"{card.name} is off by {off:.2g} where gradients are {factor:g} times as large"


def zeros(card: Card) -> None:
    """Without any gradient nothing moves; gradients before zeros, and after them, give finite directions."""
    for order in ((0.0, 0.0, 1.0, 1.0), (1.0, 0.0, 0.0, 1.0)):
        params, before = parameters(), [p.detach().clone() for p in parameters()]
        optimizer = _host(card, params)
        for i, scale in enumerate(order):
            step(optimizer, params, i, scale)
            for p, old in zip(params, before, strict=True):
                told = f"{card.name} is not finite after gradients times {order[: i + 1]}"
                assert bool(torch.isfinite(p).all()), told
                moved = float((p.detach() - old).abs().max())
                assert any(order[: i + 1]) or moved == 0, f"{card.name} moves by {moved:.2g} without any gradient"


def shapes(card: Card) -> None:
    """Directions have the parameter's shape, and are finite, for parameters with dimensions of one and with none."""
    for dtype in DTYPES:
        params = parameters(dtype, AWKWARD + SHAPES)
        transform = make_transform(card)
        for p in params:
            state = transform.init(p)
            for i in range(2):
                direction = transform.update(normal(*p.shape, seed=i).to(dtype), state, p)
                what = f"{card.name} on a parameter of {dtype} and shape {tuple(p.shape)}"
                assert direction.shape == p.shape, f"{what} gives a direction of shape {tuple(direction.shape)}"
                assert bool(torch.isfinite(direction).all()), f"{what} gives a direction that is not finite"


def apart(card: Card) -> None:
    """Gradients and parameters stay as they are; each parameter has a state of its own, which owns its storage."""
    together = _directions(card, 1.0)
    for place, (p, expected) in enumerate(zip(parameters(), together, strict=True)):
        transform, before = make_transform(card), p.detach().clone()
        state, direction = transform.init(p), torch.empty(0)
        for grad in (normal(*p.shape, seed=100 * i + place) for i in range(3)):
            argument = grad.clone()
            direction = transform.update(argument, state, p)
            assert torch.equal(argument, grad), f"{card.name} changes the gradient"
            assert torch.equal(p, before), f"{card.name} changes the parameter, which is the optimiser's to do"
        assert torch.equal(direction, expected), (
            f"{card.name} on {tuple(p.shape)} depends on the parameters before it"
        )
        for name, tensor in ((name, t) for name, t in state.items() if isinstance(t, Tensor)):
            stored, shown = tensor.untyped_storage().nbytes(), tensor.numel() * tensor.element_size()
            assert stored == shown, f"{name} of {card.name} shows {shown} of {stored} bytes; saving stores them all"


def descent_in_place(card: Card) -> None:
    """A transform's own ``descend`` takes the steps that its directions give, and keeps the same state."""
    for p in parameters():
        one, other, transform = p.detach().clone(), p.detach().clone(), make_transform(card)
        states = [transform.init(one), transform.init(other)]
        for i in range(4):
            grad = normal(*p.shape, seed=200 + i)
            one = 0.98 * one - 0.1 * transform.update(grad, states[0], one)
            take_step(transform, other, grad, states[1], lr=0.1, decay=0.2)
            off = float((one - other).norm() / one.norm())
            assert off < 1e-4, f"{card.name}: descend differs from its direction by {off:.2g} on {tuple(p.shape)}"


def repeatable(card: Card) -> None:
    """The same gradients give the same directions, and torch's own generator is left alone."""
    before = torch.get_rng_state()
    for one, other in zip(_directions(card, 1.0), _directions(card, 1.0), strict=True):
        assert torch.equal(one, other), f"{card.name} called twice gives two directions"
    assert torch.equal(torch.get_rng_state(), before), f"{card.name} draws from torch's own generator"


def _host(card: Card, params: list[nn.Parameter], lr: float = 0.01) -> Optimizer:
    return Optimizer(params, make_transform(card), lr=lr)


def _directions(card: Card, scale: float) -> list[Tensor]:
    """The directions of the third step, one transform for all parameters."""
    transform, params = make_transform(card), parameters()
    states = [transform.init(p) for p in params]
    directions: list[Tensor] = []
    for i in range(3):
        directions = [
            transform.update(scale * normal(*p.shape, seed=100 * i + place), state, p)
            for place, (p, state) in enumerate(zip(params, states, strict=True))
        ]
    return directions


CHECKS = (descent, resume, homogeneity, zeros, shapes, apart, descent_in_place, repeatable)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "apart", "descent", "descent_in_place", "homogeneity", "make_transform", "parameters", "repeatable",
    "resume", "shapes", "zeros",
]  # fmt: skip
