"""The state of a training run of an adapter, kept in a file and resumed from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyad.adapters.host.adapters import Adapters
from polyad.adapters.host.state import tensors_by_name
from polyad.adapters.sharded import is_sharded
from polyad.train.state import keep, resume


@dataclass
class Run:
    """The progress of one training, over all its runs."""

    losses: list[float]
    seconds: float


def training_tensors(adapters: Adapters, name: str, *, below: bool) -> dict[str, Tensor]:
    """Every number of an adapter that training can change, buffers that are never saved included; with ``below``
    those of the layers that it stands on too."""
    tensors = tensors_by_name(adapters.bank(name), (), lambda bank: bank.state_dict(keep_vars=True).items())
    tensors |= tensors_by_name(None, adapters.of(name).items(), _parameters_and_buffers)
    tensors |= adapters.trained(name)
    for path, layer in adapters.layers().items() if below else ():
        if name in layer.specs:
            tensors |= {f"below.{path}.{key}": tensor for key, tensor in _parameters_and_buffers(layer.layer)}
    return tensors


def _parameters_and_buffers(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    return (*module.named_parameters(), *module.named_buffers())


def keep_run(
    file: Path, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, run: Run, identity: str
) -> None:
    """Write a run with its tensors and the optimiser's to a file."""
    frozen = [key for key, t in tensors.items() if isinstance(t, nn.Parameter) and not t.requires_grad]
    stated: dict[str, Any] = {"asked": identity, "losses": run.losses, "seconds": run.seconds, "frozen": frozen}
    keep(file, tensors, optimizer, stated)


def resume_run(
    file: Path | None, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, identity: str
) -> Run:
    """Read the run in a file into the adapter's tensors and the optimiser; a new run where there is no file."""
    stated = None if file is None else resume(file, tensors, optimizer, identity)
    if stated is None:
        return Run([], 0.0)
    for key in stated.get("frozen", ()):
        if key not in tensors:
            raise ValueError(f"{file} freezes {key!r}, which the adapter does not have; remove it to begin again")
        tensors[key].requires_grad_(False)
    return Run(list(stated["losses"]), stated.get("seconds", 0.0))


def refuse_sharded(file: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse to keep a run of which each process holds a shard."""
    if is_sharded(tensors.values()):
        raise ValueError(
            f"{file} cannot keep {name!r}, of which each process holds a shard; train without state= and keep its "
            "state with torch.distributed.checkpoint"
        )
