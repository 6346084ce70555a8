"""The function by which a model rotates its keys."""

from __future__ import annotations

import inspect
import sys

import torch
from torch import Tensor, nn


class ModelRotation:
    """Rotates keys as the file of an attention module does: halves or neighbouring pairs, all channels or the first.

    There are as many cosines as channels that are turned, or half as many.
    """

    def __init__(self, attention: nn.Module) -> None:
        modeling = sys.modules[type(attention).__module__]
        self._apply = getattr(modeling, "apply_rotary_pos_emb", None)
        names = [] if self._apply is None else list(inspect.signature(self._apply).parameters)
        self._pairs = names[:2] == ["q", "k"]
        """True if queries are rotated beside the keys."""
        if names[1 + self._pairs : 3 + self._pairs] != ["cos", "sin"]:
            raise ValueError(
                f"{type(attention).__name__} does not rotate its keys in the usual way; choose a codec that stores "
                "keys as they are, such as kivi"
            )
        self._whole: bool | None = None
        self._halves: bool | None = None
        """True if the first half of the channels is rotated with the second; None before it is known."""

    def __call__(self, keys: Tensor, cos: Tensor, sin: Tensor, *, even: bool) -> Tensor:
        """Rotate keys (batch, heads, tokens, channels) by cosines and sines (batch, tokens, width).

        Those are the same in both halves where they are ``even``.
        """
        width = cos.shape[-1] if self._turns(cos.shape[-1]) else 2 * cos.shape[-1]
        width = min(width, keys.shape[-1])
        part = keys[..., :width].to(cos.dtype)
        if self._halves is None:
            self._halves = width % 2 == 0 and cos.shape[-1] == width and self._like_halves(width)
        quick = self._halves and even and cos.shape[-1] == width
        turned = (_by_halves(part, cos, sin) if quick else self._by_model(part, cos, sin)).to(keys.dtype)
        return turned if width == keys.shape[-1] else torch.cat([turned, keys[..., width:]], -1)

    def _by_model(self, keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        assert self._apply is not None
        return self._apply(keys[:, :1], keys, cos, sin)[1] if self._pairs else self._apply(keys, cos, sin)

    def _turns(self, width: int) -> bool:
        """True if cosines are as many as the channels that are turned, and not half of them."""
        if self._whole is None:
            try:
                self._by_model(torch.ones(1, 1, 1, width), *torch.ones(2, 1, 1, width).unbind())
                self._whole = True
            except RuntimeError:
                self._whole = False
        return self._whole

    def _like_halves(self, width: int) -> bool:
        """True if the model turns random keys as ``_by_halves`` does."""
        probe = torch.randn(1, 2, 3, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        angle = torch.randn(1, 3, width // 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        cos, sin = angle.cos().repeat(1, 1, 2), angle.sin().repeat(1, 1, 2)
        return torch.allclose(_by_halves(probe, cos, sin), self._by_model(probe, cos, sin), rtol=1e-12)


def _by_halves(keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``keys cos + (-second half, first half) sin`` with no copy of the halves."""
    half = keys.shape[-1] // 2
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    result = keys * cos
    result[..., :half].addcmul_(keys[..., half:], sin[..., :half], value=-1)
    result[..., half:].addcmul_(keys[..., :half], sin[..., half:])
    return result
