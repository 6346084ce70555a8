"""The formula that the docstring of every adapter states, against dense products of its own tensors in float64."""

import inspect
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import polyad.adapters  # noqa: F401
from polyad._card import card, methods
from polyad.adapters import Adapters
from polyad.formats import LowRank
from polyad.testing.adapters import move
from polyad.testing.adapters._subject import UnitMoments

OUT, IN = 16, 24


def hosted(name, *, shape=(OUT, IN), moved=True, **options):
    """A linear layer in float64 with the method on it: its weight, the adapters, and the one of the layer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False, dtype=torch.float64))
    weight, x = model[0].weight.detach().clone(), torch.randn(30, shape[1], dtype=torch.float64)
    adapters = Adapters(model)
    start = {"loss": lambda: model(x).square().mean(), "stats": UnitMoments(model)}
    adapters.attach("a", "*", card(name).function, seed=3, **start, **options)
    if moved:
        move(adapters, "a")
    return weight, adapters, adapters.of("a")["0"]


def merged(weight, adapters):
    """The change of the weight, as merging makes it."""
    adapters.merge()
    after = next(t for key, t in adapters.model.state_dict().items() if key.endswith("weight"))
    change = after.detach().clone() - weight
    adapters.unmerge()
    return change


def near(result, expected, tol=1e-9):
    torch.testing.assert_close(result.detach(), expected.detach(), rtol=tol, atol=tol)


def grid(own, weight):
    """GraLoRA: a product of its own in each block, and one of the whole matrix."""
    blocks = own.A.shape[0]
    rows = [torch.cat([own.B[i, :, j] @ own.A[j, :, i] for j in range(blocks)], 1) for i in range(blocks)]
    return torch.cat(rows) + (own.B_shared @ own.A_shared if own.shared else 0)


def circulant(columns):
    """Blocks (out / b, in / b, b) by their first columns, entry by entry."""
    b, i, j = columns.shape[-1], *torch.meshgrid(torch.arange(OUT), torch.arange(IN), indexing="ij")
    return columns[i // b, j // b, (i - j) % b]


def cayley(skew, block):
    """One rotation (I + S)(I - S)⁻¹ a row of the numbers above the diagonal."""
    rotations = []
    for numbers in skew.detach():
        S = torch.zeros(block, block, dtype=torch.float64)
        for (i, j), number in zip(itertools.combinations(range(block), 2), numbers, strict=True):
            S[i, j], S[j, i] = number, -number
        eye = torch.eye(block, dtype=torch.float64)
        rotations.append((S, (eye + S) @ torch.linalg.inv(eye - S)))
    return rotations


def rotated(own, weight):
    rotations = [R for _, R in cayley(own.skew, own.block)]
    rotations *= weight.shape[1] // own.block // len(rotations)
    return weight @ torch.block_diag(*rotations) - weight


def series(own, weight):
    """I + 2 S + 2 S² + … + Sⁿ⁻¹, with the last power once."""
    blocks = []
    for S, _ in cayley(own.skew, own.block):
        powers = [torch.linalg.matrix_power(S, i) for i in range(own.terms)]
        blocks.append(powers[0] + 2 * sum(powers[1:-1], 0 * S) + (2 if own.terms == 2 else 1) * powers[-1])
    return weight @ torch.block_diag(*blocks) - weight


def entangled(vectors, shares, d):
    """TensorPoly's rows Σ_r w_r v₁ʳ ⊗ … ⊗ v_Nʳ, or ⊗_n Σ_r w_nʳ v_nʳ, of which the first d entries count."""
    order, rank, _, terms = vectors.shape
    rows = []
    for k in range(rank):
        if shares.ndim == 1:
            products = []
            for r in range(terms):
                row = shares[r] * torch.ones(1, dtype=torch.float64)
                for n in range(order):
                    row = torch.kron(row, vectors[n, k, :, r])
                products.append(row)
            rows.append(sum(products)[:d])
        else:
            row = torch.ones(1, dtype=torch.float64)
            for n in range(order):
                row = torch.kron(row, sum(shares[n, r] * vectors[n, k, :, r] for r in range(terms)))
            rows.append(row[:d])
    return torch.stack(rows)


def tensors_of_terms(own, weight):
    terms = own.A.shape[-1]
    shares = torch.ones(terms) if own.logits is None else terms * own.logits[own.task].softmax(-1)
    return entangled(own.B, shares, OUT).mT @ entangled(own.A, shares, IN)


def exchanged(own, weight):
    """SoKA: what is trained instead of what it started at."""
    return sum(
        torch.kron(A, B) - torch.kron(A0, B0) for A, B, A0, B0 in zip(own.A, own.B, own.A0, own.B0, strict=True)
    )


def transformed(own, weight):
    """W T - W + s B A with T of its cores, one index of a bond at a time."""
    first, *inner, last = (t.double() for t in own.transform().cores)
    bonds = [torch.kron(torch.ones(1, 1), first[..., k]) for k in range(first.shape[-1])]
    for core in inner:
        bonds = [sum(torch.kron(T, core[k, ..., j]) for k, T in enumerate(bonds)) for j in range(core.shape[-1])]
    T = sum(torch.kron(one, last[k]) for k, one in enumerate(bonds))
    return weight @ T - weight + own.residual.scale * own.residual.B @ own.residual.A


def of_unit_rows(own, weight):
    """m (W + s B A) / ‖W + s B A‖ - W."""
    whole = weight + own.direction.scale * own.direction.B @ own.direction.A
    return own.magnitude.unsqueeze(1) * whole / whole.norm(dim=1, keepdim=True) - weight


def surm(own, weight):
    long, (i, j) = max(OUT, IN), torch.meshgrid(torch.arange(OUT), torch.arange(IN), indexing="ij")
    every, down = torch.arange(long), torch.arange(long).unsqueeze(1)
    if own.family == "circulant":
        return own.v[(i - j) % long]
    if own.family == "symmetric":
        return own.v[(i - j).abs()]
    if own.family == "toeplitz":
        return own.v[i - j + IN - 1]
    if own.family == "kronecker":
        return torch.kron(own.u[0], own.v[0])
    return own.v[(down - every) % long][:OUT] @ own.u[(down - every) % long][:, :IN]


def khatri_rao(own, weight):
    terms = zip(own.factors().first, own.factors().second, strict=True)
    return sum(torch.stack([torch.kron(P[:, j], Q[:, j]) for j in range(IN)], 1) for P, Q in terms)


def tera(own, weight):
    U1, U2, V1, V2 = (t() for t in own.frozen)
    d1, (d2, d3, d4) = own.first, own.others
    return torch.kron(U1 * d1, U2 * d2) @ own.core() @ torch.kron(V1 * d3, V2 * d4).mT


def low_rank(own, weight):
    return own.B @ own.A


FORMULAS = {
    "adalora": [({"rank": 3, "spare": 2}, lambda o, _: o.P @ o.values.diag() @ o.Q, 3)],
    "aflora": [({"rank": 3}, lambda o, _: o.b.diag() @ o.B @ o.d.diag() @ o.A, 3)],
    "block_lora": [
        ({"rank": 6, "blocks": n}, lambda o, _: sum(o.B.chunk(o.blocks, 1)) @ o.A, 6) for n in (1, 2, 3)
    ],
    "c3a": [({"block": b}, lambda o, _: circulant(o.factors().columns), 1) for b in (2, None)],
    "dora": [({"rank": 3}, of_unit_rows, "inner")],
    "edora": [({"rank": 3}, of_unit_rows, "inner")],
    "eigenlorax": [({"rank": r, "components": 4}, lambda o, _: o.VB @ o.CB @ o.CA @ o.VA, None) for r in (2, 4)],
    "flora_tucker": [
        ({"rank": (3, 5)}, lambda o, _: o.factors[0] @ o.core @ o.factors[1].mT, 1),
    ],
    "gralora": [
        ({"rank": 4, "blocks": 2}, grid, 4), ({"rank": 3, "blocks": 2, "shared": 1}, grid, 3),
        ({"rank": 5, "blocks": 4, "shared": 1}, grid, 5), ({"rank": 2, "blocks": 1}, grid, 2),
        ({"rank": 8, "blocks": 2, "shared": 4}, grid, 8),
    ],
    "ia3": [
        ({}, lambda o, w: o.factors.diag() @ w - w, None),
        ({"side": "inputs"}, lambda o, w: w @ o.factors.diag() - w, None),
    ],
    "loha": [({"rank": r}, lambda o, _: (o.B1 @ o.A1) * (o.B2 @ o.A2), r) for r in (1, 2, 3)],
    "lokh": [
        ({"rank": 2}, khatri_rao, 1), ({"rank": 3, "first": 2}, khatri_rao, 1), ({"first": 16}, khatri_rao, 1)
    ],
    "lokr": [
        ({"factor": f}, lambda o, _: torch.kron(o.factors().first[0], o.factors().second[0]), 1)
        for f in (3, (8, 2))
    ],
    "loldu": [
        ({"rank": 5}, lambda o, w: o.L @ (o.factor * o.z - 5 / 5 * o.d).diag() @ o.U, "inner"),
    ],
    "loqt": [],
    "lora": [({"rank": 3}, low_rank, 3), *(({"rank": 3, "trained": side}, low_rank, 3) for side in "AB")],
    "lotr": [({"rank": 3}, lambda o, _: o.A() @ o.G @ o.B(), 3)],
    "oft": [
        ({"block": 4}, rotated, None), ({"block": 6, "share": True}, rotated, None),
        *(({"block": 4, "terms": n}, series, None) for n in (2, 3, 4, 6)),
    ],
    "pissa": [({"rank": 3}, lambda o, _: o.B @ o.A - o.B0 @ o.A0, None)],
    "riemannlora": [({"rank": 3}, lambda o, _: o.B @ o.A - o.B0 @ o.A0, None)],
    "singlora": [({"rank": 3}, lambda o, _: o.u * o.A[:OUT] @ o.A[:IN].mT, 3)],
    "soka": [({"rank": 3}, exchanged, None), ({"rank": 2, "shape_of_first": (8, 3)}, exchanged, None)],
    "surm": [
        ({"family": f}, surm, 1) for f in ("circulant", "symmetric", "toeplitz", "product", "kronecker")
    ],
    "svfit": [({"rank": 3}, lambda o, _: o.U @ (o.s - o.s0).diag() @ o.V, None)],
    "tensorpoly": [
        *(({"rank": 3, "terms": 2, "order": n}, tensors_of_terms, 3) for n in (1, 2, 3)),
        ({"rank": 3, "terms": 2, "tasks": 2}, tensors_of_terms, 3),
        ({"rank": 2, "terms": 3, "order": 3, "tasks": 2, "routes": "order"}, tensors_of_terms, 2),
    ],
    "tera": [({}, tera, 1)],
    "tlora_transform": [
        *(({"rank": 2, "bond": b}, transformed, "inner") for b in (1, 2, 3)),
        ({"rank": 2, "modes": (2, 3, 4)}, transformed, "inner"),
        ({"rank": 2, "modes": (4, 3, 2), "bond": 3}, transformed, "inner"),
    ],
    "vera": [({"rank": 5}, lambda o, _: o.b.diag() @ o.B() @ o.d.diag() @ o.A(), None)],
}  # fmt: skip
"""Of every adapter, arguments, ΔW before ``alpha``, and what alpha is divided by: None where it takes none, "inner"
where it acts within the formula. LoQT's base changes, and has a file of its own."""
CASES = {f"{name}-{i}": (name, *case) for name, cases in FORMULAS.items() for i, case in enumerate(cases)}


def test_every_adapter_has_its_formula_here():
    assert FORMULAS.keys() == {one.name for one in methods("adapter")}


@pytest.mark.parametrize(("name", "options", "formula", "by"), CASES.values(), ids=list(CASES))
def test_formula(name, options, formula, by):
    given = {} if by is None else {"alpha": 5.0}
    weight, adapters, own = hosted(name, **options, **given)
    factor = 1 if by in (None, "inner") else 5 / by
    expected = factor * formula(own, weight)
    assert expected.norm() > 1e-3
    near(merged(weight, adapters), expected)
    near(merged(weight, adapters), expected)
    x = torch.randn(5, IN, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    near(adapters.model(x), x @ (weight + expected).mT)  # with gradients, and without
    with torch.no_grad():
        near(adapters.model(x), x @ (weight + expected).mT)
        near(adapters.model(x[:1]), x[:1] @ (weight + expected).mT)
    assert ("alpha" in inspect.signature(card(name).function).parameters) == (by is not None)


@pytest.mark.parametrize(("name", "options", "divisor"), [
    ("dora", {"rank": 3}, 3), ("edora", {"rank": 3}, 3), ("tlora_transform", {"rank": 3}, 3),
])  # fmt: skip
def test_alpha_within_the_formula_is_divided_by_the_rank(name, options, divisor):
    for alpha, scale in ((5.0, 5 / divisor), (None, 1.0)):
        own = hosted(name, **options, alpha=alpha)[2]
        assert (own.residual if name == "tlora_transform" else own.direction).scale == scale


@pytest.mark.parametrize("name", ["gralora", "loha"])
def test_updates_are_thin_up_to_a_quarter_of_the_shorter_side(name):
    """Which is what a row costs: 2 r (in + out) operations of a pair of matrices, or those of the blocks."""
    cases = {"gralora": [(4, 1, True), (5, 1, False), (2, 2, True), (4, 2, False)],
             "loha": [(1, None, True), (2, None, True), (3, None, False), (4, None, False)]}[name]  # fmt: skip
    for rank, blocks, thin in cases:
        for shape in ((OUT, 40), (40, OUT)):
            own = hosted(name, shape=shape, rank=rank, **({} if blocks is None else {"blocks": blocks}))[2]
            assert isinstance(own.update(None), LowRank) == thin, (rank, blocks)
        if thin and name == "loha":
            assert own.update(None).left.shape == (40, rank**2)


def test_root_scaling_divides_by_the_root_of_the_rank():
    weight, adapters, own = hosted("lora", rank=4, alpha=3.0, scaling="root")
    near(merged(weight, adapters), 3 / 2 * own.B @ own.A)


def test_biases_follow_the_outputs_that_ia3_scales_and_stay_beside_scaled_inputs():
    for side in ("outputs", "inputs"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(IN, OUT, dtype=torch.float64))
        weight, bias = (t.detach().clone() for t in (model[0].weight, model[0].bias))
        adapters = Adapters(model)
        adapters.attach("a", "*", card("ia3").function, side=side)
        move(adapters, "a")
        factors, x = adapters.of("a")["0"].factors, torch.randn(5, IN, dtype=torch.float64)
        expected = (x @ weight.mT + bias) * factors if side == "outputs" else (x * factors) @ weight.mT + bias
        near(model(x), expected)
        adapters.merge()
        near(model(x), expected)


def test_the_principal_kronecker_products_are_those_of_the_rearranged_weight():
    for options, (a, c), count in (({"rank": 3}, (4, 4), 3), ({"rank": 2, "shape_of_first": (8, 3)}, (8, 3), 2)):
        weight, _, own = hosted("soka", moved=False, **options)
        b, d = OUT // a, IN // c
        rows = torch.stack([
            weight[i * b : (i + 1) * b, j * d : (j + 1) * d].flatten() for i in range(a) for j in range(c)
        ])  # fmt: skip
        u, s, v = torch.linalg.svd(rows, full_matrices=False)
        for k in range(count):
            near(torch.outer(own.A0[k].flatten(), own.B0[k].flatten()), s[k] * torch.outer(u[:, k], v[k]))
            near(own.A0[k].norm(), s[k].sqrt())  # both factors carry the root
            near(own.B0[k].norm(), s[k].sqrt())
        near(own.A, own.A0)
        near(own.B, own.B0)


@pytest.mark.parametrize("first", [(4, 4), (8, 3), (2, 6)])
def test_soka_keeps_as_many_terms_as_energy_and_elbow_ask_for(first):
    """Both of all squared singular values, four of which stand above the elbow, whatever ``rank`` allows at most."""
    a, c = first
    b, d, most = OUT // a, IN // c, min(a * c, OUT * IN // (a * c))
    singular = torch.tensor([4.0, 3.5, 3.0, 2.5, *[0.1] * (most - 4)], dtype=torch.float64)
    torch.manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(n, most, dtype=torch.float64)).Q for n in (a * c, b * d))
    weight = (u * singular @ v.mT).view(a, c, b, d).transpose(1, 2).reshape(OUT, IN)
    shares = singular.square().cumsum(0) / singular.square().sum()
    cases = ((6, 0.36, 1), (6, 0.38, 2), (6, 0.7, 3), (6, 0.84, 3), (6, 0.86, 4), (6, 1, 4), (2, 1, 2))
    for rank, energy, count in cases:
        assert count == min(rank, 4, int((shares < energy).sum()) + 1)
        own = card("soka").function((OUT, IN), rank=rank, energy=energy, shape_of_first=first).double()
        own.derive(SimpleNamespace(weight=weight))
        assert len(own.A) == count, (rank, energy)


@pytest.mark.parametrize("modes", [(4, 6), (2, 3, 4), (24, 1)])
def test_the_transform_starts_at_the_identity_with_noise_on_the_other_bonds(modes):
    _, _, own = hosted("tlora_transform", moved=False, rank=2, bond=3, modes=modes)
    near(own.transform().to_dense(), torch.eye(IN, dtype=torch.float64))
    first, *others = own.transform().cores
    noise = first[..., 1:]
    assert noise.count_nonzero() == noise.numel()
    assert float(noise.detach().square().mean()) == pytest.approx(1 / modes[0], rel=6 * (2 / noise.numel()) ** 0.5)
    for core, m in zip(others[:-1], modes[1:], strict=False):  # later bonds pass on what the first one drew
        for k in range(1, 3):
            near(core[k, :, :, k], torch.eye(m, dtype=torch.float64))
    assert not others[-1][1:].any()


def test_circulant_blocks_start_with_the_deviation_that_is_asked_for():
    _, _, own = hosted("c3a", shape=(240, 240), moved=False, block=4, start=0.3)
    columns = own.factors().columns
    assert float(columns.detach().square().mean()) == pytest.approx(0.09, rel=6 * (2 / columns.numel()) ** 0.5)


@pytest.mark.parametrize(("terms", "order", "tasks"), [(1, 2, None), (4, 2, None), (2, 3, None), (3, 2, 2)])
def test_rows_of_a_have_the_variance_that_lora_s_have_and_b_starts_at_zero(terms, order, tasks):
    routes = {} if tasks is None else {"tasks": tasks, "routes": "order"}
    made = card("tensorpoly").function(
        (900, 900), rank=200, terms=terms, order=order, generator=torch.Generator().manual_seed(0), **routes
    )
    low = made.update(None)
    assert not low.left.any()
    assert float(low.right.detach().square().mean()) == pytest.approx(1 / 900, rel=0.1)
    assert not made.B[0].any()
    with torch.no_grad():
        made.B[0] = (terms ** (-0.5 / order) if tasks is None else terms**-0.5) * torch.randn(made.B[0].shape)
    assert float(made.update(None).left.detach().square().mean()) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(("d", "order"), [(900, 2), (901, 2), (27, 3), (28, 3), (1, 2), (2, 2), (7, 1), (1000, 3)])
def test_vectors_are_no_longer_than_their_product_needs(d, order):
    made = card("tensorpoly").function((d, d), rank=1, order=order)
    size = next(k for k in itertools.count(1) if k**order >= d)
    assert made.A.shape[2] == size
    assert made.B.shape[2] == size
    assert math.prod(made.update(None).shape) == d * d


@pytest.mark.parametrize("share", [False, True])
def test_oft_stays_within_the_radius_of_each_block(share):
    _, _, own = hosted("oft", block=4, share=share, radius=0.3, moved=False)
    count = 1 if share else IN // 4
    inside = torch.full_like(own.skew, 0.01)
    with torch.no_grad():
        own.skew.copy_(inside)
        own.skew[0] = torch.arange(1.0, 7.0)
    own.after_step([own], 0, 1)
    for i, (S, _) in enumerate(cayley(own.skew, 4)):
        if i == 0:
            assert float(S.norm()) == pytest.approx(0.3 / count**0.5, rel=1e-6)
            near(own.skew[0] / own.skew[0, 0], torch.arange(1.0, 7.0, dtype=torch.float64))
        else:
            near(own.skew[i], inside[i])


@pytest.mark.parametrize(("block", "fits"), [(5, "[2, 3, 4, 6, 8, 12, 24]"), (1, "[2, 3, 4, 6, 8, 12, 24]")])
def test_oft_names_the_blocks_that_fit(block, fits):
    with pytest.raises(ValueError, match=f"block={block} is no size of rotations of 24 channels") as refusal:
        card("oft").function((OUT, IN), block=block)
    assert str(refusal.value).endswith(fits)


def test_c3a_names_the_blocks_that_fit():
    for block in (3, 0, 16):
        with pytest.raises(ValueError, match=f"block={block} does not divide") as refusal:
            card("c3a").function((OUT, IN), block=block)
        assert str(refusal.value).endswith("choose from [1, 2, 4, 8]")


def test_adalora_s_importance_is_that_of_its_number_and_the_means_of_its_vectors():
    weight, _, own = hosted("adalora", rank=2, spare=1, smooth=0.6, wander=0.7)
    seen = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in own.named_parameters()}
    for step in range(3):
        for i, p in enumerate(own.parameters()):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(9 * step + i)).double()
        own.after_backward([own], step, 9)
        for name, p in own.named_parameters():
            level, spread = seen[name]
            now = (p * p.grad).abs().detach()
            level = 0.6 * level + 0.4 * now
            seen[name] = (level, 0.7 * spread + 0.3 * (now - level).abs())
    P, values, Q = (seen[name][0] * seen[name][1] for name in ("P", "values", "Q"))
    near(own.importance(), values + P.mean(0) + Q.mean(1), 1e-6)
    near(own.penalty(), 0.1 * (
        (own.P.mT @ own.P - torch.eye(3)).square().sum() + (own.Q @ own.Q.mT - torch.eye(3)).square().sum()
    ))  # fmt: skip
    assert weight.shape == (OUT, IN)


def test_adalora_s_budget_falls_by_a_cubic_law_between_the_shares_of_steps():
    own = card("adalora").function((OUT, IN), rank=4, spare=8, warm=0.1, last=0.4)
    for step, budget in ((0, 12), (10, 12), (35, 4 + 8 / 8), (60, 4), (99, 4)):
        assert own.budget(step, 100) == pytest.approx(budget)
    assert card("adalora").function((OUT, IN), rank=12, spare=4).P.shape == (OUT, 16)
    with pytest.raises(ValueError, match=r"rank \+ spare=17 exceeds"):
        card("adalora").function((OUT, IN), rank=13, spare=4)


BOUNDS = {
    "lora": ({"rank": 10}, {"A": IN**-0.5}), "block_lora": ({"rank": 10, "blocks": 5}, {"A": IN**-0.5}),
    "gralora": ({"rank": 12, "blocks": 4, "shared": 4}, {"A": (IN / 4) ** -0.5, "A_shared": IN**-0.5}),
    "singlora": ({"rank": 10}, {"A": IN**-0.5}), "singlora-rank": ({"rank": 10, "draw": "rank"}, {"A": 10**-0.5}),
    "aflora": ({"rank": 10}, {"A": (6 / IN) ** 0.5, "B": (6 / 10) ** 0.5}),
    "tlora_transform": ({"rank": 10}, {"residual.A": IN**-0.5}), "dora": ({"rank": 10}, {"direction.A": IN**-0.5}),
    "lokr": ({"factor": (4, 6), "draw": "lycoris"}, {"factors.first": 6**-0.5}),
    "lokr-peft": ({"factor": (2, 2), "draw": "peft"}, {"factors.second": (IN / 2) ** -0.5}),
}  # fmt: skip
"""Arguments of adapters whose starts are uniform, and the bounds that they state."""


@pytest.mark.parametrize("case", BOUNDS)
def test_uniform_starts_reach_their_bounds_and_no_further(case):
    options, bounds = BOUNDS[case]
    drawn = {name: [] for name in bounds}
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        tensors = dict(
            card(case.split("-")[0]).function((OUT, IN), generator=generator, **options).named_parameters()
        )
        for name in bounds:
            drawn[name].append(tensors[name].detach().double())
    for name, bound in bounds.items():
        numbers = torch.stack(drawn[name])
        assert float(numbers.max()) <= bound * (1 + 1e-6)
        assert float(numbers.min()) >= -bound * (1 + 1e-6)
        assert float(numbers.max()) > 0.985 * bound
        assert float(numbers.min()) < -0.985 * bound
        assert abs(float(numbers.mean())) < 5 * bound / (3 * numbers.numel()) ** 0.5


def test_soka_refuses_more_terms_than_there_can_be():
    for first, most in (((4, 4), 16), ((8, 3), 16), ((2, 3), 6)):
        card("soka").function((OUT, IN), rank=most, shape_of_first=first)
        with pytest.raises(ValueError, match=f"rank={most + 1} exceeds the most terms"):
            card("soka").function((OUT, IN), rank=most + 1, shape_of_first=first)
