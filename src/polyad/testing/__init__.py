"""The contracts, public, so that others can hold their own formats, layers and methods to them."""

from polyad.testing import adapters, factors, formats, layers, methods, quantizers
from polyad.testing._densifying import no_densifying

__all__ = ["adapters", "factors", "formats", "layers", "methods", "no_densifying", "quantizers"]
