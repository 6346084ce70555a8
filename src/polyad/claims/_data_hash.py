"""The sha256 of data that a claim draws for itself, the same on any processor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def sha(tensors: Iterable[Tensor]) -> str:
    """The sha256 of these tensors' shapes and of sums over all of their numbers, to four digits.

    Not of their bytes: what a product or a decomposition leaves in the last places differs by processor. The sums are
    the mean size, the root mean square, and the mean with weights that rise along the tensor.

    >>> x = torch.arange(6.0)
    >>> sha([x]) == sha([x * (1 + 1e-7)]), sha([x]) == sha([x.flip(0)])
    (True, False)
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        x = tensor.detach().to("cpu", torch.float64).flatten()
        rising = torch.linspace(0.5, 1.5, x.numel(), dtype=torch.float64)
        sums = x.abs().mean(), x.square().mean().sqrt(), (x.abs() * rising).mean()
        digest.update(f"{tuple(tensor.shape)} {' '.join(f'{float(s):.3e}' for s in sums)}\n".encode())
    return digest.hexdigest()
