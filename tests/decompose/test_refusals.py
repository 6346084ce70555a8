"""Arguments that no decomposition can use are refused in a sentence, whatever the method."""

import inspect

import pytest
import torch

import polyad.algorithms
import polyad.decompose  # noqa: F401
from polyad._card import methods
from polyad.algorithms import maxvol
from polyad.decompose import cp_als, nmf, sparse_cp_als, st_hosvd, tt_cross, tt_svd
from polyad.testing._decomposition import draw_tensor

CARDS = [card for kind in ("decompose", "solve") for card in methods(kind)]


def takes(name):
    return [card for card in CARDS if name in inspect.signature(card.function).parameters]


def call(card, **changes):
    """The method on the example of its card, or on numbers that it never comes to look at."""
    parameters = inspect.signature(card.function).parameters
    values = {name: value for name, value in card.example.items() if name in parameters and name != "x"}
    first, *others = [name for name, one in parameters.items() if one.default is inspect.Parameter.empty]
    fill = {name: torch.ones(3, 3) for name in others if name not in values}
    x = draw_tensor(card) if card.kind == "decompose" else torch.ones(3, 3)
    return card.function(**{first: x} | fill | values | changes)


@pytest.mark.parametrize("card", takes("max_iter"), ids=lambda card: card.name)
def test_negative_counts_of_iterations_are_refused(card):
    with pytest.raises(ValueError, match=r"max_iter=-1 is below \d; choose"):
        call(card, max_iter=-1)
    with pytest.raises(TypeError, match=r"max_iter=2\.5 is no whole number"):
        call(card, max_iter=2.5)


@pytest.mark.parametrize("card", takes("stop"), ids=lambda card: card.name)
@pytest.mark.parametrize("stop", [float("nan"), -1e-3])
def test_changes_to_stop_at_that_are_no_numbers_are_refused(card, stop):
    with pytest.raises(ValueError, match=f"stop={stop} is no relative change; give a number from 0"):
        call(card, stop=stop)


def test_the_checks_are_tried_on_enough_methods():
    assert len(takes("max_iter")) >= 18
    with pytest.raises(ValueError, match="max_iter=-1"):
        maxvol(torch.eye(3)[:, :2], max_iter=-1)


COMPLEX = {"svd", "st_hosvd", "hooi", "tt_svd", "cp_als"}
"""Decompositions of complex tensors too, which the contract holds to them."""


@pytest.mark.parametrize(
    "card", [c for c in methods("decompose") if c.name not in COMPLEX], ids=lambda card: card.name
)
def test_complex_tensors_are_never_told_to_drop_a_part(card):
    x = draw_tensor(card)
    if x.is_sparse:
        return
    with pytest.raises(TypeError, match=r"x.abs\(\) for magnitudes, or torch.view_as_real\(x\)"):
        card.function(x.to(torch.complex128), **{k: v for k, v in card.example.items() if k != "x"})


@pytest.mark.parametrize("card", methods("decompose"), ids=lambda card: card.name)
def test_sparse_tensors_are_taken_or_the_remedy_is_named(card):
    x = draw_tensor(card)
    x = x if x.is_sparse else x.to_sparse()
    arguments = {name: value for name, value in card.example.items() if name != "x"}
    if card.name in ("sparse_cp_als", "nmf"):
        x = x.to_dense()[0].abs().to_sparse() if card.name == "nmf" else x
        assert card.function(x, **arguments).shape == tuple(x.shape)
    else:
        with pytest.raises(ValueError, match=r"x is sparse .*x.to_dense\(\)"):
            card.function(x, **arguments)


@pytest.mark.parametrize("rank", [[2, 2], 2.0, "2", True])
def test_the_largest_rank_of_a_cross_is_one_whole_number(rank):
    with pytest.raises(TypeError, match="is no whole number; give the largest rank that any bond may have"):
        tt_cross(lambda index: index.double().sum(1), (4, 4, 4), rank=rank)


def test_zero_iterations_leave_the_start():
    x = torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert cp_als(x, 2, max_iter=0).shape == x.shape
    assert st_hosvd(x, (2, 2, 2)).shape == tt_svd(x, 2).shape == x.shape
    assert nmf(x[0], 2, max_iter=0).shape == (5, 4)
    assert sparse_cp_als(x.to_sparse(), 2, max_iter=0).shape == x.shape
