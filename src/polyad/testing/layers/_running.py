"""How modules that hold a format run: traced, compiled, under autocast, always without densifying."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from polyad.formats import Format
from polyad.testing._no_densifying import no_densifying
from polyad.testing.layers._modules import Held, modules


def forward(format: Format) -> None:
    """Linear, Embedding and Conv give what torch's own modules give with the dense weight."""
    weight = format.to_dense().detach()
    for each in modules(format):
        peer = each.peer
        with torch.no_grad():
            for name, parameter in peer.named_parameters():
                given = each.module.bias if name == "bias" else weight.reshape(parameter.shape)
                parameter.copy_(given)  # pyright: ignore[reportArgumentType]
        with no_densifying():
            found = each.module(each.input)
        _assert_near(found, peer(each.input), f"{type(each.module).__name__} in eager mode")


def autocast(format: Format) -> None:
    """Under autocast the output has the dtype of torch's own module, for inputs of every dtype."""
    for each in modules(format):
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            x = each.input.to(dtype) if each.input.is_floating_point() else each.input
            peer = copy.deepcopy(each.peer).double() if dtype == torch.float64 else each.peer
            module = copy.deepcopy(each.module).double() if dtype == torch.float64 else each.module
            with torch.autocast("cpu", torch.bfloat16), no_densifying():
                found, expected = module(x), peer(x)
            what = f"{type(module).__name__} of {x.dtype} under autocast"
            assert found.dtype == expected.dtype, f"{what} gives {found.dtype}, torch's own {expected.dtype}"
            assert found.shape == expected.shape, f"{what} gives the shape {tuple(found.shape)}"


def exporting(format: Format) -> None:
    """torch.export of Linear, Embedding and Conv with a dynamic batch, run at other batches than the traced one."""
    held = modules(format)
    together = _Together(held)
    batches = tuple({0: torch.export.Dim(f"batch_{i}", min=2)} for i in range(len(held)))
    with no_densifying():
        program = torch.export.export(
            together, tuple(each.input for each in held), dynamic_shapes=(batches,)
        ).module()
    _assert_batches(program, together, held, "exported")


def compiling(format: Format) -> None:
    """torch.compile without a graph break of Linear, Embedding and Conv with a dynamic batch; gradients too."""
    held = modules(format)
    together = _Together(held)
    torch._dynamo.reset()
    compiled = torch.compile(together, fullgraph=True, backend="aot_eager")
    with no_densifying():
        _assert_batches(compiled, together, held, "compiled")
        found, expected = (_gradients(program, together, held) for program in (compiled, together))
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        _assert_near(one, other, f"gradient {i} of the compiled layers")


class _Together(nn.Module):
    """The layers side by side, so that they are traced at once."""

    def __init__(self, held: tuple[Held, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(each.module for each in held)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple([layer(x) for layer, x in zip(self.layers, inputs, strict=True)])


def _assert_batches(program: Callable[..., Any], eager: nn.Module, held: tuple[Held, ...], how: str) -> None:
    for change in (lambda x: x, lambda x: torch.cat((x, x, x)), lambda x: x[:3]):
        inputs = [change(each.input).clone() for each in held]
        for x in inputs:
            torch._dynamo.mark_dynamic(x, 0)  # a layer that fixes the batch is refused when it is compiled
        for each, found, expected in zip(held, program(*inputs), eager(*inputs), strict=True):
            _assert_near(found, expected, f"{type(each.module).__name__}, {how}, at batch {len(inputs[0])}")


def _gradients(program: Callable[..., Any], together: nn.Module, held: tuple[Held, ...]) -> tuple[Tensor, ...]:
    total = torch.stack([y.square().sum() for y in program(*(each.input for each in held))]).sum()
    return torch.autograd.grad(total, tuple(together.parameters()))  # the biases at least


def _assert_near(found: Tensor, expected: Tensor, what: str) -> None:
    assert found.shape == expected.shape, f"{what}: the shape is {tuple(found.shape)}, not {tuple(expected.shape)}"
    assert found.dtype == expected.dtype, f"{what}: the dtype is {found.dtype}, not {expected.dtype}"
    error, limit = float((found - expected).detach().norm()), 1e-5 * float(expected.detach().norm()) + 1e-6
    assert error <= limit, f"{what}: off by {error:.3g} in Frobenius norm, more than rounding allows ({limit:.3g})"
