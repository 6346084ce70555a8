"""The adapter of each row of a batch, for the thread or task that runs it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Routing:
    """The rows of a batch that each adapter takes, by the adapter's name, and the count of all rows."""

    rows: Mapping[str, Tensor]
    batch: int


_BY_MODEL: ContextVar[Mapping[int, Routing]] = ContextVar("polyad_routing", default=MappingProxyType({}))
"""The routing of this thread or task, by the id of the ``Routings`` of a model."""


@dataclass
class Routings:
    """The routings of a model that are in force in any thread; each thread or task sees its own alone."""

    in_force: tuple[Routing, ...] = ()

    @property
    def current(self) -> Routing | None:
        """The routing of the thread or task that asks; None where it has none."""
        if not self.in_force:  # the usual case, which compiled graphs see as a constant
            return None
        routing = _BY_MODEL.get().get(id(self))
        if routing is None and threading.current_thread().name.startswith("Dummy"):  # one of torch's backward pass
            first, *others = self.in_force
            if others:
                raise ValueError(
                    "layers run again in a backward pass while several threads route rows, so that their adapters "
                    "are not known; leave gradient checkpointing out, or route in one thread at a time"
                )
            return first
        return routing

    @contextmanager
    def put_in_force(self, routing: Routing) -> Iterator[None]:
        """Within it, this thread or task runs with a routing."""
        token = _BY_MODEL.set({**_BY_MODEL.get(), id(self): routing})
        with _LOCK:
            self.in_force = (*self.in_force, routing)
        try:
            yield
        finally:
            with _LOCK:
                self.in_force = tuple(other for other in self.in_force if other is not routing)
            _BY_MODEL.reset(token)


_LOCK = threading.Lock()
