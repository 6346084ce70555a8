"""NumPy arrays in, ``.numpy()`` out, the error against the tensor, and what a decomposition prints."""

import inspect

import numpy
import pytest
import torch

from polyad import card
from polyad.decompose import cp_als, hooi, nmf, st_hosvd, svd, tt_svd
from polyad.formats import CP, LowRank
from polyad.formats.composed.sum import Sum


def planted(dtype=numpy.float64):
    made = numpy.random.default_rng(0)
    factors = [made.standard_normal((n, 2)) for n in (7, 6, 5)]
    return numpy.einsum("ar,br,cr->abc", *factors).astype(dtype)


@pytest.mark.parametrize("dtype", [numpy.float64, numpy.float32, ">f8"])
def test_arrays_in_and_out(dtype):
    x = planted(dtype)
    fit = cp_als(x, rank=2)
    assert isinstance(fit, CP)
    assert fit.dtype == (torch.float32 if dtype == numpy.float32 else torch.float64)
    assert isinstance(fit.numpy(), numpy.ndarray)
    numpy.testing.assert_allclose(fit.numpy(), x, atol=1e-4)
    assert fit.error(x) < 1e-5
    assert fit.error(torch.from_numpy(planted())) < 1e-5


def test_arrays_by_name_and_masks_and_whole_numbers():
    x, mask = planted(), numpy.ones((7, 6, 5), dtype=bool)
    mask[0, 0, 0] = False
    holes = x.copy()
    holes[0, 0, 0] = numpy.nan
    assert hooi(x=holes, rank=2, mask=mask).error(x) < 1e-3
    counts = numpy.outer(numpy.arange(1, 6), numpy.arange(1, 5))
    assert nmf(counts, rank=1).dtype == torch.float64
    assert nmf(counts, 1).error(counts) < 1e-6
    assert tt_svd(planted(), tol=1e-6).error(planted()) < 1e-6
    reversed_rows = planted()[::-1]  # torch takes no negative strides
    assert st_hosvd(reversed_rows, rank=2).error(reversed_rows) < 1e-8


def test_a_decomposition_is_still_the_function_of_its_card():
    assert card("svd").function is svd
    assert card(svd).name == "svd"
    assert list(inspect.signature(svd).parameters)[:2] == ["x", "rank"]
    with pytest.raises(TypeError, match="x is a list; a tensor is needed"):
        svd([[1.0]], rank=1)


def test_errors_are_relative_and_over_what_was_seen():
    fit = LowRank(torch.tensor([[3.0], [0.0]]), torch.tensor([[1.0, 0.0]]))  # [[3, 0], [0, 0]]
    assert fit.error([[3.0, 4.0], [0.0, 0.0]]) == pytest.approx(0.8)
    assert fit.error([[3.0, float("nan")], [0.0, 4.0]], mask=[[True, False], [True, True]]) == pytest.approx(0.8)
    assert fit.error(1e-300 * numpy.array([[3.0, 4.0], [0.0, 0.0]])) > 1e290
    with pytest.raises(ValueError, match=r"x has shape \(3,\), the format \(2, 2\); give the tensor"):
        fit.error([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="1 NaN"):
        fit.error([[3.0, float("nan")], [0.0, 0.0]])
    half = LowRank(torch.ones(2, 1, dtype=torch.bfloat16), torch.ones(1, 2, dtype=torch.bfloat16))
    assert half.numpy().dtype == numpy.float32


def test_what_is_printed_says_shape_rank_dtype_and_bytes():
    assert repr(st_hosvd(planted(numpy.float32), rank=(2, 3, 2))) == (
        "Tucker(shape=(7, 6, 5), rank=(2, 3, 2), dtype=float32, parameters=54, bytes=216)"
    )
    one = LowRank(torch.ones(4, 2), torch.ones(2, 3))
    assert repr(one) == "LowRank(shape=(4, 3), rank=2, dtype=float32, parameters=14, bytes=56)"
    assert repr(Sum((one, one))).startswith("Sum(shape=(4, 3), dtype=float32, ")
