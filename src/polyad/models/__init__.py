"""The whole model: load, save, choose and replace modules, and what calibration data says of them."""

from polyad.models.blocks import Block, blocks, decoder_layers
from polyad.models.calibration import collect
from polyad.models.compressible import compressible
from polyad.models.folder import save
from polyad.models.loading import load
from polyad.models.replacement import Replacement
from polyad.models.source import Origin, origin
from polyad.models.special_tokens import encoder
from polyad.models.surgery import Undo, decoder_linears, replace, select
from polyad.statistics import Moments

__all__ = [
    "Block", "Moments", "Origin", "Replacement", "Undo", "blocks", "collect", "compressible", "decoder_layers",
    "decoder_linears", "encoder", "load", "origin", "replace", "save", "select",
]  # fmt: skip
