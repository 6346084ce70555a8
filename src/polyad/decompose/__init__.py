"""From a tensor to a format, by itself alone."""

from polyad.decompose.hooi import hooi
from polyad.decompose.kronecker_svd import kronecker_svd
from polyad.decompose.svd import svd
from polyad.decompose.t_svd import t_svd

__all__ = ["hooi", "kronecker_svd", "svd", "t_svd"]
