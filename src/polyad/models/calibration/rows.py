"""Inputs and outputs of a layer as rows of two matrices."""

from __future__ import annotations

from torch import Tensor, nn

from polyad.formats.patches import unfold_patches

Geometry = dict[str, tuple[int, ...]]
"""Kernel, stride, padding and dilation of a convolution."""


def geometry(module: nn.Module) -> Geometry | None:
    """Kernel, stride, padding and dilation of a convolution; None for other modules."""
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return None
    if module.groups != 1 or isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise ValueError(
            f"statistics of a convolution in {module.groups} groups with padding {module.padding!r} "
            f"({module.padding_mode}) cannot be collected; leave it out of the selection"
        )
    return {"kernel": tuple(module.kernel_size), "stride": tuple(module.stride), "padding": tuple(module.padding),
            "dilation": tuple(module.dilation)}  # fmt: skip


def input_rows(x: Tensor, geometry: Geometry | None) -> Tensor:
    """A module's input as rows: of a convolution (``geometry``) its patches, else all but the last dimension."""
    if geometry is None:
        return x.reshape(-1, x.shape[-1])
    batch = x if x.ndim == len(geometry["kernel"]) + 2 else x[None]
    return unfold_patches(batch, **geometry)[0].flatten(0, 1)


def output_rows(y: Tensor, geometry: Geometry | None) -> Tensor:
    """A module's output as rows: of a convolution its channels at every position, else all but the last dimension."""
    last = y if geometry is None else y.movedim(-1 - len(geometry["kernel"]), -1)
    return last.reshape(-1, last.shape[-1])
