"""Classical factorisations as choices of one equation."""

import pytest
import torch

from polyad.algorithms import meta_factorization
from polyad.linalg.sketch import SparseSign

TIGHT = {"atol": 1e-10, "rtol": 1e-10}


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def low(n=9, m=7, rank=4):
    return seeded(n, rank) @ seeded(rank, m, seed=1)


def test_singular_vectors_give_the_truncated_svd():
    a = seeded(9, 7)
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    made = meta_factorization(a, vh[:3].T, u[:, :3])
    assert torch.allclose(made.m, (1 / s[:3]).diag(), **TIGHT)
    assert torch.allclose(made.product(), (u[:, :3] * s[:3]) @ vh[:3], **TIGHT)
    rest = torch.linalg.matrix_norm(a - made.product(), 2)
    assert torch.allclose(rest, s[3], **TIGHT)


def test_qr_and_utv():
    a = seeded(9, 7)
    q, r = torch.linalg.qr(a)
    made = meta_factorization(a, torch.eye(7, dtype=torch.float64), q)
    assert torch.allclose(made.g, r, **TIGHT)
    assert torch.allclose(made.left(), q, **TIGHT)
    a = low()
    u = torch.linalg.qr(a @ seeded(7, 4, seed=2)).Q
    v = torch.linalg.qr(a.T @ u).Q  # UTV by one step of subspace iteration
    made = meta_factorization(a, v, u)
    core = torch.linalg.inv(made.m)
    assert torch.allclose(u @ core @ v.T, a, **TIGHT)
    assert torch.allclose(made.product(), a, **TIGHT)
    assert torch.allclose(core, u.T @ a @ v, **TIGHT)


def test_cur_generalised_nystrom_and_mixed_choices_recover_a_matrix_of_their_rank():
    a = low()
    columns, rows = torch.tensor([0, 2, 3, 5, 6]), torch.tensor([1, 2, 4, 8])
    cur = meta_factorization(a, columns, rows)
    assert torch.equal(cur.f, a[:, columns])
    assert torch.equal(cur.g, a[rows])
    assert torch.allclose(cur.m, torch.linalg.pinv(a[rows][:, columns], rtol=1e-10), **TIGHT)
    for y, x in [(columns, rows), (seeded(7, 4), seeded(9, 6)), (columns, seeded(9, 5)), (a.T @ seeded(9, 4), rows)]:
        assert torch.allclose(meta_factorization(a, y, x).product(), a, **TIGHT)


def test_rank_below_the_matrix_leaves_an_error():
    a = low()
    made = meta_factorization(a, seeded(7, 3), seeded(9, 3))
    assert (made.product() - a).norm() > 1e-3 * a.norm()


def test_pseudoinverse_from_any_bases_of_columns_and_rows():
    a = low()
    expected = torch.linalg.pinv(a, rtol=1e-10)
    assert torch.allclose(meta_factorization(a, a.T, a, rtol=1e-9).inverse(), expected, atol=1e-8)
    made = meta_factorization(a, a.T @ seeded(9, 4), a @ seeded(7, 4))
    assert torch.allclose(made.inverse(), expected, **TIGHT)
    outer = meta_factorization(a, torch.tensor([0, 1]), torch.tensor([3, 4])).inverse()
    assert torch.allclose(outer @ a @ outer, outer, **TIGHT)


def test_the_projector_equation():
    a = seeded(9, 7)
    made = meta_factorization(a, seeded(7, 3), seeded(9, 3))
    oblique = made.left() @ (made.x.T @ torch.eye(9, dtype=torch.float64))
    assert torch.allclose(oblique @ oblique, oblique, **TIGHT)
    assert torch.allclose(oblique @ made.f, made.f, **TIGHT)


def test_generalised_nystrom_is_close_to_the_best_on_a_decaying_spectrum():
    u, v = torch.linalg.qr(seeded(60, 50)).Q, torch.linalg.qr(seeded(50, 50, seed=1)).Q
    s = 0.7 ** torch.arange(50.0).double()
    a = (u * s) @ v.T
    y = SparseSign.draw(10, 50, nonzeros=4).apply(torch.eye(50).double()).T
    x = (
        SparseSign.draw(20, 60, nonzeros=4, generator=torch.Generator().manual_seed(1))
        .apply(torch.eye(60).double())
        .T
    )
    error = (a - meta_factorization(a, y, x).product()).norm()
    assert s[10:].norm() <= error < 10 * s[10:].norm()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scale_dtype_batch_and_gradients(scale, dtype):
    a = (low().to(dtype) * scale).expand(2, 9, 7).clone().requires_grad_()
    made = meta_factorization(a, torch.tensor([0, 2, 3, 5]), torch.tensor([1, 2, 4, 8]))
    assert made.product().dtype == dtype
    assert torch.allclose(made.product(), a, rtol=1e-3, atol=1e-4 * scale)
    (made.product() / scale).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_the_zero_matrix():
    assert torch.equal(meta_factorization(torch.zeros(3, 4), torch.eye(4), torch.eye(3)).product(), torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda a: meta_factorization(a, torch.ones(6, 2), torch.ones(9, 2)), "y of shape .* must have 7 rows"),
        (lambda a: meta_factorization(a, torch.tensor([7]), torch.tensor([0])), "from 7 to 7; allowed: 0 to 6"),
        (lambda a: meta_factorization(a, torch.tensor([True]), torch.tensor([0])), "neither matrix nor"),
        (lambda a: meta_factorization(a / 0, torch.tensor([0]), torch.tensor([0])), "infinite"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(low())
