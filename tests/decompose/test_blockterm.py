"""Kronecker sums, tubal tensors and block terms, and the decompositions that find them."""

import itertools

import pytest
import torch

from polyad.decompose import block_term, chebyshev_tucker, kronecker_svd, t_svd
from polyad.formats import BlockTerm, Kronecker, Sum, Tubal
from polyad.linalg import krylov_basis, leading, singular_basis


def seeded(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def error(found, x):
    dense = found.to_dense().double()
    return float((dense - x).norm() / x.double().norm())


def worst(found, x):
    """The largest relative error of a batch of matrices or of tensors."""
    return float(((found.to_dense() - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 8), (3, 4, 6)])
def test_kronecker_svd_finds_planted_terms(shape, dtype):
    planted = Kronecker.random(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    x = planted.to_dense()
    found = kronecker_svd(x, 2, shape_of_first=planted.first.shape[-2:])
    assert (found.rank, found.dtype, found.shape) == (2, dtype, tuple(shape))
    assert error(found, x) < 100 * torch.finfo(dtype).eps
    assert kronecker_svd(x, tol=1e-4, shape_of_first=planted.first.shape[-2:]).rank == 2


def test_kronecker_svd_is_optimal_and_scales():
    x = seeded(6, 15)
    blocks = torch.stack([x[2 * i : 2 * i + 2, 5 * j : 5 * j + 5].flatten() for i in range(3) for j in range(3)])
    tail = torch.linalg.svdvals(blocks)[4:].norm() / x.norm()
    assert error(kronecker_svd(x, 4, shape_of_first=(3, 3)), x) == pytest.approx(float(tail), rel=1e-10)
    for scale in (1e-30, 1e30):
        small = (scale * x).float()
        assert error(kronecker_svd(small, 4, shape_of_first=(3, 3)), small) == pytest.approx(float(tail), rel=1e-4)
    assert kronecker_svd(x, 1).first.shape == (1, 2, 3)
    assert kronecker_svd(x.bfloat16(), 2).dtype == torch.bfloat16
    assert not kronecker_svd(torch.zeros(4, 4), 2).to_dense().any()


@pytest.mark.parametrize("tol", [0.02, 0.3, 0.7])
def test_tolerances_are_kept_and_rounding_is_idempotent(tol):
    x = seeded(2, 8, 8) * 0.5 ** torch.arange(8.0)
    first = kronecker_svd(x, tol=tol)
    assert worst(first, x) <= tol
    more = kronecker_svd(x, 4)
    rounded = more.round(tol=tol)
    assert error(rounded, more.to_dense()) <= tol
    assert (more + more).round(4).rank == 4
    assert error((more + more).round(4), 2 * more.to_dense()) < 1e-12
    again = rounded.round(rounded.rank)
    assert error(again, rounded.to_dense()) < 1e-12
    y = seeded(2, 7, 6, 5) * 0.5 ** torch.arange(6.0)[:, None]
    cut = t_svd(y, tol=tol)
    assert worst(cut, y) <= tol
    assert cut.rank == 1 or worst(t_svd(y, cut.rank - 1), y) > tol


@pytest.mark.parametrize("length", [1, 2, 5, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_t_svd_finds_planted_structure(length, dtype):
    for shape in ((6, 5, length), (4, 7, length)):
        planted = Tubal.random(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
        x = planted.to_dense()
        found = t_svd(x, tol=1e-4)
        assert (found.rank, found.shape, found.dtype) == (2, shape, dtype)
        assert error(found, x) < 100 * torch.finfo(dtype).eps
        doubled = (planted + planted).round(2)
        assert error(doubled, 2 * x) < 100 * torch.finfo(dtype).eps
        full = t_svd(x + seeded(*shape, dtype=dtype), min(shape[:2]))
        assert error(full, x + seeded(*shape, dtype=dtype)) < 100 * torch.finfo(dtype).eps


def test_the_t_product_is_block_circulant():
    x = Tubal.random((4, 3, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    circulant = torch.stack([torch.cat([x.left.roll(k, -1)[..., i] for i in range(5)], 1) for k in range(5)])
    stacked = torch.cat([x.right.flip(-1).roll(1, -1)[..., i] for i in range(5)], 0)
    assert torch.allclose(x.to_dense()[..., 0], circulant[0] @ stacked)


def test_tubal_arithmetic_agrees_with_dense():
    a, b = (Tubal(seeded(2, 4, 2, 5, seed=i), seeded(2, 2, 3, 5, seed=i + 2)) for i in (0, 10))
    x, y = a.to_dense(), b.to_dense()
    assert torch.allclose((a - 2 * b).to_dense(), x - 2 * y)
    assert torch.allclose(a.inner(b), (x * y).sum((1, 2, 3)))
    assert torch.allclose(a.norm(), x.flatten(1).norm(dim=1))
    assert torch.allclose(a.transpose().to_dense(), x.transpose(1, 2))
    assert torch.allclose(a[1:, ::2].to_dense(), x[:, 1:, ::2])
    m = seeded(6, 4)
    assert torch.allclose(a.multiply(m, 0).to_dense(), torch.einsum("ki,bijl->bkjl", m, x))
    assert torch.allclose(a.multiply(m[:, :3], 1).to_dense(), torch.einsum("kj,bijl->bikl", m[:, :3], x))
    index = torch.tensor([[[0, 1, 4], [3, 2, 0]], [[1, 0, 2], [2, 2, 3]]])
    assert torch.allclose(a.entries(index), x[:, index[..., 0], index[..., 1], index[..., 2]])


def test_t_svd_is_optimal_at_any_scale_and_beats_nothing():
    x = seeded(6, 7, 8)
    values = torch.linalg.svdvals(torch.fft.fft(x).movedim(-1, 0))
    tail = values[:, 3:].norm() / values.norm()
    assert error(t_svd(x, 3), x) == pytest.approx(float(tail), rel=1e-10)
    for scale in (1e-30, 1e30):
        other = (scale * x).float()
        assert error(t_svd(other, 3), other) == pytest.approx(float(tail), rel=1e-4)
    turned = t_svd(x.transpose(0, 1), 3).to_dense().transpose(0, 1)
    assert torch.allclose(turned, t_svd(x, 3).to_dense())
    assert torch.allclose(t_svd(x.roll(2, -1), 3).to_dense(), t_svd(x, 3).to_dense().roll(2, -1))
    assert not t_svd(torch.zeros(3, 4, 5), 2).to_dense().any()
    assert t_svd(torch.ones(3, 4, 5), tol=0.1).rank == 1
    assert t_svd(x.bfloat16(), 2).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_small_ranks_are_iterated_for_to_nearly_the_best(dtype, noise):
    planted = Tubal(seeded(70, 2, 4), seeded(2, 80, 4, seed=1)).to_dense()
    x = (planted + noise * planted.norm() / 150 * seeded(70, 80, 4, seed=2)).to(dtype)
    best = error(Tubal(*(t.detach() for t in t_svd(x.clone().requires_grad_(), 2).tensors().values())), x)
    assert error(t_svd(x, 2), x) <= best * (1 + 1e-3) + 20 * torch.finfo(dtype).eps
    assert krylov_basis(x[..., 0], 2) is not None
    assert krylov_basis(seeded(100, 100, dtype=dtype), 2) is None


@pytest.mark.parametrize("shape", [(4, 3, 4), (3, 5, 5)])
def test_gradients_of_t_svd(shape):
    x = seeded(*shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: t_svd(x, 2).to_dense(), (x,))
    for bad in (torch.zeros(shape), torch.ones(shape), torch.eye(3).unsqueeze(-1).expand(3, 3, 4) * 1e-30):
        y = bad.clone().requires_grad_()
        t_svd(y, 2).to_dense().square().sum().backward()
        assert y.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_leading_has_the_gradient_of_the_projection(dtype):
    x = seeded(2, 3, 5, dtype=dtype).requires_grad_()

    def projected(x):
        u = leading(x, *singular_basis(x), rank=2)
        return u @ (u.mH @ x)

    assert torch.autograd.gradcheck(projected, (x,))


def planted_terms(shape, rank, terms, lead=(), seed=0):
    factors = tuple(
        seeded(*lead, terms, n, r, seed=seed + i) for i, (n, r) in enumerate(zip(shape, rank, strict=True))
    )
    return BlockTerm(seeded(*lead, terms, *rank, seed=seed + 9), factors)


@pytest.mark.parametrize(
    ("shape", "rank", "terms"),
    [((10, 9, 8), (2, 2, 2), 2), ((12, 10, 11), (3, 3, 1), 3), ((7, 6, 5, 6), (2, 1, 2, 2), 2), ((9, 8), (2, 2), 1)],
)
def test_block_term_finds_planted_terms(shape, rank, terms):
    planted = planted_terms(shape, rank, terms)
    x = planted.to_dense()
    found = block_term(x, rank, terms=terms)
    assert (found.shape, found.rank, found.terms) == (shape, rank, terms)
    assert error(found, x) < 1e-8
    single = block_term(x.float(), rank, terms=terms)
    assert single.dtype == torch.float32
    assert error(single, x) < 2e-5


def test_block_term_of_a_batch_and_of_scaled_tensors():
    planted = planted_terms((8, 7, 6), (2, 2, 1), 2, lead=(2, 1))
    x = planted.to_dense()
    assert x.shape == (2, 1, 8, 7, 6)
    found = block_term(x, (2, 2, 1), terms=2, batch=2)
    assert found.shape == (2, 1, 8, 7, 6)
    assert error(found, x) < 1e-8
    noisy = (x[0, 0] + seeded(8, 7, 6)).permute(2, 0, 1)
    errors = []
    plain = block_term(noisy, (1, 2, 2), callback=lambda _sweep, _of, said: errors.append(said["error"]))
    assert error(plain, noisy) <= errors[-1] + 1e-12
    assert errors == sorted(errors, reverse=True)
    for scale in (1e-30, 1e30):
        other = (scale * noisy).float().requires_grad_()
        made = block_term(other, (1, 2, 2)).to_dense()
        assert not made.requires_grad
        assert float((made.double() / scale - plain.to_dense()).norm() / noisy.norm()) < 1e-3
    assert torch.equal(block_term(noisy, (1, 2, 2)).to_dense(), plain.to_dense())


def test_block_terms_of_degenerate_tensors():
    assert not block_term(torch.zeros(4, 3, 5), (2, 1, 2)).to_dense().any()
    assert error(block_term(torch.ones(4, 1, 5), (2, 1, 2)), torch.ones(4, 1, 5)) < 1e-6
    assert block_term(seeded(3, 3, 3), (3, 3, 3), terms=3).to_dense().isfinite().all()
    assert block_term(seeded(4, 4, 4).bfloat16(), (1, 1, 1)).dtype == torch.bfloat16


def test_sums_of_block_terms_keep_their_ranks():
    a, b = planted_terms((5, 4, 6), (2, 2, 1), 2), planted_terms((5, 4, 6), (1, 3, 2), 1, seed=20)
    total = a + b
    assert (total.terms, total.rank) == (3, (2, 3, 2))
    assert torch.allclose(total.to_dense(), a.to_dense() + b.to_dense())
    assert torch.allclose((a.term(0).to_dense() + a.term(1).to_dense()), a.to_dense())
    assert (a + a).parameters == 2 * a.parameters
    assert isinstance(
        Kronecker(seeded(1, 2, 2), seeded(1, 2, 3)) + Sum((Kronecker(seeded(1, 4, 6), seeded(1, 1, 1)),)), Sum
    )


def bump(points):
    return (-(points - torch.tensor([0.3, 1.0, -0.2])).square().sum(-1)).exp() + points[..., 0] * points[..., 2]


def test_polynomials_are_exact_and_errors_fall_with_the_degree():
    box = ((0.0, 1.0), (-1.0, 2.0), (-2.0, 0.0))
    points = torch.stack([a + (b - a) * seeded(40, seed=i).sigmoid() for i, (a, b) in enumerate(box)], -1)
    cubic = chebyshev_tucker(lambda p: p[..., 0] ** 3 * p[..., 1] - p[..., 2] ** 2, box, (3, 1, 2), rank=(2, 2, 2))
    assert torch.allclose(cubic(points), points[:, 0] ** 3 * points[:, 1] - points[:, 2] ** 2)
    errors = []
    for degree in (4, 8, 12, 16):
        found = chebyshev_tucker(bump, box, (degree,) * 3, tol=1e-10)
        errors.append(float((found(points) - bump(points)).abs().max()))
    assert all(later < earlier / 10 for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 1e-7
    assert chebyshev_tucker(bump, box, (16,) * 3, tol=1e-7).rank == (2, 2, 2)


def test_a_fit_gives_its_values_on_any_grid():
    box = ((0.0, 1.0), (-1.0, 2.0), (-2.0, 0.0))
    asked = []

    def separable(x, y, z):
        asked.append((len(x), len(y), len(z)))
        return torch.einsum("i,j,k->ijk", x.cos(), y.exp(), z)

    found = chebyshev_tucker(separable, box, (9, 10, 2), tol=1e-6, on_grid=True)
    assert asked == [(10, 11, 3)]
    assert found.rank == (1, 1, 1)
    axes = [torch.linspace(a, b, n, dtype=torch.float64) for (a, b), n in zip(box, (7, 300, 5), strict=True)]
    on_grid = found.on_grid(axes)
    assert on_grid.shape == (7, 300, 5)
    assert torch.allclose(on_grid.to_dense(), separable(*axes), atol=1e-5)
    assert torch.allclose(found(torch.cartesian_prod(*axes)).reshape(7, 300, 5), on_grid.to_dense(), atol=1e-12)
    assert found(torch.zeros(2, 0, 3)).shape == (2, 0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: kronecker_svd(seeded(6, 8), 2, shape_of_first=(4, 2)),
            r"shape_of_first=\(4, 2\) must hold a divisor",
        ),
        (lambda: kronecker_svd(seeded(6, 8), 9, shape_of_first=(2, 2)), "rank=9 exceeds"),
        (lambda: kronecker_svd(seeded(6, 8)), "exactly one of rank, tol"),
        (lambda: kronecker_svd(seeded(6, 8) / 0, 1), "infinite"),
        (lambda: t_svd(seeded(4, 5), 1), "x has 2 dimensions"),
        (lambda: t_svd(seeded(4, 5, 3), 5), "rank=5 exceeds"),
        (lambda: t_svd(seeded(4, 5, 3), 0), "rank=0 is below 1"),
        (lambda: t_svd(seeded(4, 5, 3), tol=1.5), "tol=1.5 is not"),
        (lambda: t_svd(seeded(4, 5, 3) * torch.nan, 1), "60 NaN"),
        (lambda: block_term(seeded(4, 5, 3), (2, 2)), "one number for each of the 3 modes"),
        (lambda: block_term(seeded(4, 5, 3), (2, 6, 1)), r"rank\[1\]=6 exceeds"),
        (lambda: block_term(seeded(4, 5, 3), (2, 2, 1), terms=0), "terms=0 is below 1"),
        (lambda: block_term(seeded(4, 5, 3) * torch.nan, (2, 2, 1)), "60 NaN"),
        (lambda: chebyshev_tucker(bump, ((0, 1),), (3, 3), tol=0.1), "equally many of both, 2 or more"),
        (lambda: chebyshev_tucker(bump, ((0, 1), (2, 2), (0, 1)), (3, 3, 3), tol=0.1), "is not an interval"),
        (lambda: chebyshev_tucker(lambda p: p, ((0, 1), (0, 1)), (3, 3), tol=0.1), "f gave values of shape"),
        (lambda: chebyshev_tucker(lambda p: p[:, 0] / 0, ((0, 1), (0, 1)), (3, 3), tol=0.1), "16 infinite"),
        (lambda: chebyshev_tucker(bump, ((0, 1),) * 3, (3,) * 3, tol=0.1)(torch.full((3,), 2.0)), "larger box"),
        (lambda: chebyshev_tucker(bump, ((0, 1),) * 3, (3,) * 3, tol=0.1)(torch.ones(2)), "3 coordinates last"),
        (lambda: chebyshev_tucker(bump, ((0, 1),) * 3, (3,) * 3, tol=0.1).on_grid([torch.ones(1)]), "axes has 1"),
        (lambda: BlockTerm(seeded(2, 2), (seeded(3, 2), seeded(4, 2))), "number of terms K"),
        (lambda: Tubal(seeded(4, 2, 3), seeded(3, 4, 3)), "do not agree"),
        (lambda: Tubal(seeded(4, 2, 3), seeded(2, 4, 3)).linear(seeded(4)), "is no matrix and cannot be applied"),
        (lambda: Tubal(seeded(4, 2, 3), seeded(2, 4, 3)).inner(Kronecker(seeded(1, 2, 2), seeded(1, 2, 2))), "inner"),
        (lambda: Tubal(seeded(4, 2, 3), seeded(2, 4, 3)).multiply(seeded(2, 2), 2), "choose mode 0 with"),
        (lambda: Kronecker(seeded(2, 2), seeded(2, 2)), r"first.unsqueeze\(0\)"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
