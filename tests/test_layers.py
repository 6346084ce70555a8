"""Factors and the layers on it, held to the public contract for every kind of format."""

import pytest
import torch
from torch import nn

from polyad.formats import Dense, Kronecker, LowRank, Product, Quantized, Sparse, Sum, kinds
from polyad.layers import Conv, Embedding, Factors, Linear
from polyad.testing import formats, layers, no_densifying

VARIANTS = formats.variants()
SUBJECTS = {name: layers.example(kind) for name, kind in kinds().items()} | {
    name: VARIANTS[name] for name in ("sparse_index", "quantised_ragged", "quantised_and_corrected", "nested")
}
CASES = {f"{name}-{check.__name__}": (format, check) for name, format in SUBJECTS.items() for check in layers.CHECKS}


@pytest.mark.parametrize(("format", "check"), CASES.values(), ids=list(CASES))
def test_contract(format, check):
    check(format)
