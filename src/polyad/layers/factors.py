"""The module that holds a format."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Self, cast

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

    def __init__(self, format: Format, *, trainable: bool = True, _shared: dict[int, Tensor] | None = None) -> None:
        super().__init__()
        # by id: a tensor that the format holds twice is registered as one
        shared = {} if _shared is None else _shared
        self.prepared: Any = None
        self.wish: Any = None
        self.looked_up = False  # set by an embedding, which reads single rows
        self._kind: type[Format] = type(format)
        self._plain: dict[str, Any] = {}
        self._names: list[str] = []
        for name in format.field_names():
            value = getattr(format, name)
            parts = value if isinstance(value, tuple) else (value,)
            if any(isinstance(part, Tensor | Format) for part in parts):
                self._names.append(name)
                exact = name in format.exact
                if isinstance(value, tuple):
                    self.add_module(name, _Several(value, exact, trainable, shared))
                else:
                    _register(self, name, value, exact, trainable, shared)
            else:
                self._plain[name] = value

    def forward(self) -> Format:
        """The format, made of the tensors that this module now holds."""
        fields = dict(self._plain)
        for name in self._names:
            value = getattr(self, name)
            fields[name] = value() if isinstance(value, Factors | _Several) else value
        return self._kind(**fields)

    # While its codes are packed for a kernel (``polyad.layers.kernels``), whatever asks for what is stored gets them
    # back first, and the next few rows pack them again.

    @property
    def _buffers(self) -> dict[str, Tensor | None]:
        self.unprepare()
        return self.stored_buffers

    @_buffers.setter
    def _buffers(self, buffers: dict[str, Tensor | None]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.__dict__["_buffers"] = buffers

    @property
    def stored_buffers(self) -> dict[str, Tensor | None]:
        """The buffers as they are: None for codes that are packed."""
        return self.__dict__["_buffers"]

    def unprepare(self) -> None:
        """Take packed codes back into their place."""
        if self.__dict__.get("prepared") is not None:
            self.prepared.undo()

    def __getattr__(self, name: str) -> Any:
        if name not in self.stored_buffers:
            return super().__getattr__(name)
        while True:
            self.unprepare()
            value = super().__getattr__(name)
            if value is not None or self.prepared is None:  # else another thread has just packed it
                return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("prepared", "wish", "looked_up"):
            self.unprepare()
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if state["prepared"] is not None:
            state["_buffers"] = {**state["_buffers"], **self.prepared.codes_of(self)}
            state["prepared"] = None
        return state

    def train(self, mode: bool = True) -> Self:
        if mode:
            self.unprepare()
        return super().train(mode)

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
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        _keep(self, before, self._kind.exact)
        for name, value in self._plain.items():
            if isinstance(value, torch.dtype):  # what the format will say its dtype is follows the cast
                self._plain[name] = fn(torch.empty(0, dtype=value)).dtype
        return self


class _Several(nn.Module):
    """A field that is a tuple of formats or tensors; its state-dict names are the places in the tuple."""

    def __init__(self, values: tuple[Any, ...], exact: bool, trainable: bool, shared: dict[int, Tensor]) -> None:
        super().__init__()
        self._count, self._exact = len(values), exact
        for i, value in enumerate(values):
            _register(self, str(i), value, exact, trainable, shared)

    def forward(self) -> tuple[Any, ...]:
        values = [getattr(self, str(i)) for i in range(self._count)]
        return tuple([value() if isinstance(value, Factors) else value for value in values])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        _keep(self, before, before.keys() if self._exact else ())
        return self


def _register(
    module: nn.Module, name: str, value: Tensor | Format, exact: bool, trainable: bool, shared: dict[int, Tensor]
) -> None:
    if isinstance(value, Format):
        module.add_module(name, Factors(value, trainable=trainable, _shared=shared))
    elif trainable and value.is_floating_point() and not exact:
        parameter = shared.setdefault(id(value), value if isinstance(value, nn.Parameter) else nn.Parameter(value))
        module.register_parameter(name, cast(nn.Parameter, parameter))
    else:
        module.register_buffer(name, value.detach())


def _keep(module: nn.Module, before: dict[str, Tensor | None], exact: Collection[str]) -> None:
    """Give buffers that a cast must not touch their dtype and numbers back, where they are now."""
    for name, old in before.items():
        new = module._buffers[name]
        if old is None or new is None or new.dtype == old.dtype:
            continue
        if name in exact or not old.is_floating_point():
            module._buffers[name] = old.to(new.device)
