"""Convolutions with a format for a kernel, held to torch's own."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from polyad.formats import Format
from polyad.testing._contract import assert_close, matrices, normal

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


@matrices
def convolve(format: Format) -> None:
    """``convolve`` in 1, 2 and 3 dimensions: stride, padding and dilation, strided x, x without a batch."""
    for dimensions in (1, 2, 3):
        kernel, channels = _kernel(format.shape[1], dimensions)
        space = tuple(2 * k + 3 + i for i, k in enumerate(kernel))
        x = normal(2, channels, *space, like=format)
        strided = x.transpose(0, 1).contiguous().transpose(0, 1)
        _assert_convolution(format, strided, kernel, stride=2, padding=1, dilation=2)
        _assert_convolution(format, x[0], kernel, padding=1)
        output = format.convolve(x, kernel)
        assert_close(
            output, _torch_convolution(format, x, kernel), _scale(format, x), format.dtype, "with no geometry given"
        )


@matrices
def uneven(format: Format) -> None:
    """``convolve`` with a stride, padding and dilation of its own along each dimension."""
    kernel, channels = _kernel(format.shape[1], 2)
    x = normal(2, channels, 2 * kernel[0] + 3, 3 * kernel[1] + 4, like=format)
    geometry = {"stride": (1, 2), "padding": (2, 0), "dilation": (1, 2)}
    output = format.convolve(x, kernel, **geometry)
    expected = _torch_convolution(format, x, kernel, **geometry)
    assert_close(output, expected, _scale(format, x), format.dtype, f"convolve with {geometry}")


@matrices
def channel_groups(format: Format) -> None:
    """A grouped convolution equals torch's, or is refused with a sentence; a wrong answer is neither."""
    if format.shape[0] % 2:
        return
    for dimensions in (1, 2, 3):
        kernel, channels = _kernel(format.shape[1], dimensions)
        x = normal(2, 2 * channels, *(k + 2 for k in kernel), like=format)
        ones = (1,) * dimensions
        geometry = {"stride": ones, "padding": ones, "dilation": ones, "groups": 2}
        try:
            output = format.convolve(x, kernel, **geometry)
        except ValueError as error:
            said = str(error)
            sentence = "group" in said and len(said.split()) > 4
            assert sentence, f"the refusal is no sentence about groups: {said!r}"
            continue
        expected = _torch_convolution(format, x, kernel, **geometry)
        assert_close(output, expected, _scale(format, x), format.dtype, f"a grouped convolution in {dimensions}d")


def _kernel(columns: int, dimensions: int) -> tuple[tuple[int, ...], int]:
    """A kernel of so many dimensions whose volume divides ``columns``, and the channels that are left."""
    primes, rest = [], columns
    for k in range(2, columns + 1):
        while rest % k == 0:
            primes.append(k)
            rest //= k
    kernel = (*primes[::-1], *(1,) * dimensions)[:dimensions]
    return kernel, columns // math.prod(kernel)


def _assert_convolution(format: Format, x: Tensor, kernel: tuple[int, ...], **numbers: int) -> None:
    lengths = {"stride": 1, "padding": 0, "dilation": 1} | numbers
    geometry = {name: (n,) * len(kernel) for name, n in lengths.items()}
    output = format.convolve(x, kernel, **geometry)
    assert output.dtype == x.dtype, f"convolve of {x.dtype} has dtype {output.dtype}"
    what = f"convolve of x {tuple(x.shape)} with kernel {kernel} and {geometry}"
    assert_close(output, _torch_convolution(format, x, kernel, **geometry), _scale(format, x), format.dtype, what)


def _torch_convolution(format: Format, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
    weight = format.to_dense().double().reshape(format.shape[0], -1, *kernel)
    return CONVOLUTIONS[len(kernel) - 1](x.double(), weight, **geometry)


def _scale(format: Format, x: Tensor) -> float:
    return float(x.double().norm() * format.to_dense().double().norm()) + 1
