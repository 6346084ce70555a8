"""Formats of modules, packed for as long as they only multiply: what is packed stands in the place of the codes."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from polyad.formats import Format, Product, Quantized, Sum, Superblocks
from polyad.formats.stored.packed_cores import PackedCores
from polyad.formats.stored.packed_digits import PackedDigits
from polyad.formats.stored.quantized import PACKERS
from polyad.layers.factors import Factors
from polyad.layers.kernels.choice import CHOICES
from polyad.layers.kernels.pack import check_kernels, last_rows, pack_codes, serves
from polyad.layers.kernels.runs import MOST_INEXACT, KernelRun, run_for

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BLIND = (PackedDigits.kernel, PackedCores.kernel)
"""Kernels whose layout shows no row by itself: not for what embeddings share."""
_LOCK = threading.RLock()


class PreparedFactors:
    """The packed form of the format of one ``Factors``: what multiplies, and how the codes come back.

    ``leaves`` are the modules whose codes are packed, each with the format that holds them.
    """

    def __init__(self, root: Factors, format: Format, leaves: list[tuple[Factors, Any]], kernels: str) -> None:
        self.format, self.leaves, self.kernels = format, leaves, kernels
        self.modules = [module for module in root.modules() if isinstance(module, Factors)]
        self._runs: dict[torch.dtype, KernelRun] = {}

    def run(self, dtype: torch.dtype) -> KernelRun:
        """The product with rows of a dtype."""
        if dtype not in self._runs:
            self._runs[dtype] = run_for(self.format, dtype, most_rows(self.kernels))
        return self._runs[dtype]

    def codes_of(self, module: Factors) -> dict[str, Tensor]:
        """The buffer of a module that is packed, by name; nothing for one whose buffers all stand in it."""
        with torch.inference_mode(False), torch.no_grad():
            format = next((format for leaf, format in self.leaves if leaf is module), None)
            return {} if format is None else {"codes": format.restore().codes}

    def undo(self) -> None:
        """Give the modules their codes back."""
        with _LOCK:
            if self.modules[0].prepared is not self:
                return
            for module, _ in self.leaves:
                module.stored_buffers.update(self.codes_of(module))
            for module in self.modules:
                module.prepared = None
            wish: Wish | None = self.modules[0].wish
            if wish is not None:
                wish.put_off()


class Wish:
    """The wish that a format be packed once it meets few rows, and again, ever later, whenever that was undone."""

    def __init__(self, kernels: str) -> None:
        self.kernels, self.wait, self.times = kernels, 0, 0

    def is_due(self) -> bool:
        """True once the module met as many few rows as it has to wait for."""
        self.wait -= 1
        return self.wait < 0

    def put_off(self) -> None:
        """Wait twice as long as the time before: something reads the codes."""
        self.times += 1
        self.wait = 2 ** min(self.times, 16) - 2


def most_rows(kernels: str) -> Any:
    """The rule up to how many rows packed products serve under this choice of kernels."""

    def most(format: Any, dtype: torch.dtype) -> int:
        if dtype not in DTYPES:
            return 0
        if kernels != "auto":
            return MOST_INEXACT
        return CHOICES.of(format.source, format.kernel, dtype, measure=False)["most"]

    return most


def prepared_run(weight: Factors, x: Tensor) -> KernelRun | None:
    """The fast product of a module's format with x; None where the plain one has to serve."""
    prepared: PreparedFactors | None = weight.prepared
    if prepared is None and (weight.wish is None or not _is_few(x) or weight.training or not weight.wish.is_due()):
        return None
    if type(x) is not Tensor or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return None
    if prepared is None:
        prepared = prepare_factors(weight, weight.wish.kernels, x.dtype)
    return None if prepared is None else prepared.run(x.dtype)


def _is_few(x: Tensor) -> bool:
    """True for rows of a kind for which packing pays: few of them, and no gradient of theirs wanted."""
    return (
        not torch.compiler.is_compiling()
        and not (x.requires_grad and torch.is_grad_enabled())
        and x.dtype in DTYPES
        and x.device.type in ("cpu", "cuda")
        and x.numel() <= MOST_INEXACT * x.shape[-1]
    )


def prepare_factors(root: Factors, kernels: str, dtype: torch.dtype) -> PreparedFactors | None:
    """Pack the format of a module; None, and no wish for more, where no part of it can be."""
    check_kernels(kernels)
    with _LOCK:
        if root.prepared is not None:
            return root.prepared
        leaves: list[tuple[Factors, Any]] = []
        format = _pack_modules(root, (kernels, dtype, root.looked_up), leaves)
        if kernels == "plain" or not all(serves(kernels, t.device) for t in root.buffers()):
            root.wish = None
            return None
        prepared = PreparedFactors(root, format, leaves, kernels)
        for module in prepared.modules:
            module.prepared = prepared
        for module, _ in leaves:  # last: a thread that meets no codes finds who has them
            module.stored_buffers["codes"] = None
        return prepared


def _pack_modules(module: nn.Module, how: tuple[str, torch.dtype, bool], leaves: list[tuple[Factors, Any]]) -> Any:
    """The format of a module with its codes packed; ``leaves`` gets the modules that these belong to."""
    format: Any = module()
    source = format.to_quantized() if isinstance(format, Superblocks) else format
    if isinstance(module, Factors) and isinstance(source, Quantized):
        fast = pack_if_faster(source, *how)
        if fast is None:
            return format
        leaves.append((module, fast))
        return fast
    if isinstance(format, Sum | Product):
        (parts,) = module.children()
        return type(format)(tuple(_pack_modules(part, how, leaves) for part in parts.children()))
    return format


def pack_if_faster(format: Quantized, kernels: str, dtype: torch.dtype, looked_up: bool = False) -> Format | None:
    """A quantised matrix packed by a kernel that is right and, if they are to be chosen, the fastest at one row."""
    if dtype not in DTYPES:
        return None
    names = [] if looked_up and kernels in BLIND else [kernels]
    if kernels == "auto":
        names = kernels_by_speed(format, dtype, looked_up)
    return next((fast for name in names if (fast := pack_codes(format, name)) is not None), None)


def kernels_by_speed(source: Quantized, dtype: torch.dtype, looked_up: bool, *, measure: bool = False) -> list[str]:
    """The kernels that are faster for a matrix than to restore it, the fastest first; those unknown come last."""
    choices = {name: CHOICES.of(source, name, dtype, measure=measure) for name in fitting_kernels(source, looked_up)}
    usable = [name for name, choice in choices.items() if choice["most"] >= 1]
    return sorted(usable, key=lambda name: choices[name]["packed"] or float("inf"))


def fitting_kernels(source: Quantized, looked_up: bool) -> list[str]:
    """The kernels that a matrix can be packed for; where rows of it are looked up, by those that can tell rows."""
    some = last_rows(source, 64)
    names = [name for name in PACKERS if not (looked_up and name in BLIND)]
    return [name for name in names if pack_codes(some, name) is not None]
