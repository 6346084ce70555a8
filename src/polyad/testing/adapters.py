"""The contract of an adapter: what every method owes on every kind of layer, whatever its idea is.

A check takes a card and a kind of layer. The adapter is made with the card's ``example``, in which ``of`` (a tuple of
kinds) limits the layers that the method is for, and ``identity=False`` says that it does not start at the base.

>>> from polyad._card import card
>>> for check in CHECKS:
...     check(card("lora"), "linear")
"""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyad._card import Card
from polyad.adapters import Adapted, Adapters
from polyad.statistics import Moments
from polyad.testing._contract import seeded
from polyad.testing._no_densifying import no_densifying

Check = Callable[[Card, str], None]

LAYERS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "linear": lambda: (nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 12, bias=False)), _normal(5, 12)),
    "conv1d": lambda: (
        nn.Sequential(nn.Conv1d(6, 12, 3, padding=1), nn.Conv1d(12, 6, 2, groups=2)),
        _normal(2, 6, 8),
    ),
    "conv2d": lambda: (
        nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1, padding_mode="reflect")),
        _normal(2, 4, 6, 6),
    ),
    "conv3d": lambda: (nn.Sequential(nn.Conv3d(4, 8, 2, dilation=2)), _normal(1, 4, 4, 4, 4)),
    "embedding": lambda: (nn.Sequential(nn.Embedding(24, 12)), torch.tensor([[0, 23, 5], [7, 7, 1]])),
    "experts": lambda: (nn.Sequential(Experts(3, 12, 24)), _normal(5, 12)),
}
"""Small models of every kind of layer, and an input of each."""


class Experts(nn.Module):
    """A mixture's experts as transformers holds them, here with every expert on every row."""

    def __init__(self, count: int, width: int, inner: int) -> None:
        super().__init__()
        self.num_experts = count
        self.up = nn.Parameter(torch.randn(count, inner, width) / width**0.5)
        self.down = nn.Parameter(torch.randn(count, width, inner) / inner**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(x @ u.mT).tanh() @ d.mT for u, d in zip(self.up, self.down, strict=True)]).sum(0)


def layers(card: Card) -> tuple[str, ...]:
    """The kinds of layers that a method is for: all, or those in its example's ``of``."""
    return card.example.get("of", tuple(LAYERS))


def adapted(
    card: Card,
    kind: str,
    *,
    names: tuple[str, ...] = ("a",),
    dtype: torch.dtype = torch.float32,
    moved: bool = True,
    dropout: float = 0.0,
) -> tuple[nn.Module, Adapters, Tensor]:
    """A model of this kind of layer with adapters of these names, away from their start unless told otherwise."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = LAYERS[kind]()
    model, x = model.to(dtype), x.to(dtype) if x.is_floating_point() else x
    adapters = Adapters(model)
    given = {key: value for key, value in card.example.items() if key not in ("of", "identity")}
    for i, name in enumerate(names):
        adapters.attach(
            name, "*", card.function, of=("linear", "conv", "experts", "embedding"), seed=i,
            loss=lambda: model(x).float().square().sum(), stats=_Any(model), dropout=dropout, **given,
        )  # fmt: skip
        if moved:
            move(adapters, name, seed=i)
    return model, adapters, x


def move(adapters: Adapters, name: str, *, seed: int = 0) -> None:
    """Add normal numbers to everything that an adapter trains, so that its change is no longer zero."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in adapters.parameters(name):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))


def start(card: Card, kind: str) -> None:
    """The model gives what it gave before, where the method starts at the base; the base keeps names and numbers."""
    model, adapters, x = adapted(card, kind, moved=False)
    found = model(x)
    assert any(p.requires_grad for p in adapters.parameters("a")), f"{card.name} trains nothing"
    adapters.activate([])
    expected = model(x)
    if card.example.get("identity", True):
        off = float((found - expected).detach().abs().max() / expected.detach().abs().max())
        assert off < 1e-5, f"{card.name} changes a {kind} layer by {off:.2g} before any step"
    plain, _ = LAYERS[kind]()
    missing = plain.state_dict().keys() - model.state_dict().keys()
    assert not missing, f"the base's {sorted(missing)} are no longer in the state dict"


def merging(card: Card, kind: str) -> None:
    """Merged weights give what the forward pass gives, with gradients and without; unmerging restores every bit."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model, adapters, x = adapted(card, kind, dtype=dtype)
        before = {name: t.clone() for name, t in model.state_dict().items()}
        adapters.activate({"a": 0.5})
        half = model(x)
        adapters.activate("a")
        expected = model(x)
        assert half.dtype == expected.dtype, f"{card.name} by a weight turns a {kind} layer into {half.dtype}"
        with torch.no_grad():
            _near(model(x), expected, dtype, f"{card.name} without gradients on a {kind} layer")
        adapters.merge()
        found = model(x)
        assert expected.dtype == found.dtype, f"{card.name} turns a {kind} layer of {dtype} into {expected.dtype}"
        _near(found, expected, dtype, f"{card.name} merged into a {kind} layer")
        adapters.unmerge()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), f"unmerging {card.name} alters {name} in {dtype}"
        assert torch.equal(model(x), expected), f"{card.name} gives something else after unmerging"


def sums(card: Card, kind: str) -> None:
    """Two active adapters change every layer by the sum of their changes, in any order, each by its weight."""
    model, adapters, _ = adapted(card, kind, names=("a", "b"), dtype=torch.float64)
    changes: dict[str, dict[str, Tensor]] = {}
    before = {name: t.clone() for name, t in model.state_dict().items() if ".adapters" not in name}
    asks: dict[str, Any] = {"a": "a", "b": "b", "both": ["b", "a"], "weighted": {"a": 0.5, "b": -2.0}}
    for name, ask in asks.items():
        adapters.activate(ask)
        adapters.merge()
        changes[name] = {key: model.state_dict()[key] - t for key, t in before.items()}
        adapters.unmerge()
    for key in before:
        a, b = changes["a"][key], changes["b"][key]
        _near(changes["both"][key], a + b, torch.float64, f"two {card.name} on {key}")
        _near(changes["weighted"][key], 0.5 * a - 2 * b, torch.float64, f"weighted {card.name} on {key}")


def several(card: Card, kind: str) -> None:
    """The forward pass of two weighted adapters is that of their merged weights."""
    model, adapters, x = adapted(card, kind, names=("a", "b"), dtype=torch.float64)
    for ask in (["a", "b"], {"b": 0.5, "a": 2.0}):
        adapters.activate(ask)
        expected = model(x)
        adapters.merge()
        _near(model(x), expected, torch.float64, f"two {card.name} on a {kind} layer")
        adapters.unmerge()


def rows(card: Card, kind: str) -> None:
    """Each row of a batch may have its own adapter."""
    if kind == "experts":
        return
    model, adapters, x = adapted(card, kind, names=("a", "b"), dtype=torch.float64)
    choice: list[str | None] = [("a", None, "b")[i % 3] for i in range(len(x))]
    with adapters.routed(choice):
        found = model(x)
    for name in {*choice}:
        adapters.activate([] if name is None else [name])
        index = [i for i, own in enumerate(choice) if own == name]
        _near(found[index], model(x)[index], torch.float64, f"rows of {card.name} {name} on a {kind} layer")


def saving(card: Card, kind: str) -> None:
    """Saved, and loaded onto the same model, it gives the same to the last digit; copies do too."""
    model, adapters, x = adapted(card, kind)
    expected = model(x)
    assert torch.equal(copy.deepcopy(model)(x), expected), f"a copy of a model with {card.name} gives something else"
    with tempfile.TemporaryDirectory() as folder:
        adapters.save("a", Path(folder) / "a")
        adapters.detach("a")
        assert not torch.equal(model(x), expected), f"detaching {card.name} leaves its change"
        assert adapters.load(Path(folder) / "a") == "a"
    assert torch.equal(model(x), expected), f"{card.name} loaded on a {kind} layer gives something else"


def gradients(card: Card, kind: str) -> None:
    """Gradients agree with finite differences in float64 and reach every trained number; the base gets none."""
    model, adapters, x = adapted(card, kind, dtype=torch.float64)
    names = {name: p for name, p in adapters.named_parameters("a").items() if p.requires_grad}
    given = tuple(names.values())
    probe = torch.randn(model(x).shape, generator=seeded(3), dtype=torch.float64)

    def run(*_: Tensor) -> Tensor:
        return (model(x) * probe).sum()

    assert torch.autograd.gradcheck(run, given, fast_mode=True)
    for (name, _), grad in zip(names.items(), torch.autograd.grad(run(), given, allow_unused=True), strict=True):
        assert grad is not None, f"{name} of {card.name} gets no gradient"
    model.zero_grad()
    run().backward()
    trained = {id(p) for p in given}
    reached = [name for name, p in model.named_parameters() if p.grad is not None and id(p) not in trained]
    assert not reached, f"{card.name} lets gradients reach the frozen {reached}"


def dropping(card: Card, kind: str) -> None:
    """Dropped inputs leave evaluation alone, change training, and have finite gradients."""
    if kind in ("embedding", "experts"):
        return
    model, _, x = adapted(card, kind)
    expected = model.eval()(x)
    again, others, _ = adapted(card, kind, dropout=0.5)
    assert torch.equal(again.eval()(x), expected), f"{card.name} drops inputs in evaluation"
    found = again.train()(x)
    assert not torch.equal(found, expected), f"{card.name} ignores dropout in training"
    found.square().sum().backward()
    for name, parameter in others.named_parameters("a").items():
        if parameter.requires_grad and parameter.grad is not None:
            assert bool(torch.isfinite(parameter.grad).all()), f"the gradient of {name} is not finite with dropout"


def structured(card: Card, kind: str) -> None:
    """Where the method's update is a format, the forward pass of few rows never forms it."""
    _, adapters, x = adapted(card, kind)
    first = next(iter(adapters.layers().values()))
    if not isinstance(first, Adapted):
        return
    terms = [term for own in first.routes.values() for term in own]
    if all(term.structured and first.base.rows(x) < min(term.folds.plain, term.folds.trained) for term in terms):
        with no_densifying():
            first(x)


def compiling(card: Card, kind: str) -> None:
    """One graph, gradients too, and no other one when adapters of one shape are switched; on one kind of layer."""
    if kind != layers(card)[0]:
        return
    model, adapters, x = adapted(card, kind, names=("a", "b"))
    torch._dynamo.reset()
    counter = _Counter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for i, name in enumerate(("a", "b", "a")):
        adapters.activate(name)
        _near(compiled(x), model(x), torch.float32, f"compiled {card.name} on a {kind} layer")
        assert counter.count == 1, f"{card.name} was compiled {counter.count} times after {i} switches"
    own = tuple(p for p in adapters.parameters("a"))
    found, expected = (torch.autograd.grad(run(x).square().sum(), own) for run in (compiled, model))
    for one, other in zip(found, expected, strict=True):
        _near(one, other, torch.float32, f"a gradient of compiled {card.name}")


def damaged(card: Card, kind: str) -> None:
    """NaN in what is trained is refused at merging, and two adapters cannot have one name; nothing is half done."""
    model, adapters, _ = adapted(card, kind)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    again = functools.partial(adapters.attach, "a", "*", card.function, of=("linear", "conv", "experts", "embedding"))
    _refused(again, "'a'", f"a second {card.name} of one name")
    parameter = next(iter(adapters.parameters("a")))
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.view(-1)[0] = torch.nan
    _refused(adapters.merge, "NaN", f"merging NaN of {card.name}")
    with torch.no_grad():
        parameter.copy_(kept)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"a refused merge altered {name}"


def _refused(act: Callable[[], Any], word: str, what: str) -> None:
    try:
        act()
    except ValueError as error:
        said = str(error)
    else:
        raise AssertionError(f"{what} was not refused")
    assert word in said, f"{what} is refused without saying {word}: {said}"


class _Counter:
    """A backend of torch.compile that counts its graphs."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        self.count += 1
        return aot_eager(graph, inputs)


class _Any(dict[str, Moments]):
    """Statistics of every layer, as if its inputs were independent and of unit variance."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for path, module in model.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor):
                n = weight.numel() // weight.shape[0]
                shapes = {"mean": torch.zeros(n), "peak": torch.ones(n), "output_square": torch.ones(weight.shape[0])}
                self[path] = Moments(1, second=torch.eye(n), **shapes)


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=seeded(1))


def _near(found: Tensor, expected: Tensor, dtype: torch.dtype, what: str) -> None:
    """Equal but for roundings: a thousand of the dtype's epsilon, relative to the largest entry."""
    assert found.shape == expected.shape, f"{what}: the shape is {tuple(found.shape)}, not {tuple(expected.shape)}"
    off = float((found.detach().double() - expected.detach().double()).abs().max())
    limit = (16 if dtype == torch.bfloat16 else 1000) * torch.finfo(dtype).eps
    limit *= max(1e-3, float(expected.detach().double().abs().max()))
    assert off <= limit, f"{what}: off by {off:.3g}, more than rounding allows ({limit:.3g})"


CHECKS: tuple[Check, ...] = (
    start, merging, sums, several, rows, saving, gradients, dropping, structured, compiling, damaged,
)  # fmt: skip
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "LAYERS", "Experts", "adapted", "compiling", "damaged", "dropping", "gradients", "layers",
    "merging", "move", "rows", "saving", "several", "start", "structured", "sums",
]  # fmt: skip
