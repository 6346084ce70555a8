"""Attention that needs less cache: latents, tensor products, averages; and models converted to it."""

from polyad.attention.converting import convert
from polyad.attention.decoder import Decoder, decoder
from polyad.attention.grouped import GroupedAttention
from polyad.attention.kronecker import KroneckerAttention
from polyad.attention.latent import LatentAttention
from polyad.attention.tensor_product import TensorProductAttention
from polyad.attention.tpla import ShardedLatentAttention, mixed
from polyad.attention.transmla import transmla

__all__ = [
    "Decoder", "GroupedAttention", "KroneckerAttention", "LatentAttention", "ShardedLatentAttention",
    "TensorProductAttention", "convert", "decoder", "mixed", "transmla",
]  # fmt: skip
