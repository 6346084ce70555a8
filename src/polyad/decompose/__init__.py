"""From a tensor to a format, by itself alone."""

from polyad.decompose.hierarchical_tucker import hierarchical_tucker
from polyad.decompose.hooi import hooi
from polyad.decompose.svd import svd

__all__ = ["hierarchical_tucker", "hooi", "svd"]
