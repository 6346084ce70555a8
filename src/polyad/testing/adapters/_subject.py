"""Models of every kind of layer with adapters on them, and comparisons for the contract of adapters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from polyad._card import Card
from polyad.adapters import Adapters
from polyad.statistics import Moments
from polyad.testing._contract import seeded_generator

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


def model_with_adapters(
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
    arguments = {key: value for key, value in card.example.items() if key not in ("of", "identity", "inner_alpha")}
    for i, name in enumerate(names):
        adapters.attach(
            name, "*", card.function, of=("linear", "conv", "experts", "embedding"), seed=i,
            loss=lambda: model(x).float().square().sum(), stats=UnitMoments(model), dropout=dropout, **arguments,
        )  # fmt: skip
        if moved:
            move(adapters, name, seed=i)
    return model, adapters, x


def move(adapters: Adapters, name: str, *, seed: int = 0) -> None:
    """Add normal numbers to everything that an adapter trains, so that its change is no longer zero."""
    generator = seeded_generator(seed)
    with torch.no_grad():
        for parameter in adapters.parameters(name):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))


class UnitMoments(dict[str, Moments]):
    """Statistics of every layer, as if its inputs were independent and of unit variance."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for path, module in model.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor):
                n = weight.numel() // weight.shape[0]
                shapes = {"mean": torch.zeros(n), "peak": torch.ones(n), "output_square": torch.ones(weight.shape[0])}
                self[path] = Moments(1, second=torch.eye(n), **shapes)


def assert_near(result: Tensor, expected: Tensor, dtype: torch.dtype, what: str) -> None:
    """Equal but for roundings: a thousand of the dtype's epsilon, relative to the largest entry."""
    assert result.shape == expected.shape, f"{what}: the shape is {tuple(result.shape)}, not {tuple(expected.shape)}"
    off = float((result.detach().double() - expected.detach().double()).abs().max())
    limit = (16 if dtype == torch.bfloat16 else 1000) * torch.finfo(dtype).eps
    limit *= max(1e-3, float(expected.detach().double().abs().max()))
    assert off <= limit, f"{what}: off by {off:.3g}, more than rounding allows ({limit:.3g})"


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=seeded_generator(1))
