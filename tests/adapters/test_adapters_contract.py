"""Every adapter of the catalogue, held to the public contract on every kind of layer that it is for."""

import pytest
import torch
from torch import nn

import polyad.adapters  # noqa: F401
from polyad import _check
from polyad._card import Card, Paper, _catalogue, methods
from polyad.adapters import LoRA
from polyad.formats import LowRank
from polyad.testing import adapters

CASES = {
    f"{card.name}-{kind}-{check.__name__}": (card, kind, check)
    for card in methods("adapter")
    for kind in adapters.layers(card)
    for check in adapters.CHECKS
}


@pytest.mark.parametrize(("card", "kind", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, kind, check):
    check(card, kind)


class Moved(LoRA):
    def __init__(self, shape, *, rank=2):
        super().__init__(shape, rank=rank)
        nn.init.ones_(self.B)


class Stuck(LoRA):
    """Starts where no factor has a gradient."""

    def __init__(self, shape, *, rank=2):
        super().__init__(shape, rank=rank)
        nn.init.zeros_(self.A)


class Descending(LoRA):
    """Is trained against its own change."""

    def forward(self, x, y, base):
        change = super().forward(x, y, base)
        return 2 * change.detach() - change


class Inverse(LoRA):
    def __init__(self, shape, *, rank=2, alpha=None):
        super().__init__(shape, rank=rank)
        self.scale = rank / (rank if alpha is None else alpha)


class Unheard(LoRA):
    def __init__(self, shape, *, rank=2, alpha=None):
        super().__init__(shape, rank=rank)


class Elsewhere(LoRA):
    def __init__(self, shape, *, rank=2, alpha=None):
        super().__init__(shape, rank=rank, alpha=1 if alpha is None else alpha)


class Undivided(LoRA):
    """Multiplies by ``alpha``, and by the rank where none is given."""

    def __init__(self, shape, *, rank=2, alpha=None):
        super().__init__(shape, rank=rank)
        self.scale = rank if alpha is None else alpha


class Tight(LoRA):
    """Refuses the largest rank."""

    def __init__(self, shape, *, rank=2):
        super().__init__(shape, rank=_check.rank(rank + 1, min(shape), "the shorter side") - 1)


class Withheld(LoRA):
    """Names a limit that it refuses."""

    def __init__(self, shape, *, rank=2):
        if rank >= 12:
            raise ValueError(f"rank={rank} exceeds the shorter side; choose from 1 to 12")
        super().__init__(shape, rank=rank)


class Longer(LoRA):
    """Takes the longer side for the shorter one."""

    def __init__(self, shape, *, rank=2):
        super().__init__(shape, rank=_check.rank(rank, max(shape), "the shorter side"), beyond=True)


class Half(LoRA):
    """Names a part of what it was given."""

    def __init__(self, shape, *, rank=2):
        super().__init__(shape, rank=(rank + 1) // 2)


class Other(LoRA):
    def forward(self, x, y, base):
        return 2 * super().forward(x, y, base)


class Noisy(LoRA):
    def update(self, base):
        return LowRank(self.B, self.A + torch.rand(()))


class Mixed(LoRA):
    def forward(self, x, y, base):
        return super().forward(x.mean(0, keepdim=True).expand(x.shape), y, base)


class Forgotten(LoRA):
    def __init__(self, shape, *, rank=2):
        super().__init__(shape, rank=rank)
        self.register_buffer("own", torch.rand(()), persistent=False)

    def update(self, base):
        return LowRank(self.B * self.own, self.A)


class Detached(LoRA):
    def update(self, base):
        return LowRank(self.B, self.A.detach() + 0 * self.A)


class Deaf(LoRA):
    drops = True


class Dense(LoRA):
    def update(self, base):
        low = LowRank(self.B, self.A)
        return LowRank(low.to_dense(), torch.eye(self.A.shape[1]))


class Broken(LoRA):
    def update(self, base):
        torch._dynamo.graph_break()
        return super().update(base)


class Forgiving(LoRA):
    def update(self, base):
        return LowRank(self.B.nan_to_num(), self.A.nan_to_num())


SPOILT = {
    "start": [Moved], "learning": [Stuck, Descending], "alpha": [Inverse, Unheard, Elsewhere, Undivided],
    "sizes": [Tight, Withheld, Longer, Half], "merge": [Other],
    "sums": [Noisy], "several": [Other], "rows": [Mixed], "storage": [Forgotten], "gradients": [Detached],
    "dropout": [Deaf], "no_dense_update": [Dense], "compilation": [Broken], "refusals": [Forgiving],
}  # fmt: skip
WRONG = [(prop, adapter) for prop, wrong in SPOILT.items() for adapter in wrong]


def test_every_check_has_an_adapter_that_breaks_it():
    assert set(SPOILT) == {check.__name__ for check in adapters.CHECKS}


@pytest.mark.parametrize(("prop", "adapter"), WRONG, ids=[f"{prop}-{adapter.__name__}" for prop, adapter in WRONG])
def test_each_check_catches_an_adapter_that_breaks_it(prop, adapter):
    paper = Paper("Nobody", 2000, "Nothing", "arXiv:0")
    card = _catalogue["spoilt"] = Card("spoilt", "adapter", adapter, None, (paper,), {"rank": 2})
    failure = torch._dynamo.exc.Unsupported if prop == "compilation" else (AssertionError, RuntimeError)
    try:
        with pytest.raises(failure):
            getattr(adapters, prop)(card, "linear")
    finally:
        del _catalogue["spoilt"]
