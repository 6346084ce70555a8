"""Small trainable updates of frozen weights."""

from polyad.adapters.adalora import AdaLoRA
from polyad.adapters.adapted import Adapted
from polyad.adapters.adapter import Adapter, Bank, matrix
from polyad.adapters.aflora import AFLoRA
from polyad.adapters.block_lora import BlockLoRA
from polyad.adapters.dora import DoRA
from polyad.adapters.edora import EDoRA
from polyad.adapters.experts import AdaptedExperts
from polyad.adapters.flora_tucker import FLoRATucker
from polyad.adapters.frozen import Frozen, Update
from polyad.adapters.host import Adapters, Match
from polyad.adapters.loha import LoHa
from polyad.adapters.lokh import LoKH
from polyad.adapters.lokr import LoKr
from polyad.adapters.loldu import LoLDU
from polyad.adapters.lora import LoRA
from polyad.adapters.lotr import LoTR
from polyad.adapters.pissa import PiSSA
from polyad.adapters.riemannlora import RiemannLoRA
from polyad.adapters.svfit import SVFit
from polyad.adapters.vera import VeRA

__all__ = [
    "AFLoRA", "AdaLoRA", "Adapted", "AdaptedExperts", "Adapter", "Adapters", "Bank", "BlockLoRA", "DoRA", "EDoRA",
    "FLoRATucker", "Frozen", "LoHa", "LoKH", "LoKr", "LoLDU", "LoRA", "LoTR", "Match", "PiSSA",
    "RiemannLoRA", "SVFit", "Update", "VeRA", "matrix",
]  # fmt: skip
