"""Decompositions of complex tensors: errors and gradients as those of real ones, nothing conjugated wrongly."""

import pytest
import torch

from polyad.decompose import cp_als, hooi, st_hosvd, svd, tt_svd
from polyad.formats import CP, LowRank, TensorTrain, Tucker
from polyad.linalg import left_singular, truncated_svd
from polyad.linalg.trains import right_basis

COMPLEX = (torch.complex64, torch.complex128)


def seeded(*shape, dtype=torch.complex128, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def planted(kind, shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    real = kind.random(shape, generator=g, dtype=torch.float64)
    return real.replace({
        name: torch.complex(t, torch.randn(t.shape, generator=g, dtype=t.dtype)) for name, t in real.tensors().items()
    })  # fmt: skip


def error(fit, x):
    top = float(x.abs().max())
    return float(((fit.to_dense() - x) / top).norm() / (x / top).norm())


CALLS = [
    (svd, LowRank, (9, 7), {}), (svd, LowRank, (7, 9), {}), (st_hosvd, Tucker, (6, 5, 4), {}),
    (st_hosvd, Tucker, (6, 5, 4), {"sequential": False}), (hooi, Tucker, (6, 5, 4), {}),
    (tt_svd, TensorTrain, (5, 4, 3, 5), {}),
]  # fmt: skip


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("scale", [1, 1e20, 1e-20])
@pytest.mark.parametrize(("decompose", "kind", "shape", "arguments"), CALLS)
def test_planted_tensors_are_found_by_rank_and_by_tolerance(decompose, kind, shape, arguments, dtype, scale):
    x = planted(kind, shape)
    dense = (x.to_dense() * scale).to(dtype)
    eps = torch.finfo(dtype).eps
    for fit in (decompose(dense, x.rank, **arguments), decompose(dense, tol=100 * eps, **arguments)):
        assert fit.dtype == dtype
        assert fit.rank == x.rank
        assert error(fit, dense) < 100 * eps


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize(("decompose", "kind", "shape", "arguments"), CALLS)
@pytest.mark.parametrize("tol", [0.5, 0.1, 1e-3])
def test_the_tolerance_is_kept_and_so_is_the_error_of_real_tensors(decompose, kind, shape, arguments, dtype, tol):
    x = seeded(*shape, dtype=dtype) * torch.logspace(0, -3, shape[-1])
    assert error(decompose(x, tol=tol, **arguments), x) <= tol
    real = seeded(*shape, dtype=torch.float64) * torch.logspace(0, -3, shape[-1])
    rank = 2 if kind is LowRank else (2,) * (len(shape) - (kind is TensorTrain))
    phases = [torch.polar(torch.ones(n), 3 * torch.randn(n)) for n in shape]
    turned = real.to(dtype)
    for mode, phase in enumerate(phases):  # a diagonal unitary matrix on each mode changes no singular value
        turned = turned * phase.to(dtype).reshape(-1, *[1] * (len(shape) - 1 - mode))
    plain = error(decompose(real, rank, **arguments), real)
    assert abs(error(decompose(turned, rank, **arguments), turned) - plain) < 1e-5


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6), (3, 5, 9), (600, 700)])
def test_singular_triples(dtype, shape):
    x = seeded(*shape, dtype=dtype)
    eps = torch.finfo(dtype).eps
    u, s, vh = truncated_svd(x, 4)
    exact = torch.linalg.svd(x, full_matrices=False)
    assert s.dtype == x.real.dtype
    assert torch.allclose(s, exact[1][..., :4], rtol=100 * eps)
    assert torch.allclose(u.mH @ u, torch.eye(4, dtype=dtype), atol=100 * eps)
    assert torch.allclose(vh @ vh.mH, torch.eye(4, dtype=dtype), atol=100 * eps)
    assert torch.allclose(u.mH @ x, s.unsqueeze(-1) * vh, atol=1000 * eps * float(s.max()))
    top = u.gather(-2, u.abs().argmax(-2, keepdim=True))
    assert bool((top.imag.abs() < 10 * eps).all())
    assert bool((top.real > 0).all())
    left, values = left_singular(x, 4)
    assert torch.allclose(left @ (left.mH @ x), u @ (u.mH @ x), atol=1000 * eps * float(s.max()))
    assert torch.allclose(values, s, rtol=100 * eps)
    v = right_basis(x, 4, None)
    assert torch.allclose((x @ v.mH) @ v, (u * s.unsqueeze(-2)) @ vh, atol=1000 * eps * float(s.max()))


@pytest.mark.parametrize("shape", [(5, 4), (4, 5), (4, 4)])
def test_gradients_of_what_no_phase_changes(shape):
    x = seeded(*shape).requires_grad_()

    def parts(x):
        u, s, vh = truncated_svd(x, 2, exact=True)
        return s, (u * s) @ vh, u @ vh

    assert torch.autograd.gradcheck(parts, x)
    assert torch.autograd.gradcheck(lambda x: svd(x, 2).to_dense(), x)


def test_gradients_of_tucker_and_trains():
    x = seeded(4, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: st_hosvd(x, (2, 2, 2)).to_dense(), x)
    assert torch.autograd.gradcheck(lambda x: tt_svd(x, 2).to_dense(), x)
    train = planted(TensorTrain, (4, 3, 4))
    names, tensors = zip(*train.tensors().items(), strict=True)
    rounded = lambda *parts: train.replace(dict(zip(names, parts, strict=True))).round(1).to_dense()  # noqa: E731
    assert torch.autograd.gradcheck(rounded, tuple(t.detach().requires_grad_() for t in tensors))


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize(("kind", "shape"), [(LowRank, (8, 7)), (Tucker, (6, 5, 4)), (TensorTrain, (5, 4, 3, 5))])
def test_rounding(kind, shape, dtype):
    x = planted(kind, shape)
    x = x.replace({name: t.to(dtype) for name, t in x.tensors().items()})
    twice = x + x
    eps = torch.finfo(dtype).eps
    for rounded in (twice.round(x.rank), twice.round(tol=200 * eps)):
        assert rounded.dtype == dtype
        assert rounded.rank == x.rank
        assert error(rounded, 2 * x.to_dense()) < 200 * eps
    other = planted(kind, shape, seed=5)
    mixed = x + other.replace({name: t.to(dtype) for name, t in other.tensors().items()}) * (1e-3 + 1e-3j)
    dense = mixed.to_dense()
    assert error(mixed.round(tol=0.05), dense) <= 0.05
    if kind is TensorTrain:
        for centre in range(4):
            turned = twice.orthogonalised(centre)
            assert error(turned, 2 * x.to_dense()) < 100 * eps
            assert torch.allclose(turned.three_way()[centre].norm(), twice.norm(), rtol=100 * eps)


def test_starts_fixed_modes_masks_and_batches_of_complex_tensors():
    x = planted(Tucker, (6, 5, 4))
    dense = x.to_dense()
    init = planted(Tucker, (6, 5, 4), seed=8)
    known = Tucker(init.core, (init.factors[0], x.factors[1], init.factors[2]))
    fit = hooi(dense, init=known, fixed=(1,), max_iter=100, stop=0)
    assert torch.equal(fit.factors[1], x.factors[1])
    assert error(fit, dense) < 1e-10
    assert error(hooi(dense, init=x, fixed=(0, 1, 2)), dense) < 1e-12
    seen = torch.rand(dense.shape, generator=torch.Generator().manual_seed(1)) < 0.9
    assert error(hooi(dense.where(seen, torch.nan), x.rank, mask=seen, max_iter=1000, stop=0), dense) < 1e-3
    both = torch.stack([dense, 1e30 * dense])
    together = hooi(both, x.rank, batch=1).to_dense()
    assert torch.allclose(together[1] / 1e30, dense)


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize(("shape", "rank"), [((6, 5, 4), 2), ((5, 5, 4), 4), ((4, 5, 3, 4), 3), ((7, 6), 3)])
def test_sums_of_outer_products_are_found(shape, rank, dtype):
    for seed, scale in ((0, 1.0), (3, 1e20), (6, 1e-20)):
        factors = tuple(seeded(n, rank, seed=seed + i) for i, n in enumerate(shape))
        x = CP(factors)
        dense = (x.to_dense() * scale).to(dtype)
        fit = cp_als(dense, rank)
        eps = torch.finfo(dtype).eps
        assert fit.dtype == dtype
        assert error(fit, dense) < max(1e-8, 100 * eps)
        if len(shape) > 2:
            assert bool((fit.align(x)[1] > 0.9999).all())
        assert error(cp_als(dense, tol=1e-3), dense) <= 1e-3


def test_sums_of_outer_products_of_noisy_batches_and_real_tensors_in_disguise():
    x = torch.stack([seeded(6, 5, 4), seeded(6, 5, 4, seed=1), torch.zeros(6, 5, 4)])
    fit = cp_als(x, 3, batch=1, restarts=4)
    for i in range(2):
        alone = cp_als(x[i], 3, restarts=4)
        whole = float((fit.to_dense()[i] - x[i]).norm() / x[i].norm())
        assert whole < 1.02 * error(alone, x[i]) < 1
    assert not bool(fit.to_dense()[2].any())
    real = seeded(6, 5, 4, dtype=torch.float64)
    assert error(cp_als(real * 1j, 3), real * 1j) < error(cp_als(real, 3), real) * 1.03
    with pytest.raises(TypeError, match="mask hides entries, which is not known for complex numbers"):
        cp_als(x[0], 2, mask=torch.ones(6, 5, 4, dtype=torch.bool))
