"""Which factor of LoRA is trained, and how fast."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from polyad._card import card
from polyad.adapters import Adapters, LoRA
from polyad.testing import adapters


@pytest.mark.parametrize("check", adapters.CHECKS, ids=[check.__name__ for check in adapters.CHECKS])
@pytest.mark.parametrize("kind", ["linear", "conv2d", "experts"])
@pytest.mark.parametrize("trained", ["A", "B"])
def test_one_trained_factor_keeps_the_contract(check, kind, trained):
    check(replace(card("lora"), example={"rank": 2, "trained": trained}), kind)


@pytest.mark.parametrize(("trained", "count"), [("both", 28), ("A", 16), ("B", 12)])
def test_what_is_not_trained_is_orthonormal_and_not_stored(trained, count):
    made = LoRA((6, 8), rank=2, trained=trained, generator=torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in made.parameters()) == count
    assert sorted(made.state_dict()) == (["A", "B"] if trained == "both" else [trained])
    frozen = {"A": made.B.mT, "B": made.A}.get(trained)
    if frozen is not None:
        torch.testing.assert_close(frozen @ frozen.mT, torch.eye(2))


def test_other_factors_are_refused():
    with pytest.raises(ValueError, match="trained='C' is no factor; choose 'both', 'A' or 'B'"):
        LoRA((6, 8), rank=2, trained="C")


def test_b_alone_may_have_a_rate_of_its_own():
    hosted = Adapters(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)))
    hosted.attach("mine", "*", LoRA, rank=2)
    rates = {p["lr"]: [tuple(t.shape) for t in p["params"]] for p in hosted.groups("mine", 1e-3, {"*.B": 16})}
    assert rates == {1e-3: [(2, 6), (2, 8)], 16e-3: [(8, 2), (4, 2)]}
