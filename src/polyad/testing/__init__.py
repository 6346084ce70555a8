"""The contracts, public, so that others can hold their own formats, layers and methods to them."""

from polyad.testing import (
    adapters,
    allocations,
    attention,
    codecs,
    decoders,
    factors,
    formats,
    groups,
    layers,
    measures,
    methods,
    quantizers,
    rescalings,
)
from polyad.testing._densifying import no_densifying

__all__ = [
    "adapters", "allocations", "attention", "codecs", "decoders", "factors", "formats", "groups", "layers",
    "measures", "methods", "no_densifying", "quantizers", "rescalings",
]  # fmt: skip
