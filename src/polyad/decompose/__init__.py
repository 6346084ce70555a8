"""From a tensor to a format, by itself alone."""

from polyad.decompose.hooi import hooi
from polyad.decompose.st_hosvd import st_hosvd
from polyad.decompose.svd import svd

__all__ = ["hooi", "st_hosvd", "svd"]
