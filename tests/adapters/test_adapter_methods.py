"""What single methods of adaptation owe beyond the contract: the formulas, counts and schedules of their papers."""

import pytest
import torch
from torch import nn

from polyad.adapters import (
    Adapters,
    AFLoRA,
    BlockLoRA,
    EDoRA,
    FLoRATucker,
    LoKr,
    LoLDU,
    LoTR,
    RiemannLoRA,
    SingLoRA,
    SVFit,
)
from polyad.adapters.methods.riemannlora import tangent
from polyad.formats import LowRank
from polyad.testing.adapters import move

X = torch.randn(40, 12, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def hosted(method, *, depth=1, move_it=False, **how):
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(12, 12, bias=False, dtype=torch.float64) for _ in range(depth)))
    adapters = Adapters(model)
    adapters.attach("a", "*", method, **how)
    if move_it:
        move(adapters, "a")
    return model, adapters, adapters.of("a")["0"]


def changed(model, adapters):
    """The base's weight and the merged one of the first layer."""
    before = model.state_dict()["0.weight"].clone()
    adapters.merge()
    after = model.state_dict()["0.weight"].clone()
    adapters.unmerge()
    return before, after


def near(found, expected, tol=1e-9):
    torch.testing.assert_close(found, expected, rtol=tol, atol=tol)


def test_svfit_changes_the_largest_singular_values_and_keeps_the_vectors():
    model, adapters, own = hosted(SVFit, rank=4)
    assert sum(p.numel() for p in adapters.parameters("a")) == 4
    with torch.no_grad():
        own.s.mul_(torch.tensor([2.0, 1.5, 1.2, 1.1], dtype=torch.float64))
    before, after = changed(model, adapters)
    u, s, v = torch.linalg.svd(before)
    s[:4] *= torch.tensor([2.0, 1.5, 1.2, 1.1], dtype=torch.float64)
    near(after, u * s @ v)


def test_loldu_scales_the_diagonal_also_where_a_pivot_is_zero():
    torch.manual_seed(0)
    singular = torch.randn(6, 2, dtype=torch.float64) @ torch.randn(2, 5, dtype=torch.float64)
    singular[:, 0] = 0
    for weight in (singular, torch.randn(6, 5, dtype=torch.float64)):
        layer = nn.Linear(5, 6, bias=False, dtype=torch.float64)
        layer.weight.data.copy_(weight)
        model = nn.Sequential(layer)
        adapters = Adapters(model)
        adapters.attach("a", "*", LoLDU, rank=5)
        own = adapters.of("a")["0"]
        near(own.L * own.d @ own.U, weight)
        with torch.no_grad():
            own.factor.fill_(3.0)
        near(changed(model, adapters)[1], 3 * weight)


def test_edora_trains_a_core_and_lengths_and_notices_changes_of_the_core():
    model, adapters, own = hosted(EDoRA, rank=3)
    assert sum(p.numel() for p in adapters.parameters("a")) == 9 + 12
    with torch.no_grad():
        start = model(X)
        own.direction.R.copy_(torch.eye(3))
        found = model(X)
        own.magnitude.mul_(1.0)  # what is kept between calls is worked out anew
        near(found, model(X))
        assert not torch.allclose(found, start)
        own.magnitude.fill_(2.0)
    before, after = changed(model, adapters)
    u, s, v = torch.linalg.svd(before)
    doubled = before + u[:, :3] * s[:3] @ v[:3]
    near(after, 2 * doubled / doubled.norm(dim=1, keepdim=True))
    with torch.no_grad():
        near(model(X[:2]), model(X)[:2])  # fewer rows than R has take another way
        near(model(X[:2]), X[:2] @ after.mT + (model(0 * X[:2])))
        plain, own.dropout = model(X[:2]), 0.5
        assert not torch.allclose(model.train()(X[:2]), plain)  # inputs are dropped in training there too


def test_block_lora_sums_its_blocks_over_one_down_projection():
    _, adapters, own = hosted(BlockLoRA, rank=6, blocks=3, move_it=True)
    assert sum(p.numel() for p in adapters.parameters("a")) == 6 * 12 + 2 * 12
    blocks = own.B.split(2, dim=1)
    near(own.update(None).to_dense(), torch.cat(blocks, 1) @ torch.cat([own.A] * 3, 0))
    with pytest.raises(ValueError, match="blocks=4 does not divide rank=6"):
        BlockLoRA((12, 12), rank=6, blocks=4)


def test_lotr_is_one_tucker_tensor_over_the_layers_and_saves_what_is_shared_once(tmp_path):
    model, adapters, _ = hosted(LoTR, depth=4, rank=3, move_it=True)
    assert sum(p.numel() for p in adapters.parameters("a")) == 2 * 12 * 3 + 4 * 9
    stack = torch.stack([own.update(None).to_dense() for own in adapters.of("a").values()])
    assert torch.linalg.matrix_rank(stack.flatten(0, 1)) == 3
    assert torch.linalg.matrix_rank(stack.transpose(1, 2).flatten(0, 1)) == 3
    before = model(X)
    adapters.save("a", tmp_path / "a")
    adapters.detach("a")
    adapters.load(tmp_path / "a")
    assert torch.equal(model(X), before)


def test_aflora_freezes_the_matrices_of_least_score_by_a_cubic_law():
    model, adapters, first = hosted(AFLoRA, depth=5, rank=2, warm=0.2, last=0.2, train_square=True)
    assert [round(first.frozen(step, 10), 3) for step in (0, 1, 4, 7, 9)] == [0, 0, 0.875, 1, 1]
    own = adapters.of("a").values()
    optimiser = torch.optim.Adam(adapters.parameters("a"), lr=0.01)
    counts, held = [], {}
    for step in range(10):
        optimiser.zero_grad()
        (model(X) - X.roll(1, 1)).square().mean().backward()
        adapters.after_backward(step, 10)
        scores = {(i, name): a.score(name) for i, a in enumerate(own) for name, p in a.matrices().items()
                  if p.requires_grad}  # fmt: skip
        optimiser.step()
        adapters.after_step(step, 10)
        now = {(i, name) for i, a in enumerate(own) for name, p in a.matrices().items() if not p.requires_grad}
        counts.append(len(now))
        fresh = [scores[key] for key in now - held.keys()]
        assert not fresh or max(fresh) <= min([scores[key] for key in scores.keys() - now], default=float("inf"))
        for key in now - held.keys():
            held[key] = list(own)[key[0]].matrices()[key[1]].detach().clone()
    assert counts == [0, 0, 4, 7, 9, 10, 10, 10, 10, 10]
    for (i, name), tensor in held.items():
        assert torch.equal(list(own)[i].matrices()[name], tensor)
    assert all(p.requires_grad for a in own for p in (a.b, a.d))


def test_aflora_freezes_the_matrices_of_square_layers_from_the_start_unless_told():
    for shape, told, trained in (((6, 6), False, "bd"), ((6, 6), True, "ABbd"), ((6, 8), False, "ABbd")):
        own = AFLoRA(shape, rank=2, train_square=told)
        assert {name for name, p in own.named_parameters() if p.requires_grad} == set(trained)
        assert set(own.matrices()) == set(trained) & {"A", "B"}
    square, wide = AFLoRA((6, 6), rank=2), AFLoRA((6, 8), rank=2)
    AFLoRA.after_step([square, wide], 9, 10)  # the share of frozen ones is of those that can be frozen
    assert not any(p.requires_grad for p in (square.A, square.B, wide.A, wide.B))


def test_aflora_scores_matrices_by_their_gradients_alone():
    own = AFLoRA((4, 6), rank=2, smooth=0.5, wander=0.5)
    with torch.no_grad():
        own.A.fill_(100.0)  # how large the numbers are does not matter
    own.A.grad, own.B.grad = torch.full_like(own.A, 2.0), torch.full_like(own.B, 4.0)
    AFLoRA.after_backward([own], 0, 10)
    near(torch.tensor([own.score("A"), own.score("B")]), torch.tensor([1.0 * 0.5, 2.0 * 1.0]))


def riemannian(steps, *, gauge=None, momentum=0.9, clip=None):
    """The change after some steps, with other factors of the same product before each, and the gradients' lengths."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12, bias=False, dtype=torch.float64))
    adapters = Adapters(model)

    def loss():
        return (model(X) - X.roll(1, 1)).square().mean()

    adapters.attach("a", "*", RiemannLoRA, rank=2, loss=loss, momentum=momentum)
    own = adapters.of("a")["0"]
    optimiser = torch.optim.SGD(adapters.parameters("a"), lr=0.3)
    lengths = []
    for step in range(steps):
        if gauge is not None:
            with torch.no_grad():
                own.A.copy_(torch.linalg.solve(gauge, own.A))
                own.B.copy_(own.B @ gauge)
        optimiser.zero_grad()
        loss().backward()
        adapters.after_backward(step, steps)
        lengths.append(nn.utils.clip_grad_norm_(adapters.parameters("a"), clip or torch.inf))
        optimiser.step()
        adapters.after_step(step, steps)
    return own.update(None).to_dense().detach(), loss().detach(), lengths


@pytest.mark.parametrize("clip", [None, 0.05])
def test_riemannlora_steps_do_not_depend_on_the_factors(clip):
    gauge = torch.tensor([[3.0, 1.0], [0.0, 0.2]], dtype=torch.float64)
    plain, loss, lengths = riemannian(8, clip=clip)
    other, _, others = riemannian(8, gauge=gauge, clip=clip)
    near(other, plain, 1e-8)
    near(torch.stack(others), torch.stack(lengths), 1e-8)
    assert clip is None or min(lengths) > clip
    assert loss < riemannian(0)[1]


def test_riemannlora_is_clipped_by_the_length_of_its_tangent_vector():
    generator = torch.Generator().manual_seed(3)
    own = RiemannLoRA((9, 7), rank=2, momentum=0.0).double()
    with torch.no_grad():
        for p in (own.A, own.B):
            p.normal_(generator=generator)
    Z = torch.randn(9, 7, generator=generator, dtype=torch.float64)
    own.A.grad, own.B.grad = own.B.detach().mT @ Z, Z @ own.A.detach().mT
    own.project()
    left, right = (own.B @ torch.linalg.pinv(own.B)).detach(), (torch.linalg.pinv(own.A) @ own.A).detach()
    vector = left @ Z + Z @ right - left @ Z @ right
    near((own.A.grad.square().sum() + own.B.grad.square().sum()).sqrt(), vector.norm())
    point = (own.B @ own.A).detach()
    torch.optim.SGD([own.A, own.B], lr=1e-6).step()
    own.retract()
    near(((own.B @ own.A).detach() - point) / -1e-6, vector, 1e-4)


def test_riemannlora_projects_on_the_tangent_space_and_starts_where_it_holds_most():
    generator = torch.Generator().manual_seed(3)
    B, A, Z = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((9, 2), (2, 7), (9, 7)))
    dB, dA = tangent(A, B, Z @ A.mT, B.mT @ Z)
    left, right = B @ torch.linalg.pinv(B), torch.linalg.pinv(A) @ A
    near(dB @ A + B @ dA, left @ Z + Z @ right - left @ Z @ right)
    own = RiemannLoRA((9, 7), rank=2).double()
    with torch.no_grad():
        own.init(None, gradient=Z)
    dB, dA = tangent(own.A.detach(), own.B.detach(), Z @ own.A.detach().mT, own.B.detach().mT @ Z)
    held = (dB @ own.A + own.B @ dA).norm()
    near(held.detach(), torch.linalg.svdvals(Z)[:4].norm())


def test_riemannlora_returns_to_the_nearest_point_of_its_rank():
    generator = torch.Generator().manual_seed(3)
    own = RiemannLoRA((9, 7), rank=2, momentum=0.0).double()
    with torch.no_grad():
        own.init(None, gradient=torch.randn(9, 7, generator=generator, dtype=torch.float64))
    for p in (own.A, own.B):
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    own.project()
    Q, P = torch.linalg.qr(own.B.detach()).Q, torch.linalg.qr(own.A.detach().mT).Q
    point = (own.B @ own.A - 0.1 * (own.B.grad @ P.mT + Q @ own.A.grad)).detach()
    with torch.no_grad():
        own.A.sub_(0.1 * own.A.grad)
        own.B.sub_(0.1 * own.B.grad)
    own.retract()
    u, s, v = torch.linalg.svd(point, full_matrices=False)
    near((own.B @ own.A).detach(), u[:, :2] * s[:2] @ v[:2])


def test_lokr_learns_in_its_larger_factor_first_whatever_its_size():
    shapes = [LoKr((24, 36), factor=f).factors().first.shape[1:] for f in (1, 2, 4, 6, 12, 24)]
    assert shapes == [(1, 1), (2, 2), (4, 4), (4, 6), (4, 6), (4, 6)]
    drawn, moving = LoKr((24, 36), factor=24).factors.parameters()
    assert moving.numel() >= drawn.numel()
    assert not moving.any()
    assert LoKr((24, 36), factor=(12, 18)).factors().first.shape == (1, 12, 18)


def in_order(own):
    return list(own.factors.parameters()) if hasattr(own, "factors") else [own.A]


FLORA, KRONECKER = (FLoRATucker, (300, 200)), (LoKr, (2400, 1800))
DRAWS = {
    "flora": (*FLORA, {"rank": 40}, "unit", [1 / 40, 1 / 200]),
    "flora-kaiming": (*FLORA, {"rank": (40, 20)}, "kaiming", [1 / 80, 1 / 40]),
    "lokr": (*KRONECKER, {"factor": (40, 30)}, "unit", [1 / 30, 0]),
    "lokr-lycoris": (*KRONECKER, {"factor": (40, 30)}, "lycoris", [1 / 90, 0]),
    "lokr-diffusekrona": (*KRONECKER, {"factor": (40, 30)}, "diffusekrona", [1 / 1600, 0]),
    "lokr-peft": (*KRONECKER, {"factor": (40, 30)}, "peft", [0, 1 / 180]),
    "singlora": (SingLoRA, (200, 300), {"rank": 10}, "side", [1 / 900]),
    "singlora-rank": (SingLoRA, (200, 300), {"rank": 10}, "rank", [1 / 30]),
}


@pytest.mark.parametrize(("method", "shape", "options", "draw", "variances"), DRAWS.values(), ids=list(DRAWS))
def test_starts_have_the_variances_that_they_state(method, shape, options, draw, variances):
    drawn, default = (
        in_order(method(shape, generator=torch.Generator().manual_seed(0), **options, **how))
        for how in ({"draw": draw}, {})
    )
    for tensor, variance in zip(drawn, variances, strict=True):
        assert float(tensor.detach().square().mean()) == pytest.approx(variance, rel=6 * (2 / tensor.numel()) ** 0.5)
    same = all(torch.equal(one, two) for one, two in zip(drawn, default, strict=True))
    assert same == (draw in ("unit", "side"))
    with pytest.raises(ValueError, match="draw='other' is unknown; choose"):
        method(shape, draw="other", **options)


def test_flora_keeps_the_sides_of_a_kernel():
    own = FLoRATucker((6, 8, 3, 2), rank=(2, 3, 3, 1), generator=torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in own.parameters()) == 12 + 24 + 9 + 2 + 18
    nn.init.normal_(own.core)
    assert isinstance(own.update(None), LowRank)
    near(own.update(None).to_dense().reshape(6, 8, 3, 2), own.tucker().to_dense(), 1e-5)
    assert [tuple(f.shape) for f in FLoRATucker((6, 8, 3, 3), rank=4).factors] == [(6, 4), (8, 4), (3, 3), (3, 3)]
    with pytest.raises(ValueError, match="one for each of the 4 sides"):
        FLoRATucker((6, 8, 3, 3), rank=(2, 2))
