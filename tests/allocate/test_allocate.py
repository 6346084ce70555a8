"""One budget over many items: what each allocation says of itself beyond the contract."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.allocate import Curve, block_influence, equal_error, global_threshold, uniform
from polyad.allocate.curve import WHOLE


@st.composite
def curves(draw, choices=6):
    """Errors of a falling spectrum at ranks 1, 2, …, of which those beyond the last choice would cost too much."""
    count = draw(st.integers(1, choices))
    price = draw(st.integers(1, 5))
    squares = sorted(draw(st.lists(st.integers(0, 50), min_size=count + 1, max_size=count + 4)), reverse=True)
    sweep = np.array([sum(squares[i:]) for i in range(len(squares) + 1)], dtype=float)
    costs = np.cumsum(draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))) * float(price)
    sizes = np.array([*range(1, count), WHOLE])
    return Curve(sizes, costs, np.array([*sweep[1:count], 0.0]), sweep)


@st.composite
def problems(draw):
    items = {f"item{i}": draw(curves()) for i in range(draw(st.integers(1, 3)))}
    least, whole = (sum(float(c.costs[at]) for c in items.values()) for at in (0, -1))
    return items, draw(st.integers(int(least), int(whole) + 3))


def places(items, sizes):
    return {name: list(curve.sizes).index(sizes[name]) for name, curve in items.items()}


def cost(items, at):
    return sum(float(items[name].costs[place]) for name, place in at.items())


def test_equal_error_knows_that_a_curve_may_never_reach_a_level():
    never = Curve(np.array([1, WHOLE]), np.array([1.0, 2.0]), np.array([1.0, 0.5]))
    free = Curve(np.array([1, 2, WHOLE]), np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.4, 0.0]))
    assert equal_error({"never": never, "free": free}, 4.0) == {"never": WHOLE, "free": 2}


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_global_threshold_is_one_threshold(problem):
    """Some k gives every item at least the ranks above it, and no lower k that changes a rank would fit."""
    items, budget = problem

    def above(k):
        chosen = {}
        for name, curve in items.items():
            values = np.sqrt(np.maximum(-np.diff(curve.sweep), 0))
            rank = int((values > k * max(values.max(), 1e-300) * (1 + 1e-9)).sum())
            chosen[name] = next((i for i, r in enumerate(curve.sizes) if r >= rank), len(curve.sizes) - 1)
        return chosen

    shares = {1.0, 0.0}
    for curve in items.values():
        values = np.sqrt(np.maximum(-np.diff(curve.sweep), 0))
        shares |= set((values / max(values.max(), 1e-300)).tolist())
    fitting = [above(k) for k in sorted(shares, reverse=True) if cost(items, above(k)) <= budget]
    at = places(items, global_threshold(items, budget))
    assert all(at[name] >= place for name, place in fitting[-1].items())
    spare = budget - cost(items, fitting[-1])
    assert cost(items, at) - cost(items, fitting[-1]) <= spare + 1e-9


def test_global_threshold_compares_with_the_largest_singular_value_also_beyond_the_choices():
    values = np.array([8.0, 4.0, 2.0, 1.0])
    sweep = np.append((values**2)[::-1].cumsum()[::-1], 0.0)
    dear = Curve(np.array([1, 2, WHOLE]), np.array([3.0, 6.0, 8.0]), np.array([*sweep[1:3], 0.0]), sweep)
    other = Curve(np.array([1, 2, WHOLE]), np.array([3.0, 6.0, 8.0]), np.array([*sweep[1:3], 0.0]) * 9, sweep * 9)
    assert global_threshold({"a": dear, "b": other}, 12.0) == {"a": 2, "b": 2}  # scale does not matter
    assert global_threshold({"a": dear, "b": other}, 16.0) == {"a": WHOLE, "b": WHOLE}


def test_global_threshold_refuses_what_is_no_rank():
    bits = Curve(np.array([2, 3, WHOLE]), np.array([2.0, 3.0, 16.0]), np.array([4.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match=r"its sizes are not ranks.*allocate with greedy"):
        global_threshold({"layer": bits}, 8.0)


def test_uniform_gives_equal_items_equal_shares():
    curve = Curve(np.arange(1, 11), np.arange(1.0, 11.0), np.arange(9.0, -1.0, -1.0))
    assert uniform(dict.fromkeys("abc", curve), 15.0) == {"a": 5, "b": 5, "c": 5}
    assert sorted(uniform(dict.fromkeys("abc", curve), 17.0).values()) in ([5, 5, 7], [5, 6, 6])


def test_curves_refuse_what_is_none():
    with pytest.raises(ValueError, match="2 sizes, 1 costs"):
        Curve(np.array([1, 2]), np.array([1.0]), np.array([1.0]))
    for costs, errors in (([1.0, 1.0], [1.0, 0.0]), ([1.0, 2.0], [np.nan, 0.0])):
        with pytest.raises(ValueError, match="finite errors and costs that rise"):
            Curve(np.array([1, 2]), np.array(costs), np.array(errors))


def fine(steps=2000):
    return Curve(np.arange(1, steps + 1), np.arange(1.0, steps + 1), np.linspace(1, 0, steps))


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_block_influence_is_the_papers_softmax(temperature):
    """φ = L φ̄ softmax(-s / ε), where no layer would lose more than all of itself."""
    scores = {"first": 0.30, "middle": 0.22, "late": 0.20, "last": 0.25}
    items, mean = dict.fromkeys(scores, fine()), 0.2
    found = block_influence(items, 4 * 2000 * (1 - mean), scores=scores, temperature=temperature)
    softmax = np.exp(-np.array([*scores.values()]) / temperature)
    softmax /= softmax.sum()
    sparsity = 1 - np.array([found[name] for name in scores]) / 2000
    np.testing.assert_allclose(sparsity, 4 * mean * softmax, atol=2e-3)


def test_block_influence_cuts_no_layer_by_more_than_all_of_it():
    scores = {"a": 0.0, "b": 0.5, "c": 0.6}
    found = block_influence(dict.fromkeys(scores, fine()), 2000.0, scores=scores, temperature=0.1)
    assert found["a"] == 1
    left = [1 - found[name] / 2000 for name in "bc"]
    assert left[0] / left[1] == pytest.approx(np.exp(1.0), abs=0.01)
    assert sum(found.values()) == 2000


def test_block_influence_refuses_what_it_cannot_use():
    items = {"a": fine(4), "b": fine(4)}
    with pytest.raises(ValueError, match=r"scores holds no finite score of b; give 1 - E\[cos"):
        block_influence(items, 4.0, scores={"a": 0.1})
    with pytest.raises(ValueError, match=r"temperature=0 is not above 0"):
        block_influence(items, 4.0, scores={"a": 0.1, "b": 0.2}, temperature=0)
    far = block_influence(items, 4.0, scores={"a": 0.0, "b": 1e6})
    assert far == {"a": 1, "b": 3}
