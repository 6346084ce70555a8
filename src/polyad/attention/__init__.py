"""Attention that needs less cache: latents, tensor products, averages; and models converted to it."""

from polyad.attention.decoder import Decoder, decoder
from polyad.attention.grouped import GroupedAttention
from polyad.attention.latent import LatentAttention
from polyad.attention.tensor_product import TensorProductAttention
from polyad.attention.transmla import convert, transmla

__all__ = [
    "Decoder", "GroupedAttention", "LatentAttention", "TensorProductAttention", "convert", "decoder", "transmla",
]  # fmt: skip
