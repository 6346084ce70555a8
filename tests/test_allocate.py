"""One budget over many items: what every allocation keeps, and what each minimises."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.allocate import Curve, block_influence, equal_error, global_threshold, greedy, uniform
from polyad.allocate.curve import WHOLE
from polyad.allocate.greedy import lower_hull


def by_influence(items, budget):
    return block_influence(items, budget, scores={name: 0.1 * i for i, name in enumerate(items)})


ALL = (uniform, equal_error, greedy, by_influence, global_threshold)


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
def rough(draw, choices=6):
    """Errors that fall in steps of any size, and now and then rise: no spectrum."""
    curve = draw(curves(choices))
    count = len(curve.sizes)
    errors = draw(st.lists(st.integers(0, 100), min_size=count, max_size=count))
    errors = errors if draw(st.booleans()) else sorted(errors, reverse=True)
    return Curve(curve.sizes, curve.costs, np.array([*errors[:-1], 0.0]))


@st.composite
def problems(draw, kind=curves):
    items = {f"item{i}": draw(kind()) for i in range(draw(st.integers(1, 3)))}
    least, whole = (sum(float(c.costs[at]) for c in items.values()) for at in (0, -1))
    return items, draw(st.integers(int(least), int(whole) + 3))


def places(items, sizes):
    return {name: list(curve.sizes).index(sizes[name]) for name, curve in items.items()}


def cost(items, at):
    return sum(float(items[name].costs[place]) for name, place in at.items())


def error(items, at):
    return sum(float(items[name].errors[place]) for name, place in at.items())


def every(items):
    for chosen in itertools.product(*(range(len(curve.sizes)) for curve in items.values())):
        yield dict(zip(items, chosen, strict=True))


@pytest.mark.parametrize(("allocate", "kind"), [*((a, curves) for a in ALL), *((a, rough) for a in ALL[:4])])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_allocation_exceeds_its_budget_or_wastes_it(allocate, kind, data):
    items, budget = data.draw(problems(kind))
    at = places(items, allocate(items, budget))
    assert cost(items, at) <= budget * (1 + 1e-9)
    left = budget - cost(items, at)
    for name, curve in items.items():
        for larger in range(at[name] + 1, len(curve.sizes)):
            if curve.costs[larger] - curve.costs[at[name]] <= left - 1e-9:
                assert curve.errors[larger] >= curve.errors[at[name]], f"{name} could still be {curve.sizes[larger]}"


@settings(max_examples=60, deadline=None)
@given(problem=problems(rough))
def test_greedy_is_within_one_step_of_the_least_sum(problem):
    items, budget = problem
    best = min(error(items, at) for at in every(items) if cost(items, at) <= budget)
    step = max(
        float(curve.errors[a] - curve.errors[b])
        for curve in items.values()
        for a, b in itertools.pairwise([*lower_hull(curve), len(curve.sizes) - 1])
    )
    assert error(items, places(items, greedy(items, budget))) <= best + step + 1e-9


def test_greedy_finds_the_optimum_where_every_step_costs_the_same():
    generator = np.random.default_rng(0)
    for _ in range(20):
        items = {}
        for name in "abc":
            squares = np.sort(generator.random(5))[::-1]
            items[name] = Curve(
                np.arange(1, 6), np.arange(1.0, 6.0), np.append(squares[::-1].cumsum()[::-1][1:], 0.0)
            )
        for budget in range(3, 16):
            best = min(error(items, at) for at in every(items) if cost(items, at) <= budget)
            assert error(items, places(items, greedy(items, budget))) == pytest.approx(best)


@settings(max_examples=60, deadline=None)
@given(problem=problems(rough))
def test_equal_error_minimises_the_largest_relative_error(problem):
    items, budget = problem

    def worst(at):
        return max(float(c.errors[at[n]]) / max(float(c.errors[0]), 1e-300) for n, c in items.items())

    best = min(worst(at) for at in every(items) if cost(items, at) <= budget)
    assert worst(places(items, equal_error(items, budget))) == pytest.approx(best)


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


@pytest.mark.parametrize("allocate", ALL)
def test_a_budget_out_of_reach_names_the_nearest_and_a_large_one_leaves_all_whole(allocate):
    sweep = np.array([9.0, 4.0, 1.0, 0.0])
    curve = Curve(np.array([1, 2, WHOLE]), np.array([2.0, 4.0, 5.0]), np.array([4.0, 1.0, 0.0]), sweep)
    items = {"a": curve, "b": curve}
    with pytest.raises(ValueError, match=r"cost 10 as they are and at least 4 .* nearest is a share of 0\.4000"):
        allocate(items, 3.9)
    with pytest.raises(ValueError, match="no allocation meets the budget of nan"):
        allocate(items, float("nan"))
    with pytest.raises(ValueError, match="items is empty"):
        allocate({}, 3.0)
    assert allocate(items, 10.0) == {"a": WHOLE, "b": WHOLE}


@pytest.mark.parametrize("allocate", ALL)
def test_items_without_error_stay_at_their_cheapest_or_grow_for_nothing_worse(allocate):
    zero = Curve(np.array([1, WHOLE]), np.array([1.0, 4.0]), np.zeros(2), np.zeros(5))
    one = Curve(np.array([1, WHOLE]), np.array([1.0, 4.0]), np.array([1.0, 0.0]), np.array([2.0, 1.0, 0.0]))
    assert allocate({"zero": zero, "one": one}, 5.0)["one"] == WHOLE


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
