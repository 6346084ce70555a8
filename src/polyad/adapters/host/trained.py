"""Tensors of the model itself that an adapter trains whole beside its updates: a head, norms, biases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from polyad.adapters.sharded import is_sharded

PREFIX = "trained."
"""Before a tensor's path in the state dict of an adapter."""


@dataclass(eq=False)
class TrainedPlace:
    """A tensor of the model for which an adapter has one of its own, which stands there while the adapter acts."""

    path: str
    module: nn.Module
    leaf: str
    tensor: Tensor
    aside: Tensor | None = None
    """The model's own tensor, while the adapter's stands in its place."""

    @property
    def table(self) -> dict[str, Any]:
        """The module's tensors among which this one stands."""
        return self.module._parameters if self.leaf in self.module._parameters else self.module._buffers

    @property
    def current(self) -> Tensor:
        """The adapter's tensor; what was done to the model while it stood there was done to it."""
        return self.tensor if self.aside is None else self.table[self.leaf]

    def put_in(self) -> None:
        """Let the adapter's tensor stand in the model."""
        if self.aside is None:
            self.aside = self._exchange(self.tensor)

    def take_out(self) -> None:
        """Let the model's own tensor stand in its place again."""
        if self.aside is not None:
            self.tensor, self.aside = self._exchange(self.aside), None

    def _exchange(self, tensor: Tensor) -> Tensor:
        before = self.table[self.leaf]
        if is_sharded([before]) != is_sharded([tensor]):
            raise ValueError(
                f"{self.path} was sharded with the numbers of one adapter in it; let the adapter act before "
                "fully_shard, and leave it active"
            )
        tensor.data = tensor.data.to(before.device, before.dtype if before.is_floating_point() else None)
        self.table[self.leaf] = tensor
        return before


def switch_places(trained: Mapping[str, Sequence[TrainedPlace]], weights: Mapping[str, Tensor | None]) -> None:
    """Let the tensors of these adapters stand in the model, and no others."""
    _refuse_weights(trained, weights)
    for name, places in trained.items():
        for place in places if name not in weights else ():
            place.take_out()
    for name in weights:
        for place in trained.get(name, ()):
            place.put_in()


def _refuse_weights(trained: Mapping[str, Sequence[TrainedPlace]], weights: Mapping[str, Tensor | None]) -> None:
    """Refuse adapters that train the same tensors side by side, and weights of those that train any."""
    owners: dict[tuple[int, str], str] = {}
    for name, weight in weights.items():
        for place in trained.get(name, ()):
            other = owners.setdefault((id(place.module), place.leaf), name)
            if other != name:
                raise ValueError(
                    f"{other!r} and {name!r} both train {place.path}, so that one of them can act at a time; "
                    f"activate([]) before you attach or load another, and activate({name!r}) to choose"
                )
            if weight is not None:
                raise ValueError(f"{name!r} trains {place.path} whole, which takes no weight; give it weight 1")


def refuse_trained(trained: Mapping[str, Sequence[TrainedPlace]], names: Iterable[str], what: str) -> None:
    """Refuse for adapters that train tensors of the model whole what can be done with updates alone."""
    for name in names:
        if trained.get(name):
            raise ValueError(f"{name!r} trains {trained[name][0].path} whole, and {what}")


def keep_in_model(trained: Mapping[str, list[TrainedPlace]]) -> None:
    """Make the tensors that stand in the model the model's own."""
    for places in trained.values():
        places[:] = [place for place in places if place.aside is None]


def places_of(places: Iterable[TrainedPlace]) -> dict[str, Tensor]:
    """The adapter's tensors by their names in its state dict."""
    return {PREFIX + place.path: place.current for place in places}


def without_gradients(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as a state dict gives them."""
    return {name: tensor.detach() for name, tensor in tensors.items()}
