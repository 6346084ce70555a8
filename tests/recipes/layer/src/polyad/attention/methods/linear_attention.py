"""Causal attention whose similarity is a product of features, so that the past is one matrix a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad._card import Paper, method
from polyad.attention.module import check_divides

LINEAR = Paper(
    "Katharopoulos, Vyas, Pappas, Fleuret", 2020,
    "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention", "arXiv:2006.16236",
    handle="linear-attention", adds="the feature map elu(x) + 1 and running sums of keys times values",
)  # fmt: skip


@method(
    "layer",
    name="linear_attention",
    papers=(LINEAR,),
    example={"width": 12, "heads": 2, "x": (2, 9, 12), "parameters": 4 * 12 * 12},
)
class LinearAttention(nn.Module):
    """``out_t = φ(q_t) S_t / φ(q_t)·z_t`` with S_t = Σ φ(k_s) v_sᵀ and z_t = Σ φ(k_s) over s ≤ t, φ(x) = elu(x) + 1.

    x is (batch, tokens, width), of any floating dtype; there are no positions, and no cache is taken: the whole
    sequence is given at once. Tokens width² / heads operations and numbers, where softmax attention takes
    tokens² width operations. The running sums are kept in float32 or better.

    >>> LinearAttention(8, heads=2)(torch.ones(1, 5, 8)).shape
    torch.Size([1, 5, 8])
    """

    is_causal = True

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        check_divides("heads", heads, "width", width)
        self.heads = heads
        self.qkv_proj, self.o_proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The output (batch, tokens, width)."""
        parts = self.qkv_proj(x).unflatten(-1, (3, self.heads, -1)).to(torch.promote_types(x.dtype, torch.float32))
        q, k, v = (part.transpose(1, 2) for part in parts.unbind(2))  # (batch, heads, tokens, channels)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        state = (k.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(2)  # (batch, heads, tokens, channels, channels)
        weight = (q * k.cumsum(2)).sum(-1, keepdim=True)
        out = (q.unsqueeze(-2) @ state).squeeze(-2) / weight
        return self.o_proj(out.transpose(1, 2).flatten(2).to(x.dtype))
