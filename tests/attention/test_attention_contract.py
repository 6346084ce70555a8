"""Every layer of the catalogue, held to the public contract, and the contract held to layers that break it."""

import pytest
import torch
from torch import nn
from torch.autograd.gradcheck import GradcheckError

import polyad.attention  # noqa: F401
from polyad._card import Card, Paper, methods
from polyad.attention import GroupedAttention
from polyad.attention.rotary import tables
from polyad.testing import attention

CASES = {f"{c.name}-{check.__name__}": (c, check) for c in methods("layer") for check in attention.CHECKS}


@pytest.mark.parametrize(("card", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, check):
    check(card)


EXAMPLE = {
    "width": 24, "heads": 4, "head_width": 6, "key_heads": 2,
    "x": (2, 30, 24), "table": 6, "parameters": 3 * 24 * 24, "held": 24,
}  # fmt: skip


def toy(kind, **stated):
    return Card(kind.__name__, "layer", kind, None, (Paper("Nobody", 2000, "Nothing", "arXiv:0"),), EXAMPLE | stated)


class Plain(GroupedAttention):
    """A right layer, with places to go wrong before and behind it."""

    def before(self, x):
        return x

    def behind(self, out):
        return out

    def forward(self, hidden_states, position_embeddings, attention_mask=None, past_key_values=None):
        out = super().forward(self.before(hidden_states), position_embeddings, attention_mask, past_key_values)[0]
        return self.behind(out), None


class Narrower(Plain):
    def behind(self, out):
        return out[..., :-1]


class Blind(Plain):
    """Makes nothing of one channel."""

    def before(self, x):
        return torch.cat([x[..., :-1], 0 * x[..., -1:]], -1)


class Late(Plain):
    """Begins its positions anew with every call."""

    def forward(self, hidden_states, position_embeddings, attention_mask=None, past_key_values=None):
        table = tuple(t.to(hidden_states) for t in tables(0, hidden_states.shape[1], 6))
        return super().forward(hidden_states, table, attention_mask, past_key_values)


class Forgetful(Plain):
    """Does not see the first token any more when it decodes."""

    def forward(self, hidden_states, position_embeddings, attention_mask=None, past_key_values=None):
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if past:
            new = hidden_states.shape[1]
            attention_mask = torch.ones(1, 1, new, past + new, dtype=torch.bool).tril(past)
            attention_mask[..., 0] = False
        return super().forward(hidden_states, position_embeddings, attention_mask, past_key_values)


class Foreseeing(Plain):
    def before(self, x):
        return x + 0.1 * x.roll(-1, 1)


class Shortsighted(Plain):
    def forward(self, hidden_states, position_embeddings, attention_mask=None, past_key_values=None):
        return self.o_proj(self.q_proj(hidden_states)), None


class Deaf(Plain):
    def forward(self, hidden_states, position_embeddings, attention_mask=None, past_key_values=None):
        return super().forward(hidden_states, position_embeddings, None, past_key_values)


class Idle(Plain):
    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.idle = nn.Parameter(torch.ones(3))


class Detached(Plain):
    def behind(self, out):
        return out + self.q_proj(out).detach()


class Mixing(Plain):
    def before(self, x):
        return x - x.mean(0)


class Wide(Plain):
    def behind(self, out):
        return out.float()


class Unsaved(Plain):
    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.register_buffer("factor", torch.rand(24), persistent=False)

    def before(self, x):
        return x * self.factor


SPOILT = {
    "shape": [toy(Narrower), toy(Blind)],
    "sizes": [toy(Plain, parameters=1700), toy(Plain, held=23), toy(Idle)],
    "pieces": [toy(Late), toy(Forgetful)],
    "causality": [toy(Foreseeing), toy(Shortsighted)],
    "masks": [toy(Deaf)],
    "gradients": [toy(Idle), toy(Detached)],
    "rows": [toy(Mixing)],
    "precision": [toy(Wide)],
    "storage": [toy(Unsaved)],
}
WRONG = {f"{prop}-{i}": (prop, card) for prop, cards in SPOILT.items() for i, card in enumerate(cards)}


@pytest.mark.parametrize("check", attention.CHECKS, ids=lambda check: check.__name__)
def test_what_the_wrong_layers_are_made_of_keeps_the_contract(check):
    check(toy(Plain))


def test_every_check_has_a_layer_that_breaks_it():
    assert set(SPOILT) == {check.__name__ for check in attention.CHECKS}


@pytest.mark.parametrize(("prop", "card"), WRONG.values(), ids=list(WRONG))
def test_each_check_catches_a_layer_that_breaks_it(prop, card):
    with pytest.raises((AssertionError, GradcheckError)):
        getattr(attention, prop)(card)
