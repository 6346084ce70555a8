"""The contracts, public, so that others can hold their own formats, layers and methods to them."""

from polyad.testing import (
    adapters,
    allocations,
    attention,
    codecs,
    decoders,
    decompositions,
    factors,
    formats,
    groups,
    layers,
    measures,
    methods,
    operations,
    quantizers,
    rescalings,
    schedules,
    sketches,
    solvers,
    streams,
    subspaces,
    transforms,
)
from polyad.testing._no_densifying import no_densifying

__all__ = [
    "adapters", "allocations", "attention", "codecs", "decoders", "decompositions", "factors", "formats",
    "groups", "layers", "measures", "methods", "no_densifying", "operations", "quantizers", "rescalings",
    "schedules", "sketches", "solvers", "streams", "subspaces", "transforms",
]  # fmt: skip
