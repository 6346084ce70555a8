"""From a tensor to a format, by itself alone."""

from polyad.decompose.cp_als import cp_als
from polyad.decompose.hooi import hooi
from polyad.decompose.svd import svd

__all__ = ["cp_als", "hooi", "svd"]
