"""The decoder of a model, made once and kept for as long as the model and its numbers are the same."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from polyad.decode.check import check_decoder
from polyad.decode.outline import NoLoopError
from polyad.decode.steps.decoder import BufferedDecoder
from polyad.decode.structure.model import read_outline
from polyad.layers import Factors
from polyad.layers.kernels.process_memory import return_memory
from polyad.models.mode import eval_mode

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass
class Prepared:
    """A decoder, or the reason why there is none; ``lock`` is held while its buffers are used."""

    signature: tuple[Any, ...]
    decoder: BufferedDecoder | None
    reason: str | None
    lock: threading.Lock = field(default_factory=threading.Lock)


_KNOWN: weakref.WeakKeyDictionary[nn.Module, dict[tuple[torch.dtype, str], Prepared]] = weakref.WeakKeyDictionary()


def prepare_decoder(model: Any, dtype: torch.dtype, kernels: str = "auto") -> Prepared:
    """The decoder of a model in a dtype, with such products; made anew where the model changed."""
    signature = _signature(model)
    prepared = _KNOWN.setdefault(model, {}).get((dtype, kernels))
    if prepared is None or prepared.signature != signature:
        prepared = _KNOWN[model][dtype, kernels] = Prepared(signature, *_make(model, dtype, kernels))
        prepared.signature = _signature(model)  # reading it may have chosen its attention
        return_memory()
    return prepared


def _make(model: Any, dtype: torch.dtype, kernels: str) -> tuple[BufferedDecoder | None, str | None]:
    try:
        with torch.no_grad(), eval_mode(model):
            decoder = BufferedDecoder(read_outline(model), dtype, kernels)
            check_decoder(decoder, model)
    except NoLoopError as reason:
        return None, str(reason)
    except Exception as error:  # a model that is unlike any known here, in a way that no reader looks for
        return None, f"its structure could not be read ({type(error).__name__}: {str(error).splitlines()[:1]})"
    return decoder, None


def _signature(model: nn.Module) -> tuple[Any, ...]:
    """A value that changes where a module, a tensor or its numbers do: a few numbers of each stand for all."""
    modules = tuple(
        (
            id(m),
            len(m._forward_hooks),
            len(m._forward_pre_hooks),
            id(vars(m).get("forward")),
            m.mark if hasattr(type(m), "mark") else None,
        )
        for m in model.modules()
    )
    return modules, tuple(map(_mark, stored_tensors(model)))


def stored_tensors(model: nn.Module) -> list[Tensor]:
    """The parameters and buffers of a model but codes, which to read is to unpack: they change with their scales."""
    tensors: list[Tensor | None] = list(model.parameters())
    for module in model.modules():
        if isinstance(module, Factors):
            tensors += [t for t in module.stored_buffers.values() if t is not None and t.is_floating_point()]
        else:
            tensors += module._buffers.values()
    return [tensor for tensor in tensors if tensor is not None]


def _mark(tensor: Tensor) -> tuple[Any, ...]:
    with torch.no_grad():
        flat = tensor.detach().reshape(-1)[:: max(1, tensor.numel() // 16)][:16]
        numbers = tuple(flat.float().tolist()) if not tensor.is_meta else ()
    version = None if tensor.is_inference() else tensor._version
    return id(tensor), version, tensor.data_ptr() if not tensor.is_meta else 0, tuple(tensor.shape), numbers
