"""From a tensor to a format, by itself alone."""

from polyad.decompose.gcp import gcp
from polyad.decompose.hooi import hooi
from polyad.decompose.nmf import nmf
from polyad.decompose.nonnegative_cp import nonnegative_cp
from polyad.decompose.sparse_cp_als import sparse_cp_als
from polyad.decompose.svd import svd

__all__ = ["gcp", "hooi", "nmf", "nonnegative_cp", "sparse_cp_als", "svd"]
