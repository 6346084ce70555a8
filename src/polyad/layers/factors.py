"""The module that holds a format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from polyad.formats import Format


class Factors(nn.Module):
    """Registers a format's tensors and gives the format back when called.

    Trainable floating-point tensors become parameters; integers, the fields that the format calls ``exact`` and,
    with ``trainable=False``, all the rest become buffers. Exact tensors keep their dtype whatever the module is
    cast to. Names in the state dict are the format's own dotted names.

    >>> from polyad.formats import LowRank
    >>> weight = Factors(LowRank(torch.ones(4, 1), torch.ones(1, 3)))
    >>> weight().to_dense().shape, sorted(weight.state_dict())
    (torch.Size([4, 3]), ['left', 'right'])
    """

    def __init__(self, format: Format, *, trainable: bool = True) -> None:
        super().__init__()
        self._kind: type[Format] = type(format)
        self._plain: dict[str, Any] = {}
        self._held: list[str] = []
        for name in format._fields():
            self._register(name, getattr(format, name), name in format.exact, trainable)

    def _register(self, name: str, value: Any, exact: bool, trainable: bool) -> None:
        if isinstance(value, Tensor):
            self._held.append(name)
            if trainable and value.is_floating_point() and not exact:
                self.register_parameter(name, value if isinstance(value, nn.Parameter) else nn.Parameter(value))
            else:
                self.register_buffer(name, value.detach())
        elif isinstance(value, Format):
            self._held.append(name)
            self.add_module(name, Factors(value, trainable=trainable))
        elif isinstance(value, tuple) and any(isinstance(v, Tensor | Format) for v in value):
            self._held.append(name)
            self.add_module(name, _Several(value, trainable))
        else:
            self._plain[name] = value

    def forward(self) -> Format:
        """The format, made of the tensors that this module now holds."""
        fields = dict(self._plain)
        for name in self._held:
            value = getattr(self, name)
            fields[name] = value() if isinstance(value, Factors | _Several) else value
        return self._kind(**fields)

    @property
    def shape(self) -> tuple[int, ...]:
        return self().shape

    @property
    def dtype(self) -> torch.dtype:
        return self().dtype

    @property
    def device(self) -> torch.device:
        return self().device

    def extra_repr(self) -> str:
        return repr(self())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = {name: self._buffers[name] for name in self._kind.exact & self._buffers.keys()}
        super()._apply(fn, recurse)
        for name, before in exact.items():
            after = self._buffers[name]
            if before is not None and after is not None and after.dtype != before.dtype:
                self._buffers[name] = before.to(after.device)
        for name, value in self._plain.items():
            if isinstance(value, torch.dtype):  # what the format will say its dtype is follows the cast
                self._plain[name] = fn(torch.empty(0, dtype=value)).dtype
        return self


class _Several(nn.Module):
    """A field that is a tuple of formats or tensors; its state-dict names are the places in the tuple."""

    def __init__(self, values: tuple[Any, ...], trainable: bool) -> None:
        super().__init__()
        self._count = len(values)
        for i, value in enumerate(values):
            if isinstance(value, Format):
                self.add_module(str(i), Factors(value, trainable=trainable))
            elif trainable and value.is_floating_point():
                self.register_parameter(str(i), nn.Parameter(value))
            else:
                self.register_buffer(str(i), value.detach())

    def forward(self) -> tuple[Any, ...]:
        values = (getattr(self, str(i)) for i in range(self._count))
        return tuple(value() if isinstance(value, Factors) else value for value in values)
