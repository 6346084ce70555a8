"""The work of a test in two processes that meet over gloo, and models of which each holds a shard."""

import torch
import torch.distributed as dist


def run_in_two(work, folder, *arguments):
    """Call ``work(rank, *arguments)`` in two processes of one group; ``folder`` is where they meet."""
    torch.multiprocessing.spawn(_join, (f"file://{folder / 'meeting'}", work, arguments), nprocs=2)


def _join(rank, address, work, arguments):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    work(rank, *arguments)
    dist.destroy_process_group()


def shard(model):
    """Shard a model by FSDP2 over both processes, its layer ``first`` as a unit of its own."""
    from torch.distributed.fsdp import fully_shard

    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    fully_shard(model.first, mesh=mesh)
    fully_shard(model, mesh=mesh)
