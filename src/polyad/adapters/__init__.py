"""Small trainable updates of frozen weights."""

from polyad.adapters.adapter import Adapter, Bank, matrix
from polyad.adapters.frozen.frozen import Frozen, Update
from polyad.adapters.host.adapted import Adapted
from polyad.adapters.host.adapters import Adapters
from polyad.adapters.host.experts import AdaptedExperts
from polyad.adapters.host.plan import Match
from polyad.adapters.methods.adalora import AdaLoRA
from polyad.adapters.methods.aflora import AFLoRA
from polyad.adapters.methods.block_lora import BlockLoRA
from polyad.adapters.methods.c3a import C3A
from polyad.adapters.methods.dora import DoRA
from polyad.adapters.methods.edora import EDoRA
from polyad.adapters.methods.eigenlorax import EigenLoRAx
from polyad.adapters.methods.flora_tucker import FLoRATucker
from polyad.adapters.methods.gralora import GraLoRA
from polyad.adapters.methods.ia3 import IA3
from polyad.adapters.methods.loha import LoHa
from polyad.adapters.methods.lokh import LoKH
from polyad.adapters.methods.lokr import LoKr
from polyad.adapters.methods.loldu import LoLDU
from polyad.adapters.methods.loqt import LoQT
from polyad.adapters.methods.lora import LoRA
from polyad.adapters.methods.lotr import LoTR
from polyad.adapters.methods.oft import OFT
from polyad.adapters.methods.pissa import PiSSA
from polyad.adapters.methods.riemannlora import RiemannLoRA
from polyad.adapters.methods.singlora import SingLoRA
from polyad.adapters.methods.soka import SoKA
from polyad.adapters.methods.surm import SURM
from polyad.adapters.methods.svfit import SVFit
from polyad.adapters.methods.tensorpoly import TensorPoly
from polyad.adapters.methods.tera import TeRA
from polyad.adapters.methods.tlora_transform import TransformedLoRA
from polyad.adapters.methods.vera import VeRA
from polyad.adapters.operations.absorb import absorb, merge_steps
from polyad.adapters.operations.arithmetic import changes, combine, diagnose, overlap
from polyad.adapters.operations.bezier_curve import BezierCurve
from polyad.adapters.operations.bridge import bridge
from polyad.adapters.operations.ensemble import calibration_figures, ensemble
from polyad.adapters.operations.lorkd import expert, lorkd
from polyad.adapters.operations.recycle import recycle
from polyad.adapters.operations.reversible_merge import ReversibleMerge, reversible_merge
from polyad.adapters.training.rate_range import RateRange, rate_range

__all__ = [
    "C3A",
    "IA3",
    "OFT",
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
    "calibration_figures",
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
