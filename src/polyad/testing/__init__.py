"""The contracts, public, so that others can hold their own formats, layers and methods to them."""

from polyad.testing import formats

__all__ = ["formats"]
