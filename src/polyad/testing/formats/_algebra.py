"""Checks of what a format computes, against the dense tensor that it stands for."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.formats import Format
from polyad.layers import Factors
from polyad.testing._contract import MULTIWAY, Subject, assert_close, contract, matrices, normal, seeded_generator


@contract
def dense(format: Format) -> None:
    """``to_dense`` has the shape, dtype and device that the format names, and finite numbers; it can be added."""
    weight = format.to_dense()
    assert tuple(weight.shape) == format.shape, f"to_dense has shape {tuple(weight.shape)}, shape says {format.shape}"
    assert format.ndim == weight.ndim, f"ndim is {format.ndim} for a tensor of {weight.ndim} dimensions"
    assert weight.dtype == format.dtype, f"to_dense has dtype {weight.dtype}, dtype says {format.dtype}"
    assert weight.device == format.device, f"to_dense is on {weight.device}, device says {format.device}"
    assert bool(torch.isfinite(weight).all()), "to_dense holds NaN or infinite numbers"
    assert type(format).__name__ in repr(format), f"repr does not name the kind: {format!r}"
    _assert_added(format)


@matrices
def linear(format: Format) -> None:
    """``linear(x)`` is ``x @ W.mT`` in x's dtype for x of 1 to 3 dimensions, none or one row, any strides."""
    n = format.shape[-1]
    for shape in ((n,), (3, n), (2, 3, n), (0, n), (1, n)):
        _assert_linear(format, normal(*shape, like=format))
    _assert_linear(format, normal(n, 3, like=format).mT)
    _assert_linear(format, normal(3, 2 * n, like=format)[:, ::2])
    _assert_linear(format, normal(2, n, 3, like=format).transpose(1, 2))


@matrices
def precision(format: Format) -> None:
    """``linear`` answers in x's dtype whatever its own is: bfloat16, float32, float64."""
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        _assert_linear(format, normal(3, format.shape[-1], dtype=dtype))


@matrices
def transpose(format: Format) -> None:
    """``transpose`` stands for ``W.mT``, applies as such, and twice gives W again."""
    flipped, weight = format.transpose(), format.to_dense()
    assert isinstance(flipped, Format), f"transpose gives a {type(flipped).__name__}, not a Format"
    _assert_same(flipped.to_dense(), weight.mT, "transpose().to_dense()")
    _assert_same(flipped.transpose().to_dense(), weight, "transpose().transpose().to_dense()")
    _assert_linear(flipped, normal(3, format.shape[-2], like=format))


@matrices
def rows(format: Format) -> None:
    """``rows(index)`` is ``W[index]`` for an index of any shape, int64 and int32; none past the end."""
    weight, n = format.to_dense(), format.shape[0]
    for shape in ((), (5,), (2, 3), (0,)):
        index = torch.randint(0, n, shape, generator=seeded_generator())
        for wide in (index, index.to(torch.int32)):
            result = format.rows(wide)
            assert result.dtype == format.dtype, f"rows has dtype {result.dtype}, the format has {format.dtype}"
            _assert_same(result, weight[index], f"rows of an {wide.dtype} index of shape {shape}")
    try:
        format.rows(torch.tensor([n]))
    except IndexError:
        return
    raise AssertionError(f"rows({n}) of {n} rows gave numbers; an index past the end must raise IndexError")


@matrices
def gradients(format: Format) -> None:
    """gradcheck in float64 of ``linear`` with respect to x and every trainable tensor; ``rows`` likewise."""
    format = format.to(torch.float64)
    tensors = format.tensors()
    trained = [name for name, _ in Factors(format).named_parameters()]
    x = normal(2, format.shape[-1], dtype=torch.float64).requires_grad_()
    index = torch.tensor([0, format.shape[0] - 1])

    def apply_linear(x: Tensor, *numbers: Tensor) -> Tensor:
        return format.replace(tensors | dict(zip(trained, numbers, strict=True))).linear(x)

    def look_up_rows(*numbers: Tensor) -> Tensor:
        return format.replace(tensors | dict(zip(trained, numbers, strict=True))).rows(index)

    numbers = [tensors[name].detach().clone().requires_grad_() for name in trained]
    assert torch.autograd.gradcheck(apply_linear, (x, *numbers)), "the gradient of linear is wrong"
    assert not trained or torch.autograd.gradcheck(look_up_rows, numbers), "the gradient of rows is wrong"


@matrices
def operations(format: Format) -> None:
    """``flops`` is a positive whole number that grows with the batch, at most in proportion to it."""
    counts = [format.flops(batch) for batch in (1, 2, 4, 64, 128)]
    assert all(isinstance(n, int) and n >= 0 for n in counts), f"flops are no whole numbers: {counts}"
    assert counts == sorted(counts), f"flops fall as the batch grows: {counts}"
    assert counts[-1] > counts[0] or counts[-1] == 0, f"flops do not depend on the batch: {counts}"
    for few, many in ((0, 1), (1, 2), (3, 4)):
        assert counts[many] <= 2 * counts[few], f"twice the batch costs more than twice the operations: {counts}"


def batches(kind: Subject) -> None:
    """Leading batch dimensions: ``linear`` of x (*batch, n, in), ``transpose`` and ``to_dense`` keep them.

    A kind named in ``MULTIWAY`` draws a tensor of three modes and must refuse to apply it, with a ValueError.
    """
    chosen = kind if isinstance(kind, type) else type(kind)
    try:
        format = kind.random(_stack(kind), generator=seeded_generator()) if isinstance(kind, type) else kind
        shape = (*format.shape[:-2], 5, format.shape[-1])
        output = format.linear(normal(*shape, like=format))
    except ValueError:
        if chosen.__name__ not in MULTIWAY:
            raise
        return
    assert chosen.__name__ not in MULTIWAY, f"{chosen.__name__} applies more than a matrix; strike it from MULTIWAY"
    assert tuple(output.shape) == (*shape[:-1], format.shape[-2]), f"a batched linear has shape {tuple(output.shape)}"
    _assert_linear(format, normal(*shape, like=format))
    _assert_same(format.transpose().to_dense(), format.to_dense().mT, "a batched transpose")
    _assert_added(format)
    index = torch.tensor([2, 0, 2, 2])
    if len(format.shape) > 2:
        _assert_same(format.select(index).to_dense(), format.to_dense()[index], "select of entries of the batch")


def _stack(kind: type[Format]) -> tuple[int, ...]:
    return next(shape for shape in ((3, 4, 6), (4, 4, 4)) if kind.fits(shape))


def _assert_linear(format: Format, x: Tensor) -> None:
    weight = format.to_dense()
    output = format.linear(x)
    what = f"linear of {x.dtype} x of shape {tuple(x.shape)} and strides {x.stride()}"
    assert output.dtype == x.dtype, f"{what} has dtype {output.dtype}"
    coarser = max(x.dtype, format.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    scale = (x.double().abs() @ weight.double().abs().mT).norm()
    assert_close(output, x.double() @ weight.double().mT, scale, coarser, what)


def _assert_added(format: Format) -> None:
    weight = normal(*format.shape, like=format)
    before = weight.clone()
    _assert_same(format.added_to(weight, 0.5), weight + 0.5 * format.to_dense(), "added_to(weight, 0.5)")
    assert torch.equal(weight, before), "added_to wrote into the weight that it was given"


def _assert_same(result: Tensor, expected: Tensor, what: str) -> None:
    assert_close(result, expected, expected.double().norm() + 1, expected.dtype, what)
