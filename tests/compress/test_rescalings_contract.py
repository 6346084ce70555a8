"""Every rescaling of the catalogue, held to the public contract on real decoders, and wrong ones to catch."""

import pytest
import torch

import polyad.compress  # noqa: F401
from polyad._card import Card, Paper, methods
from polyad.compress import equivalent_rescaling
from polyad.models.replacement import Replacement
from polyad.testing import rescalings

CASES = {f"{c.name}-{check.__name__}": (c, check) for c in methods("rescale") for check in rescalings.CHECKS}


@pytest.mark.parametrize(("card", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, check):
    check(card)


def without(part):
    """The rescaling that forgets every matrix of this name."""

    def forgetting(model, *, generator):
        made = equivalent_rescaling(model, generator=generator)
        return Replacement({n: t for n, t in made.weights.items() if part not in n})

    forgetting.__name__ = f"without_{part}"
    return forgetting


def nothing(model, *, generator):
    return Replacement({})


def next_to_nothing(model, *, generator):
    return equivalent_rescaling(model, generator=generator, spread=1e-5)


def first_layer(model, *, generator):
    made = equivalent_rescaling(model, generator=generator)
    return Replacement({n: t for n, t in made.weights.items() if "layers.0." in n})


def of_any_norm(model, *, generator):
    """Every norm before attention is taken to multiply by its weight, those that add one to it too."""
    made, known = {}, {n: p.detach() for n, p in model.named_parameters()}
    for name in (n for n in known if n.endswith("input_layernorm.weight")):
        readers = [name.replace("input_layernorm", f"self_attn.{role}_proj") for role in "qkv"]
        made |= {name: 2 * known[name], **{reader: known[reader] / 2 for reader in readers}}
    return Replacement(made)


def narrower(model, *, generator):
    made = equivalent_rescaling(model, generator=generator)
    return Replacement({n: t[:-1] for n, t in made.weights.items()})


def in_double(model, *, generator):
    made = equivalent_rescaling(model, generator=generator)
    return Replacement({n: t.double() for n, t in made.weights.items()})


def far(model, *, generator):
    return equivalent_rescaling(model, generator=generator, spread=30)


def coarse(model, *, generator):
    made = equivalent_rescaling(model, generator=generator)
    return Replacement(
        {n: t.to(torch.float8_e4m3fn).to(t.dtype) if t.itemsize < 8 else t for n, t in made.weights.items()}
    )


def of_torch(model, *, generator):
    state = torch.Generator().manual_seed(int(torch.randint(100, ())))
    return equivalent_rescaling(model, generator=state)


def always_one(model, *, generator):
    return equivalent_rescaling(model, generator=torch.Generator().manual_seed(0))


def in_place(model, *, generator):
    made = equivalent_rescaling(model, generator=generator)
    next(iter(model.parameters())).data.mul_(1.5)
    return made


def doubled_head(model, *, generator):
    head, made = model.get_output_embeddings(), equivalent_rescaling(model, generator=generator)
    return Replacement({**made.weights, "lm_head.weight": head.weight.detach().clone()})


def doubled_embedding(model, *, generator):
    table = model.get_input_embeddings().weight.detach().clone()
    return Replacement({"model.embed_tokens.weight": table})


def halved_head(model, *, generator):
    head = model.get_output_embeddings().weight.detach()
    return Replacement({"lm_head.weight": head / 2, "model.norm.weight": 2 * model.model.norm.weight.detach()})


def once(model, *, generator):
    forgetful = hasattr(model, "met")
    model.met = True
    return (without("up_proj") if forgetful else equivalent_rescaling)(model, generator=generator)


WRONG = {
    "same_function": (*map(without, ("down_proj", "k_proj", "v_proj", "input_layernorm", "bias")), of_any_norm),
    "other_weights": (nothing, next_to_nothing, first_layer, narrower),
    "precision": (in_double, far, coarse),
    "randomness": (of_torch, always_one, in_place, nothing),
    "ties": (doubled_head, doubled_embedding, halved_head),
    "repetition": (once, without("up_proj"), without("o_proj")),
}
SPOILT = {f"{prop}-{wrong.__name__}": (prop, wrong) for prop, several in WRONG.items() for wrong in several}


@pytest.mark.parametrize(("prop", "wrong"), SPOILT.values(), ids=list(SPOILT))
def test_each_check_catches_rescalings_that_break_it(prop, wrong):
    torch.manual_seed(0)
    source = Paper("Nobody", 2000, "Nothing", "arXiv:0")
    with pytest.raises(AssertionError):
        getattr(rescalings, prop)(Card("spoilt", "rescale", wrong, Replacement, (source,)))
