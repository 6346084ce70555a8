"""Attention that needs less cache: latents, tensor products, averages; and models converted to it."""

from polyad.attention.latent import LatentAttention
from polyad.attention.transmla import convert, transmla

__all__ = ["LatentAttention", "convert", "transmla"]
