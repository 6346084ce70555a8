"""Small trainable updates of frozen weights."""

from polyad.adapters.absorbing import absorb, merge_steps
from polyad.adapters.adalora import AdaLoRA
from polyad.adapters.adapted import Adapted
from polyad.adapters.adapter import Adapter, Bank, matrix
from polyad.adapters.aflora import AFLoRA
from polyad.adapters.arithmetic import changes, combine, diagnose, overlap
from polyad.adapters.block_lora import BlockLoRA
from polyad.adapters.bridges import bridge
from polyad.adapters.c3a import C3A
from polyad.adapters.curves import BezierCurve
from polyad.adapters.dora import DoRA
from polyad.adapters.edora import EDoRA
from polyad.adapters.eigenlorax import EigenLoRAx, recycle
from polyad.adapters.ensembles import calibration, ensemble
from polyad.adapters.experts import AdaptedExperts
from polyad.adapters.flora_tucker import FLoRATucker
from polyad.adapters.frozen import Frozen, Update
from polyad.adapters.gralora import GraLoRA
from polyad.adapters.host import Adapters, Match
from polyad.adapters.loha import LoHa
from polyad.adapters.lokh import LoKH
from polyad.adapters.lokr import LoKr
from polyad.adapters.loldu import LoLDU
from polyad.adapters.loqt import LoQT
from polyad.adapters.lora import LoRA
from polyad.adapters.lorkd import expert, lorkd
from polyad.adapters.lotr import LoTR
from polyad.adapters.pissa import PiSSA
from polyad.adapters.rates import RateRange, rate_range
from polyad.adapters.reversible_merge import ReversibleMerge, reversible_merge
from polyad.adapters.riemannlora import RiemannLoRA
from polyad.adapters.singlora import SingLoRA
from polyad.adapters.soka import SoKA
from polyad.adapters.surm import SURM
from polyad.adapters.svfit import SVFit
from polyad.adapters.tensorpoly import TensorPoly
from polyad.adapters.tera import TeRA
from polyad.adapters.tlora_transform import TransformedLoRA
from polyad.adapters.vera import VeRA

__all__ = [
    "C3A",
    "SURM",
    "AFLoRA",
    "AdaLoRA",
    "Adapted",
    "AdaptedExperts",
    "Adapter",
    "Adapters",
    "Bank",
    "BezierCurve",
    "BlockLoRA",
    "DoRA",
    "EDoRA",
    "EigenLoRAx",
    "FLoRATucker",
    "Frozen",
    "GraLoRA",
    "LoHa",
    "LoKH",
    "LoKr",
    "LoLDU",
    "LoQT",
    "LoRA",
    "LoTR",
    "Match",
    "PiSSA",
    "RateRange",
    "ReversibleMerge",
    "RiemannLoRA",
    "SVFit",
    "SingLoRA",
    "SoKA",
    "TeRA",
    "TensorPoly",
    "TransformedLoRA",
    "Update",
    "VeRA",
    "absorb",
    "bridge",
    "calibration",
    "changes",
    "combine",
    "diagnose",
    "ensemble",
    "expert",
    "lorkd",
    "matrix",
    "merge_steps",
    "overlap",
    "rate_range",
    "recycle",
    "reversible_merge",
]  # fmt: skip
