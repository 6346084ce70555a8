"""Checks of the training of an adapter: gradients, dropout, passes without the dense update, compilation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.adapters import Adapted
from polyad.adapters.training.loop import train
from polyad.testing._contract import seeded_generator
from polyad.testing._no_densifying import no_densifying
from polyad.testing.adapters._subject import assert_near, layers, model_with_adapters

STEPS = 20
"""Steps of the method's own optimiser and rate."""
LEAST = 5e-5
"""The share of a loss that they take off at least; a method that trains one number takes ten times as much."""


def gradients(card: Card, kind: str) -> None:
    """Gradients agree with finite differences in float64 and reach every trained number; the base gets none."""
    model, adapters, x = model_with_adapters(card, kind, dtype=torch.float64)
    names = {name: p for name, p in adapters.named_parameters("a").items() if p.requires_grad}
    parameters = tuple(names.values())
    probe = torch.randn(model(x).shape, generator=seeded_generator(3), dtype=torch.float64)

    def run(*_: Tensor) -> Tensor:
        return (model(x) * probe).sum()

    assert torch.autograd.gradcheck(run, parameters, fast_mode=True)
    for (name, _), grad in zip(names.items(), torch.autograd.grad(run(), parameters, allow_unused=True), strict=True):
        assert grad is not None, f"{name} of {card.name} gets no gradient"
    model.zero_grad()
    run().backward()
    trained = {id(p) for p in parameters}
    reached = [name for name, p in model.named_parameters() if p.grad is not None and id(p) not in trained]
    assert not reached, f"{card.name} lets gradients reach the frozen {reached}"


def learning(card: Card, kind: str) -> None:
    """Some steps from the start, with the method's own optimiser, rate and hooks, lower a loss and move every tensor
    that is trained."""
    model, adapters, x = model_with_adapters(card, kind, moved=False)
    output = model(x).detach()
    target = output + output.std() * torch.randn(output.shape, generator=seeded_generator(5))

    def loss(_step: int = 0) -> Tensor:
        return (model(x) - target).square().mean()

    first = float(loss().detach())
    still = {name: p.detach().clone() for name, p in adapters.named_parameters("a").items() if p.requires_grad}

    def note_moves(*_: Any) -> None:
        for name, p in adapters.named_parameters("a").items():
            if name in still and not torch.equal(p, still[name]):
                del still[name]

    train(adapters, "a", loss, steps=STEPS, callback=note_moves)
    last = float(loss().detach())
    assert last < (1 - LEAST) * first, f"{card.name} on a {kind} layer leaves a loss of {first:.6g} at {last:.6g}"
    assert not still, f"{card.name} trains {', '.join(still)}, which {STEPS} steps leave as they were"


def dropout(card: Card, kind: str) -> None:
    """Dropped inputs leave evaluation alone, change training, and have finite gradients."""
    if kind in ("embedding", "experts"):
        return
    model, _, x = model_with_adapters(card, kind)
    expected = model.eval()(x)
    again, others, _ = model_with_adapters(card, kind, dropout=0.5)
    assert torch.equal(again.eval()(x), expected), f"{card.name} drops inputs in evaluation"
    output = again.train()(x)
    assert not torch.equal(output, expected), f"{card.name} ignores dropout in training"
    output.square().sum().backward()
    for name, parameter in others.named_parameters("a").items():
        if parameter.requires_grad and parameter.grad is not None:
            assert bool(torch.isfinite(parameter.grad).all()), f"the gradient of {name} is not finite with dropout"


def no_dense_update(card: Card, kind: str) -> None:
    """The forward pass of few rows never forms the dense update of a method whose update is a format."""
    _, adapters, x = model_with_adapters(card, kind)
    first = next(iter(adapters.layers().values()))
    if not isinstance(first, Adapted):
        return
    terms = [term for route in first.routes.values() for term in route]
    if all(term.structured and first.base.rows(x) < min(term.folds.plain, term.folds.trained) for term in terms):
        with no_densifying():
            first(x)


def compilation(card: Card, kind: str) -> None:
    """One graph, gradients too, and no other one when adapters of one shape are switched; on one kind of layer."""
    if kind != layers(card)[0]:
        return
    model, adapters, x = model_with_adapters(card, kind, names=("a", "b"))
    torch._dynamo.reset()
    counter = _GraphCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for i, name in enumerate(("a", "b", "a")):
        adapters.activate(name)
        assert_near(compiled(x), model(x), torch.float32, f"compiled {card.name} on a {kind} layer")
        assert counter.count == 1, f"{card.name} was compiled {counter.count} times after {i} switches"
    parameters = tuple(p for p in adapters.parameters("a"))
    results, expected = (torch.autograd.grad(run(x).square().sum(), parameters) for run in (compiled, model))
    for one, other in zip(results, expected, strict=True):
        assert_near(one, other, torch.float32, f"a gradient of compiled {card.name}")


class _GraphCounter:
    """A backend of torch.compile that counts its graphs."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        self.count += 1
        return aot_eager(graph, inputs)
