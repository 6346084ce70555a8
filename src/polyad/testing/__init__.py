"""The contracts, public, so that others can hold their own formats, layers and methods to them."""

from polyad.testing import adapters, attention, codecs, decoders, formats, layers, methods
from polyad.testing._densifying import no_densifying

__all__ = ["adapters", "attention", "codecs", "decoders", "formats", "layers", "methods", "no_densifying"]
