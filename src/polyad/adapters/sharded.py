"""Tensors of which each process holds a shard, read and changed whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


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
