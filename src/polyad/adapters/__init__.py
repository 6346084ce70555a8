"""Small trainable updates of frozen weights."""

from polyad.adapters.adalora import AdaLoRA
from polyad.adapters.adapted import Adapted
from polyad.adapters.adapter import Adapter, Bank, matrix
from polyad.adapters.dora import DoRA
from polyad.adapters.experts import AdaptedExperts
from polyad.adapters.frozen import Frozen, Update
from polyad.adapters.gralora import GraLoRA
from polyad.adapters.host import Adapters, Match
from polyad.adapters.loha import LoHa
from polyad.adapters.lokh import LoKH
from polyad.adapters.lokr import LoKr
from polyad.adapters.lora import LoRA
from polyad.adapters.pissa import PiSSA
from polyad.adapters.singlora import SingLoRA
from polyad.adapters.vera import VeRA

__all__ = [
    "AdaLoRA", "Adapted", "AdaptedExperts", "Adapter", "Adapters", "Bank", "DoRA", "Frozen", "GraLoRA", "LoHa",
    "LoKH", "LoKr", "LoRA", "Match", "PiSSA", "SingLoRA", "Update", "VeRA", "matrix",
]  # fmt: skip
