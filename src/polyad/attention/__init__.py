"""Attention that needs less cache: latents, tensor products, averages; and models converted to it."""

from polyad.attention.conversion.convert import convert_attention
from polyad.attention.conversion.transmla import transmla
from polyad.attention.decoder import Decoder, decoder
from polyad.attention.methods.grouped import GroupedAttention
from polyad.attention.methods.kronecker import KroneckerAttention
from polyad.attention.methods.latent import LatentAttention
from polyad.attention.methods.tensor_product import TensorProductAttention
from polyad.attention.methods.tpla import ShardedLatentAttention, mix_latent

__all__ = [
    "Decoder", "GroupedAttention", "KroneckerAttention", "LatentAttention", "ShardedLatentAttention",
    "TensorProductAttention", "convert_attention", "decoder", "mix_latent", "transmla",
]  # fmt: skip
