"""The optimiser host and its transforms."""

import copy
import io
import math

import pytest
import torch
from torch.nn import functional as F

from polyad._card import card, methods
from polyad.data.text import stdlib
from polyad.formats import Quantized
from polyad.optim import (
    SMMF,
    Adam,
    CosineColumns,
    Muon,
    Optimizer,
    PowerIteration,
    Projected,
    ProjectedAdam,
    StoredMoments,
    adam_8bit,
    dct_adaptive,
    flora,
    galore,
)
from polyad.optim.stored import decode_blocks, dynamic_levels, encode_blocks
from polyad.quantize import round_to_nearest


def seeded(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_catalogue_knows_the_class():
    assert card(ProjectedAdam) is card("projected_adam")
    assert card("projected_adam") in methods("transform")


def parameters(dtype):
    return [torch.nn.Parameter(seeded(*shape, seed=i).to(dtype)) for i, shape in enumerate([(6, 10), (12, 5), (7,)])]


def advance(params, optimizer, steps, seed):
    for step in range(steps):
        for i, param in enumerate(params):
            param.grad = seeded(*param.shape, seed=seed + 10 * step + i).to(param.dtype)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("through_file", [False, True])
def test_resuming_takes_the_identical_next_steps(dtype, through_file):
    make = lambda params: Optimizer(params, ProjectedAdam(3, interval=2), lr=0.05, weight_decay=0.1)  # noqa: E731
    params = parameters(dtype)
    optimizer = make(params)
    advance(params, optimizer, 3, seed=1)
    saved = optimizer.state_dict()
    if through_file:
        file = io.BytesIO()
        torch.save(saved, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
    others = [torch.nn.Parameter(param.detach().clone()) for param in params]
    resumed = make(others)
    resumed.load_state_dict(copy.deepcopy(saved))
    held = {t.dtype for state in resumed.state.values() for t in state.values() if isinstance(t, torch.Tensor)}
    assert held == {torch.float64 if dtype == torch.float64 else torch.float32}
    advance(params, optimizer, 3, seed=500)
    advance(others, resumed, 3, seed=500)
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


def test_loading_copies():
    params = parameters(torch.float32)
    optimizer = Optimizer(params, ProjectedAdam(2))
    advance(params, optimizer, 1, seed=1)
    twin = Optimizer(params, ProjectedAdam(2))
    twin.load_state_dict(optimizer.state_dict())
    assert twin.state[params[0]]["mean"].data_ptr() != optimizer.state[params[0]]["mean"].data_ptr()


def test_bytes_are_what_the_file_holds():
    params = [
        torch.nn.Parameter(seeded(64, 200)),
        torch.nn.Parameter(seeded(300, 32)),
        torch.nn.Parameter(seeded(50)),
    ]
    optimizer = Optimizer(params, ProjectedAdam(4, interval=1))
    advance(params, optimizer, 2, seed=1)
    assert optimizer.nbytes == 4 * ((64 + 2 * 200) * 4 + (32 + 2 * 300) * 4 + 2 * 50)
    storages = [
        t.untyped_storage().nbytes()
        for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)
    ]  # fmt: skip
    assert sum(storages) == optimizer.nbytes


@pytest.mark.parametrize("rank", [5, 100])
def test_full_rank_is_adam(rank):
    ours, theirs = parameters(torch.float32)[1:], parameters(torch.float32)[1:]
    optimizer, adam = Optimizer(ours, ProjectedAdam(rank), lr=0.02), torch.optim.Adam(theirs, lr=0.02)
    advance(ours, optimizer, 5, seed=3)
    advance(theirs, adam, 5, seed=3)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


def test_weight_decay_is_decoupled():
    ours, theirs = parameters(torch.float32)[2:], parameters(torch.float32)[2:]
    advance(ours, Optimizer(ours, ProjectedAdam(9), lr=0.02, weight_decay=0.3), 4, seed=3)
    advance(theirs, torch.optim.AdamW(theirs, lr=0.02, weight_decay=0.3), 4, seed=3)
    assert torch.allclose(ours[0], theirs[0], atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (8, 5, 2, 2)])
def test_the_direction_lies_in_the_gradients_leading_subspace(shape):
    grad = (seeded(shape[0], 2) @ seeded(2, shape[1] * (4 if len(shape) > 2 else 1), seed=1)).reshape(shape)
    transform, param = ProjectedAdam(2, betas=(0.0, 0.0)), torch.zeros(shape)
    state = transform.init(param)
    direction = transform.update(grad, state, param)
    assert direction.shape == param.shape
    matrix = grad.flatten(1) if shape[0] <= grad[0].numel() else grad.flatten(1).mT
    basis = state["basis"]
    assert torch.allclose(basis @ (basis.mT @ matrix), matrix, atol=1e-4)
    flat = direction.flatten(1) if shape[0] <= grad[0].numel() else direction.flatten(1).mT
    assert torch.allclose(flat, 0.25 * basis @ (basis.mT @ matrix).sign(), atol=1e-4)


def test_refreshing_follows_the_gradient_and_carries_the_moments():
    transform, param = ProjectedAdam(2, interval=1), torch.zeros(8, 20)
    state = transform.init(param)
    transform.update(seeded(8, 20), state, param)
    target = seeded(8, 2, seed=2) @ seeded(2, 20, seed=3)
    before = state["basis"] @ state["mean"]
    for _ in range(2):
        transform.update(target, state, param)
    basis = state["basis"]
    assert torch.allclose(basis.mT @ basis, torch.eye(2), atol=1e-5)
    assert torch.allclose(basis @ (basis.mT @ target), target, atol=1e-4)
    expected = 0.81 * basis @ (basis.mT @ before) + 0.19 * target
    assert torch.allclose(basis @ state["mean"], expected, atol=1e-4)
    assert (state["square"] >= 0).all()
    transform.update(torch.zeros(8, 20), state, param)
    assert torch.equal(state["basis"], basis)


class _Sketch:
    """A transform that keeps its mean as codes: state may hold formats."""

    def init(self, param):
        return {"mean": round_to_nearest(torch.zeros_like(param, dtype=torch.float32), 8)}

    def update(self, grad, state, param):
        mean = state["mean"].to_dense().mul(0.9).add(grad, alpha=0.1)
        state["mean"] = round_to_nearest(mean, 8)
        return mean


def test_state_may_hold_formats():
    param = torch.nn.Parameter(seeded(4, 32).bfloat16())
    optimizer = Optimizer([param], _Sketch())
    advance([param], optimizer, 2, seed=1)
    assert optimizer.nbytes == 4 * 32 + 4 * 2 + 4
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twin = Optimizer([torch.nn.Parameter(param.detach().clone())], _Sketch())
    twin.load_state_dict(torch.load(file, weights_only=True))
    found = next(iter(twin.state.values()))["mean"]
    assert isinstance(found, Quantized)
    assert torch.equal(found.to_dense(), optimizer.state[param]["mean"].to_dense())


def test_training_on_real_bytes_lowers_the_loss():
    text = torch.tensor(list(stdlib().joined()[:20000].encode()))
    text = text.clamp(max=127)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Embedding(128, 24), torch.nn.Flatten(), torch.nn.Linear(4 * 24, 64), torch.nn.GELU(),
        torch.nn.Linear(64, 128),
    )  # fmt: skip
    optimizer = Optimizer(model.parameters(), ProjectedAdam(8, interval=20), lr=0.02)
    losses = []
    for _ in range(120):
        start = torch.randint(0, len(text) - 5, (64,), generator=generator)
        loss = F.cross_entropy(model(text[start[:, None] + torch.arange(4)]), text[start + 4])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) / 10 < 0.65 * losses[0]
    adam = 8 * sum(p.numel() for p in model.parameters())
    assert optimizer.nbytes < 0.5 * adam


def test_refusals():
    with pytest.raises(ValueError, match="lr=-1 is negative"):
        Optimizer(parameters(torch.float32), ProjectedAdam(2), lr=-1)
    with pytest.raises(ValueError, match="rank=0 and interval=200"):
        ProjectedAdam(0)
    with pytest.raises(ValueError, match="betas"):
        ProjectedAdam(2, betas=(0.9, 1.0))
    params = parameters(torch.float32)
    params[0].grad = torch.full((6, 10), float("nan"))
    with pytest.raises(ValueError, match="holds 60 NaN"):
        Optimizer(params, ProjectedAdam(2)).step()


def dense_projected_adam(grads, rank, *, betas, eps, interval, scale):
    """The directions for these gradients (n, m), n ≤ m, by the docstring's formulas, in float64."""
    directions, P, mean, square = [], None, None, None
    for step, G in enumerate(grads):
        if step == 0:
            P = torch.linalg.svd(G, full_matrices=False)[0][:, :rank]
            mean = square = torch.zeros(rank, G.shape[1], dtype=torch.float64)
        elif step % interval == 0:
            new = torch.linalg.qr(G @ G.mT @ P).Q
            C = new.mT @ P
            carried = C @ mean
            square = C**2 @ (square - mean**2).clamp(min=0) + carried**2
            mean, P = carried, new
        projected = P.mT @ G
        mean = betas[0] * mean + (1 - betas[0]) * projected
        square = betas[1] * square + (1 - betas[1]) * projected**2
        hats = mean / (1 - betas[0] ** (step + 1)), square / (1 - betas[1] ** (step + 1))
        directions.append(scale * P @ (hats[0] / (hats[1].sqrt() + eps)))
    return directions


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (4, 4), (5, 3, 3)])
@pytest.mark.parametrize("interval", [1, 3, 200])
def test_projected_adam_takes_the_steps_of_its_formulas(shape, interval):
    options = {"betas": (0.8, 0.95), "eps": 0.01, "interval": interval, "scale": 0.7}
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(8)]
    for grad in grads:
        grad[0] = 0  # an input or output that is not in use
    transform, param = ProjectedAdam(rank=2, **options), torch.zeros(shape, dtype=torch.float64)
    state, tall = transform.init(param), shape[0] > math.prod(shape[1:])
    matrices = [g.flatten(1).mT if tall else g.flatten(1) for g in grads]
    for grad, expected in zip(grads, dense_projected_adam(matrices, 2, **options), strict=True):
        direction = transform.update(grad, state, param)
        assert direction.shape == shape
        torch.testing.assert_close(
            direction, (expected.mT if tall else expected).reshape(shape), rtol=1e-8, atol=1e-10
        )


@pytest.mark.parametrize(
    ("shape", "projects"), [((9,), False), ((2, 9), False), ((9, 2), False), ((3, 9), True), ((3, 1, 2), False)]
)
def test_vectors_and_matrices_as_thin_as_the_rank_have_adam_without_the_scale(shape, projects):
    transform, param = ProjectedAdam(rank=2, scale=0.5), torch.zeros(shape, dtype=torch.float64)
    state = transform.init(param)
    assert ("basis" in state) == projects
    if projects:
        assert state["mean"].shape == (2, 9)
        return
    reference = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    adam = torch.optim.Adam([reference], lr=1.0)
    for seed in range(4):
        grad = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        before, reference.grad = reference.detach().clone(), grad
        adam.step()
        torch.testing.assert_close(transform.update(grad, state, param), before - reference.detach())


@pytest.mark.parametrize("size", [2.0**40, 2.0**-20])
def test_bases_are_refreshed_by_gradients_of_any_size(size):
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(5, 9, generator=generator) for _ in range(3)]
    bases = []
    for factor in (1.0, size):
        transform, param = ProjectedAdam(rank=2, interval=1), torch.zeros(5, 9)
        state = transform.init(param)
        for grad in grads:
            transform.update(factor * grad, state, param)
        bases.append(state["basis"] @ state["basis"].mT)
    torch.testing.assert_close(*bases)


NAMED = {
    "adam": Adam, "muon": Muon, "smmf": SMMF, "8 bits": adam_8bit, "galore": lambda: galore(3, interval=2),
    "8 bits projected": lambda: StoredMoments(Projected(Adam(), PowerIteration(3), interval=2)),
}  # fmt: skip


def test_adam_is_torchs():
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    adam = torch.optim.AdamW(theirs, lr=0.02, weight_decay=0.3, betas=(0.8, 0.95), eps=1e-3)
    advance(ours, Optimizer(ours, Adam((0.8, 0.95), 1e-3), lr=0.02, weight_decay=0.3), 4, seed=3)
    advance(theirs, adam, 4, seed=3)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_state_held_is_what_each_rule_states():
    params = [torch.nn.Parameter(torch.zeros(384, 1024))]
    count = 384 * 1024
    expected = {
        "adam": 8 * count, "8 bits": 2 * count + 2 * 4 * count // 256, "galore": 4 * (384 + 2 * 1024) * 3,
        "8 bits projected": 4 * 384 * 3 + 2 * 3072 * 4,
        "smmf": count // 8 + 2 * 4 * (768 + 512), "muon": 4 * count,
    }  # fmt: skip
    for name, made in NAMED.items():
        optimizer = Optimizer(params, made(), lr=1e-3)
        params[0].grad = seeded(384, 1024)
        optimizer.step()
        assert optimizer.nbytes == expected[name], name
    for transform, kept in ((flora(4), 0), (dct_adaptive(4), 8 * 4)):
        optimizer = Optimizer(params, transform)
        optimizer.step()
        assert optimizer.nbytes == 2 * 4 * 4 * 1024 + kept


def test_a_gradient_that_is_not_finite_is_refused_by_name_skipped_or_let_through():
    for bad in (torch.nan, torch.inf):
        model = torch.nn.Linear(3, 2)
        before = model.weight.detach().clone()
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        model.bias.grad[1] = bad
        with pytest.raises(ValueError, match="the gradient of bias holds"):
            Optimizer(model.named_parameters(), Adam()).step()
        skipping = Optimizer(model.parameters(), Adam(), bad="skip")
        skipping.step()
        assert (skipping.skipped, len(skipping.state)) == (1, 0)
        assert torch.equal(model.weight, before)
        Optimizer(model.parameters(), Adam(), bad="keep").step()
        assert not torch.equal(model.weight, before)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="parameter 0 is complex"):
        Optimizer([torch.nn.Parameter(torch.zeros(3, dtype=torch.complex64))], Adam())
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="the gradient of weight is sparse"):
        Optimizer(embedding.named_parameters(), Adam()).step()
    with pytest.raises(TypeError, match="has no init; give one such as"):
        Optimizer(parameters(torch.float32), torch.optim.Adam)
    with pytest.raises(ValueError, match="bad='drop' is not known"):
        Optimizer(parameters(torch.float32), Adam(), bad="drop")


def test_the_state_of_another_rule_or_shape_is_refused_and_changes_nothing():
    params = parameters(torch.float32)
    optimizer = Optimizer(params, Adam())
    advance(params, optimizer, 2, seed=1)
    before = copy.deepcopy(optimizer.state_dict())
    saved = {name: Optimizer(parameters(torch.float32), made()) for name, made in NAMED.items() if name != "adam"}
    for name in ("muon", "smmf", "galore"):
        advance(saved[name].param_groups[0]["params"], saved[name], 1, seed=2)
        with pytest.raises(ValueError, match="load it into one with the same transform"):
            optimizer.load_state_dict(saved[name].state_dict())
    other = Optimizer([torch.nn.Parameter(seeded(*p.shape).mT.clone()) if p.ndim > 1 else p for p in params], Adam())
    advance(other.param_groups[0]["params"], other, 1, seed=2)
    with pytest.raises(ValueError, match=r"mean of parameter 0 has shape \(10, 6\) in this state and \(6, 10\)"):
        optimizer.load_state_dict(other.state_dict())
    after = optimizer.state_dict()
    for i, state in before["state"].items():
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(after["state"][i][k])) for k, v in state.items())


def test_groups_may_have_rules_of_their_own_and_schedulers_set_their_rates():
    matrix, vector = parameters(torch.float32)[1:]
    optimizer = Optimizer(
        [{"params": [matrix]}, {"params": [vector], "transform": Adam(), "lr": 0.5}], Muon(), lr=0.1
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    start = vector.detach().clone()
    advance([matrix, vector], optimizer, 1, seed=1)
    torch.testing.assert_close((start - vector.detach()).abs(), torch.full_like(vector, 0.5))
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.25]
    saved = optimizer.state_dict()
    assert all("transform" not in group for group in saved["param_groups"])
    optimizer.load_state_dict(saved)
    assert isinstance(optimizer.param_groups[1]["transform"], Adam)


def test_bases_of_different_parameters_are_refreshed_on_different_steps():
    params = [torch.nn.Parameter(seeded(6, 10, seed=i)) for i in range(3)]
    optimizer, changed = Optimizer(params, Projected(Adam(), CosineColumns(2), interval=3)), []
    for step in range(7):
        before = [optimizer.state[p].get("basis") for p in params]
        advance(params, optimizer, 1, seed=50 * step)
        changed.append([optimizer.state[p]["basis"] is not b for p, b in zip(params, before, strict=True)])
    assert changed[0] == [True] * 3
    assert sorted(map(sum, changed[1:])) == [1] * 6


@pytest.mark.parametrize("signed", [True, False])
def test_codes_of_eight_bits_are_the_nearest_levels(signed):
    levels = dynamic_levels(signed=signed)
    assert torch.equal(levels.diff() > 0, torch.ones(255, dtype=torch.bool))
    x = seeded(50, 300) * torch.logspace(-8, 8, 50)[:, None]
    x = x if signed else x.abs()
    stored = encode_blocks(x, 64, signed=signed)
    blocks = torch.nn.functional.pad(x.reshape(-1), (0, -x.numel() % 64)).view(-1, 64)
    scales = blocks.abs().amax(1, keepdim=True)
    torch.testing.assert_close(stored["scales"], scales[:, 0])
    nearest = (blocks[..., None] / scales[..., None] - levels).abs().min(-1).values * scales
    off = (decode_blocks(stored, signed=signed) - x).reshape(-1).abs()
    slack = 2**-7 * x.reshape(-1).abs()
    assert bool(
        (off <= nearest.view(-1)[: x.numel()] + slack + 1e-6 * scales.expand(-1, 64).reshape(-1)[: x.numel()]).all()
    )
    kept = encode_blocks(levels.view(1, -1), 256, signed=signed)
    torch.testing.assert_close(decode_blocks(kept, signed=signed)[0], levels)


def test_gradients_whose_sum_alone_overflows_are_used():
    param = torch.nn.Parameter(torch.zeros(4))
    param.grad = torch.full((4,), 2e38)
    Optimizer([param], Adam(), lr=0.5).step()
    assert bool(torch.isfinite(param).all())
