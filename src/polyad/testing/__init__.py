"""The contracts, public, so that others can hold their own formats, layers and methods to them."""

from polyad.testing import formats, layers
from polyad.testing._densifying import no_densifying

__all__ = ["formats", "layers", "no_densifying"]
