"""Small trainable updates of frozen weights."""

from polyad.adapters.adapted import Adapted
from polyad.adapters.adapter import Adapter, Bank, matrix
from polyad.adapters.experts import AdaptedExperts
from polyad.adapters.frozen import Frozen, Update
from polyad.adapters.host import Adapters, Match
from polyad.adapters.lokr import LoKr
from polyad.adapters.lora import LoRA

__all__ = [
    "Adapted", "AdaptedExperts", "Adapter", "Adapters", "Bank", "Frozen", "LoKr", "LoRA", "Match", "Update", "matrix",
]  # fmt: skip
