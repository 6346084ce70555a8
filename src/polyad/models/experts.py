"""Experts that a model keeps in one tensor, as a linear layer each."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from polyad.models.described import register_kind

FIRST, LAST = ("gate_up_proj", "up_proj"), "down_proj"


@register_kind
class SplitExperts(nn.Module):
    """The experts of a layer of transformers, each with two linear layers of its own in place of a slice.

    Called as the fused module is: with rows (tokens, width), the experts of each row and their weights; or with the
    rows of all experts one after another. Every expert meets the rows that were sent to it.
    """

    def __init__(self, before: Any) -> None:
        super().__init__()
        self.first = next(name for name in FIRST if name in before._parameters)
        self.transposed = bool(getattr(before, "is_transposed", not hasattr(before, "has_gate")))
        self.rest: Any = copy.copy(before)  # its activation, and what it is told by
        self.rest._parameters = {}
        self.rest._modules = dict(before._modules)
        self.rest._is_hf_initialized = True  # transformers would draw numbers for the tensors that it no longer has
        for name in (self.first, LAST):
            self.add_module(name, nn.ModuleList(_layers(before, name, self.transposed)))

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """hidden_states of shape (tokens, width), experts and their weights of shape (tokens, chosen)."""
        chosen = (*args, *kwargs.values())
        up, down = self.get_submodule(self.first), self.get_submodule(LAST)
        if not chosen:
            parts = hidden_states.reshape(len(up), -1, hidden_states.shape[-1])  # pyright: ignore
            rows = [self._one(u, d, x) for u, d, x in zip(up, down, parts, strict=True)]  # pyright: ignore
            return torch.cat(rows)
        experts, weights = chosen
        rows, out = hidden_states.reshape(-1, hidden_states.shape[-1]), torch.zeros_like(hidden_states)
        total = out.view(-1, hidden_states.shape[-1])
        for number in experts.unique().tolist():
            if number < len(up):  # pyright: ignore - one more stands for none
                token, place = torch.where(experts == number)
                y = self._one(up[number], down[number], rows[token])  # pyright: ignore
                total.index_add_(0, token, (y * weights[token, place, None]).to(total.dtype))
        return out

    def _one(self, up: Any, down: Any, x: Tensor) -> Tensor:
        y = up(x)
        if self.first == "up_proj":
            y = self.rest.act_fn(y)
        elif hasattr(self.rest, "_apply_gate"):
            y = self.rest._apply_gate(y)
        else:
            gate, value = y.chunk(2, -1)
            y = self.rest.act_fn(gate) * value
        y = down(y)
        return self.rest.post_expert_norm(y) if getattr(self.rest, "has_post_expert_norm", False) else y

    def spec(self) -> dict[str, Any]:
        """JSON from which ``from_spec`` makes this module again, without its numbers."""
        return {"layer": "SplitExperts"}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], before: nn.Module) -> SplitExperts:  # noqa: ARG003 - it says all
        """The module in place of the fused one."""
        return cls(before)


def _layers(before: Any, name: str, transposed: bool) -> list[nn.Linear]:
    weights, biases = before._parameters[name], before._parameters.get(f"{name}_bias")
    layers: list[nn.Linear] = []
    for number, slice_ in enumerate(weights.detach()):
        weight = slice_.mT if transposed else slice_
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=biases is not None, device="meta")
        layer.weight = nn.Parameter(weight, requires_grad=weights.requires_grad)
        if biases is not None:
            layer.bias = nn.Parameter(biases.detach()[number], requires_grad=biases.requires_grad)
        layers.append(layer)
    return layers


def split_experts(model: nn.Module) -> dict[str, nn.Module]:
    """For each module with experts in one tensor what takes its place, by path; none where the two differ."""
    splits: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        names = {name for name, p in module._parameters.items() if p is not None and p.ndim == 3}
        if LAST in names and names & {*FIRST} and not any(p.is_meta for p in module.parameters()):
            split = SplitExperts(module).train(module.training)
            if _is_same(module, split):
                splits[path] = split
    return splits


@torch.no_grad()
def _is_same(module: Any, split: SplitExperts) -> bool:
    """True if both give the same on random rows and choices, each in evaluation mode."""
    layer: Any = split.get_submodule(split.first)[0]  # pyright: ignore
    count, generator = len(module._parameters[LAST]), torch.Generator().manual_seed(0)
    x = torch.randn(4 * count, layer.in_features, generator=generator).to(layer.weight)
    experts = torch.stack([torch.randperm(count, generator=generator)[: min(2, count)] for _ in x]).to(x.device)
    weights = torch.rand(experts.shape, generator=generator).to(x)
    chosen = (experts, weights) if hasattr(module, "has_gate") else ()
    one, other = copy.copy(module), copy.copy(split)
    one.training = other.training = False
    try:
        y, z = one(x, *chosen), other(x, *chosen)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False
    close = 1e-4 if x.dtype in (torch.float32, torch.float64) else 2e-2
    return y.shape == z.shape and bool((y - z).norm() <= close * y.norm())


def layer_at(model: nn.Module, path: str) -> nn.Module:
    """The module at a path, or the linear layer that an expert in one tensor would be."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        owner, _, number = path.rpartition(".")
        home, _, name = owner.rpartition(".")
        return SplitExperts(model.get_submodule(home)).get_submodule(f"{name}.{number}")
