"""Formats whose codes are in a kernel's own layout, once that kernel was seen to be right here."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from polyad.formats import Format, Product, Quantized, Sum, Superblocks

KERNELS = ("auto", "plain", "packed4", "packed8", "digits8", "cores4")
CUDA_KERNELS = ("cores4",)
"""``auto`` measures; ``plain`` packs nothing; the others name the one kernel that is used wherever it fits."""
ERROR = 2.0**-7
"""What a packed product may miss the exact one by, in the Frobenius norm: four times what bfloat16 rounds off."""
ROWS = (1, 3, 17)
_trust: dict[Any, bool] = {}


def check_kernels(kernels: str) -> None:
    """Refuse a choice of kernels that there is not."""
    if kernels not in KERNELS:
        raise ValueError(f"kernels={kernels!r} is no choice of kernels; choose from {', '.join(KERNELS)}")


def serves(kernels: str, device: torch.device) -> bool:
    """True for a choice of kernels some of which run on a device; those of CUDA are chosen by their names alone."""
    return device.type == "cpu" if kernels not in CUDA_KERNELS else device.type == "cuda"


def pack_codes(source: Quantized, kernels: str) -> Format | None:
    """A quantised matrix packed for this processor by a kernel that is right; None where there is none."""
    if kernels == "plain" or not serves(kernels, source.device):
        return None
    with torch.inference_mode(False), torch.no_grad():
        format = source.prepare(source.device, None if kernels == "auto" else kernels)
        return format if format is not None and is_right(format, source) else None


def pack_parts(weight: Format, pack: Callable[[Quantized], Format | None]) -> Format:
    """A format whose quantised matrices, wherever they stand in it, are packed where ``pack`` can."""
    if isinstance(weight, Quantized | Superblocks):
        return pack(weight if isinstance(weight, Quantized) else weight.to_quantized()) or weight
    if isinstance(weight, Sum):
        return Sum(tuple(pack_parts(term, pack) for term in weight.terms))
    if isinstance(weight, Product):
        return Product(tuple(pack_parts(factor, pack) for factor in weight.factors))
    return weight


def is_right(format: Any, source: Quantized) -> bool:
    """True where a kernel's products agree with the matrix, and its codes come back; tried once for each grid."""
    key = (type(format), source.bits, source.size, source.block, source.zero is None, source.scale.dtype)
    if key not in _trust:
        _trust[key] = _try_out(format, source)
        if not _trust[key]:
            _say_untrusted(type(format).__name__)
    return _trust[key]


def _try_out(format: Any, source: Quantized) -> bool:
    try:
        if not torch.equal(format.restore().codes, source.codes):
            return False
        some = last_rows(source)
        return all(_agrees(one.prepare(one.device, format.kernel), one) for one in (some, _uneven(some)))
    except (RuntimeError, NotImplementedError, ValueError):  # what operators say of what they cannot do
        return False


def last_rows(source: Quantized, count: int = 256) -> Quantized:
    """The matrix of about so many of the last rows, from a whole block of the operators' on."""
    start = max(0, source.size[0] - count) // 64 * 64
    if start == 0 or source.block[0] > 1:
        return source
    return source.with_rows({name: t[start:] for name, t in source.tensors().items()}, source.size[0] - start)


def _uneven(source: Quantized) -> Quantized:
    """The same codes with scales from 2**-12 to 2**12 times theirs."""
    powers = torch.arange(source.scale.numel(), device=source.device).reshape(source.scale.shape) % 25 - 12
    return dataclasses.replace(source, scale=(source.scale.float() * 2.0**powers).clamp(2.0**-14, 2.0**14))


def _agrees(format: Any, source: Quantized) -> bool:
    n, k = source.size
    exact = source.dequantize(torch.float64)
    generator = torch.Generator().manual_seed(0)
    for rows in ROWS:
        x = torch.randn(rows, k, generator=generator, device="cpu").bfloat16().to(source.device)
        expected = x.double() @ exact.mT
        for y in (format.few(x)[:, :n].double(), format.many(x.float()).double()):
            if not bool((y - expected).norm() <= ERROR * expected.norm()):  # NaN is no agreement
                return False
    return True


@functools.cache
def _say_untrusted(kernel: str) -> None:
    warnings.warn(
        f"torch {torch.__version__}'s product for {kernel} is wrong or missing for some layers on this processor; "
        "they are computed without it, more slowly",
        stacklevel=2,
    )


def stored_bytes(weight: Format | Tensor) -> int:
    """The bytes of a weight, packed parts included."""
    if isinstance(weight, Sum | Product):
        parts = weight.terms if isinstance(weight, Sum) else weight.factors
        return sum(stored_bytes(part) for part in parts)
    return weight.nbytes
