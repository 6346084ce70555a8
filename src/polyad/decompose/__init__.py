"""From a tensor to a format, by itself alone."""

from polyad.decompose.hooi import hooi
from polyad.decompose.svd import svd
from polyad.decompose.tt_cross import tt_cross
from polyad.decompose.tt_matrix import tt_matrix
from polyad.decompose.tt_svd import tt_svd

__all__ = ["hooi", "svd", "tt_cross", "tt_matrix", "tt_svd"]
