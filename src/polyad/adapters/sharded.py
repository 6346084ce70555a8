"""Tensors of which each process holds a shard, read and changed whole."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def whole(x: Tensor) -> Tensor:
    """All of a tensor, gathered where processes hold shards of it (FSDP2); gradients flow back to the shards.

    Every process must come here, and in the same order.
    """
    gather: Any = getattr(x, "full_tensor", None)
    return x if gather is None else gather()


def is_sharded(tensors: Iterable[Tensor]) -> bool:
    """True where each process holds a shard of one of these."""
    return any(hasattr(x, "full_tensor") for x in tensors)


def another_process_writes(tensors: Iterable[Tensor]) -> bool:
    """True where the tensors are sharded and this is not the first process, which writes them."""
    return is_sharded(tensors) and torch.distributed.get_rank() != 0


@torch.no_grad()
def multiply(x: Tensor, factor: Tensor) -> None:
    """Multiply a tensor by one of its whole shape, in place; of a sharded one each process its own part."""
    mesh: Any = getattr(x, "device_mesh", None)
    if mesh is not None:
        from torch.distributed.tensor import distribute_tensor

        distributed: Any = x
        factor = distribute_tensor(factor, mesh, distributed.placements, src_data_rank=None)
    x.mul_(factor)


def sharded_parts(model: nn.Module) -> list[Any]:
    """The modules of a model whose tensors FSDP2 shards; after a forward pass some of them may be whole."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    return [] if fsdp is None else [module for module in model.modules() if isinstance(module, fsdp.FSDPModule)]


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Within it each process holds all tensors of a model that FSDP2 shards, after it its shards.

    For what reads and writes weights of all layers; an update is gathered by its layer. Every process must come here.
    What is read within must be copied to be kept: the whole tensors are freed.
    """
    for part in sharded_parts(model):
        part.unshard()
    try:
        yield
    finally:
        reshard(model)


def reshard(model: nn.Module) -> None:
    """Let each process hold its shards alone, of what FSDP2 left whole after a forward pass too."""
    for part in sharded_parts(model):
        part.reshard()


@torch.no_grad()
def exchange(parameter: Tensor, numbers: Tensor) -> Tensor:
    """Put other numbers into a parameter and return those that it held; of a sharded one, each process its own part.

    What holds shards looks at the memory that it knows, which is therefore written into.
    """
    if not is_sharded([parameter]):
        before, parameter.data = parameter.data, numbers.to(device=parameter.device, dtype=parameter.dtype)
        return before
    before, shard = parameter.detach().clone(), numbers
    if not is_sharded([numbers]):
        from torch.distributed.tensor import distribute_tensor

        distributed: Any = parameter
        shard = distribute_tensor(numbers, distributed.device_mesh, distributed.placements, src_data_rank=None)
    parameter.copy_(shard)
    return before
