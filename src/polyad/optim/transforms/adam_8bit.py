"""Adam with moments in eight bits."""

from __future__ import annotations

from polyad._card import Paper, method
from polyad.optim.stored import StoredMoments
from polyad.optim.transforms.adam import Adam


@method(
    "transform",
    example={"scale": 0},
    papers=(
        Paper(
            "Dettmers, Lewis, Shleifer, Zettlemoyer",
            2021,
            "8-bit Optimizers via Block-wise Quantization",
            "arXiv:2110.02861",
            adds="dynamic codes, and a scale for each block",
        ),
    ),
)
def adam_8bit(*, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, block: int = 256) -> StoredMoments:
    """Adam whose moments are kept in codes of eight bits, in blocks that share a scale: about two bytes a number.

    The paper's blocks have 2,048 numbers, later releases 256. Tensors below 4,096 numbers keep float32 moments.

    >>> adam_8bit().block
    256
    """
    return StoredMoments(Adam(betas, eps), block)
