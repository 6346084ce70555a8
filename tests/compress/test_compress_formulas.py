"""Factorisations of weights, and the three rules of modegpt, against dense computations of what their docstrings
state, in float64."""

import pytest
import torch

from polyad._card import card
from polyad.compress import eora, lord, modegpt, welore
from polyad.models.blocks import Block
from polyad.statistics import Moments


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(n, seed=0):
    """A second moment of unequal directions."""
    x = seeded(3 * n, n, seed=seed) @ seeded(n, n, seed=seed + 1)
    return x.mT @ x / len(x)


def near(result, expected, tol=1e-7):
    torch.testing.assert_close(result, expected, rtol=tol, atol=tol * float(expected.abs().max()))


def half(matrix, power):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values**power @ vectors.mT


def best(matrix, rank):
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * s[:rank] @ v[:rank], s


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_eora_and_lord_are_the_best_of_their_rank_in_the_metric_of_the_inputs(shape, rank):
    weight, second = seeded(*shape), moment(shape[1], seed=3)
    whitened, s = best(weight @ half(second, 0.5), rank)
    expected = whitened @ half(second, -0.5)
    stats = Moments(20, second=second)
    low = eora(weight, stats, rank)
    near(low.to_dense(), expected)
    ratio = (low.left.norm(dim=0) / low.right.norm(dim=1)).log2()
    assert float(ratio.abs().max()) <= 1 + 1e-9  # of about one size, up to a power of two
    kept = lord(weight, stats, rank)
    near(kept.to_dense(), expected)
    near(kept.left.mT @ kept.left, torch.eye(rank, dtype=torch.float64))
    lost = torch.stack([s[k:].square().sum() for k in range(len(s) + 1)])
    for name in ("eora", "lord"):
        near(card(name).curve(weight, stats), lost)
    for method in (eora, lord):
        with pytest.raises(ValueError, match=r"^rank=8 exceeds the smaller side"):
            method(weight, stats, 8)


@pytest.mark.parametrize("shape", [(7, 5), (5, 7)])
def test_lord_of_centred_outputs_takes_the_covariance(shape):
    weight, x = seeded(*shape), seeded(40, shape[1], seed=3) @ seeded(shape[1], shape[1], seed=4) + 3
    mean, second = x.mean(0), x.mT @ x / len(x)
    covariance = (x - mean).mT @ (x - mean) / len(x)
    kept = lord(weight, Moments(20, second=second, mean=mean), 2, centre=True)
    whitened, s = best(weight @ half(covariance, 0.5), 2)
    near(kept.to_dense(), whitened @ half(covariance, -0.5))
    curve = card("lord").curve(weight, Moments(20, second=second, mean=mean), centre=True)
    near(curve, torch.stack([s[k:].square().sum() for k in range(6)]))
    assert not torch.allclose(kept.to_dense(), lord(weight, Moments(20, second=second), 2).to_dense())


def test_welore_balances_the_truncated_svd():
    weight = seeded(7, 5)
    low, (expected, s) = welore(weight, None, 3), best(weight, 3)
    near(low.to_dense(), expected)
    near(low.left.norm(dim=0), s[:3].sqrt())
    near(low.right.norm(dim=1), s[:3].sqrt())
    near(card("welore").curve(weight, None), torch.stack([s[k:].square().sum() for k in range(6)]))


@pytest.mark.parametrize("keep", [1, 4, 8])
@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_modegpt_keeps_the_neurons_of_largest_leverage_and_fits_the_output(keep, ridge):
    inner, width = 8, 5
    weights = {
        "gate.weight": seeded(inner, width), "up.weight": seeded(inner, width, seed=1),
        "up.bias": seeded(inner, seed=2), "down.weight": seeded(width, inner, seed=3),
    }  # fmt: skip
    C = moment(inner, seed=4)
    block = Block("mlp", "mlp", {role: role for role in ("gate", "up", "down")}, 0)
    new = modegpt(block, weights, {"down": Moments(30, second=C)}, keep, ridge=ridge).weights
    damped = C + ridge * C.diagonal().mean() * torch.eye(inner)
    leverage = (C @ torch.linalg.inv(damped)).diagonal()
    order = leverage.argsort(descending=True)
    chosen = order[:keep].sort().values
    for name in ("gate.weight", "up.weight", "up.bias"):
        assert torch.equal(new[name], weights[name][chosen])
    W = weights["down.weight"]
    fitted = W @ C[:, chosen] @ torch.linalg.inv(C[chosen][:, chosen])
    near(new["down.weight"], fitted, 1e-3)  # solved with a little damping
    curve = card("modegpt").curve(block, weights, {"down": Moments(30, second=C)}, ridge=ridge)
    missed = W.clone()
    missed[:, chosen] -= fitted
    assert float(curve[keep]) == pytest.approx(float((missed @ C @ missed.mT).trace()), rel=1e-2, abs=1e-2)
    assert set(new) == set(weights)


HEADS, KEY_HEADS, WIDTH, IN = 4, 2, 6, 7


def attention(kind):
    roles = {"qk": ("q", "k"), "vo": ("v", "o")}[kind]
    block = Block("at", kind, {r: r for r in roles}, 0, heads=HEADS, key_heads=KEY_HEADS, width=WIDTH, home="at")
    weights = {
        "q.weight": seeded(HEADS * WIDTH, IN), "q.bias": seeded(HEADS * WIDTH, seed=1),
        "k.weight": seeded(KEY_HEADS * WIDTH, IN, seed=2), "v.weight": seeded(KEY_HEADS * WIDTH, IN, seed=3),
        "v.bias": seeded(KEY_HEADS * WIDTH, seed=4), "o.weight": seeded(IN, HEADS * WIDTH, seed=5),
    }  # fmt: skip
    return block, {name: t for name, t in weights.items() if name[0] in roles}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_modegpt_keeps_the_rotation_pairs_of_largest_product_in_each_key_head(keep):
    block, weights = attention("qk")
    q, k = seeded(HEADS * WIDTH, seed=8).square(), seeded(KEY_HEADS * WIDTH, seed=9).square()
    stats = {"q": Moments(9, output_square=q), "k": Moments(9, output_square=k)}
    replacement = modegpt(block, weights, stats, keep)
    group, pairs = HEADS // KEY_HEADS, WIDTH // 2
    lost = torch.zeros(pairs + 1, dtype=torch.float64)
    for head in range(KEY_HEADS):
        products = []
        for pair in range(pairs):
            mine = [
                float(q[h * WIDTH + c]) for h in range(head * group, (head + 1) * group) for c in (pair, pair + pairs)
            ]
            products.append(sum(mine) * sum(float(k[head * WIDTH + c]) for c in (pair, pair + pairs)))
        order = sorted(range(pairs), key=lambda i: -products[i])
        chosen = sorted(order[:keep])
        assert replacement.forward[block.home]["pairs"][head].tolist() == chosen
        for i, pair in enumerate(order):
            lost[: i + 1] += products[pair]
        columns = torch.tensor(chosen + [c + pairs for c in chosen])
        for role, heads in (("q", range(head * group, (head + 1) * group)), ("k", (head,))):
            for h in heads:
                rows = replacement.weights[f"{role}.weight"].unflatten(0, (-1, 2 * keep))[h]
                assert torch.equal(rows, weights[f"{role}.weight"][h * WIDTH + columns])
    biases = replacement.weights["q.bias"].unflatten(0, (HEADS, -1))
    pairs_of = replacement.forward[block.home]["pairs"].repeat_interleave(group, 0)
    for h in range(HEADS):
        columns = torch.cat((pairs_of[h], pairs_of[h] + pairs))
        assert torch.equal(biases[h], weights["q.bias"][h * WIDTH + columns])
    near(card("modegpt").curve(block, weights, stats), lost)


@pytest.mark.parametrize("keep", [1, 3, 6])
@pytest.mark.parametrize("biased", [True, False])
def test_modegpt_truncates_values_and_outputs_of_a_key_head_together(keep, biased):
    block, weights = attention("vo")
    bias = weights["v.bias"] if biased else weights.pop("v.bias") * 0
    C = moment(IN, seed=11)
    replacement = modegpt(block, weights, {"v": Moments(30, second=C)}, keep)
    group, lost = HEADS // KEY_HEADS, torch.zeros(WIDTH + 1, dtype=torch.float64)
    v, o = replacement.weights["v.weight"].unflatten(0, (KEY_HEADS, keep)), replacement.weights["o.weight"]
    o = o.unflatten(1, (HEADS, keep))
    wide = weights["o.weight"].unflatten(1, (HEADS, WIDTH))
    for head in range(KEY_HEADS):
        heads = range(head * group, (head + 1) * group)
        maps = torch.cat([wide[:, h] @ weights["v.weight"][head * WIDTH : (head + 1) * WIDTH] for h in heads])
        whitened, s = best(maps @ half(C, 0.5), keep)
        near(torch.cat([o[:, h] @ v[head] for h in heads]), whitened @ half(C, -0.5), 1e-6)
        lost += torch.stack([s[k:WIDTH].square().sum() for k in range(WIDTH + 1)])
    near(card("modegpt").curve(block, weights, {"v": Moments(30, second=C)}), lost, 1e-6)
    assert replacement.forward[block.home] == {"value_width": keep}
    assert ("o.bias" in replacement.weights) == biased
    if biased:
        by_head = bias.unflatten(0, (KEY_HEADS, WIDTH)).repeat_interleave(group, 0)
        near(replacement.weights["o.bias"], sum(wide[:, h] @ by_head[h] for h in range(HEADS)))
        assert not replacement.weights["v.bias"].any()


def test_modegpt_refuses_more_than_a_block_has():
    for kind, units in (("qk", 3), ("vo", 6)):
        block, weights = attention(kind)
        with pytest.raises(ValueError, match=f"^keep={units + 1} exceeds the block's {units} units"):
            modegpt(block, weights, {}, units + 1)
