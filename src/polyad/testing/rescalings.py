"""The contract of a rescaling: what every function owes that gives a model other numbers and the same function.

It is called with small decoders of transformers, a generator and the card's ``example``.

>>> from polyad._card import card
>>> repetition(card("equivalent_rescaling"))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyad._card import Card
from polyad.models.blocks import decoder_layers
from polyad.models.replacement import Replacement
from polyad.testing._contract import seeded_generator
from polyad.testing._trial_models import decoder, in_effect, logits, tokens

Family = tuple[str, Mapping[str, Any]]
NEXT = {
    "head_dim": 8, "mlp_only_layers": [0, 1], "layer_types": ["full_attention"] * 2, "linear_num_key_heads": 2,
    "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
FAMILIES: tuple[Family, ...] = (
    ("Llama", {}), ("Llama", {"attention_bias": True, "mlp_bias": True}), ("Llama", {"tie_word_embeddings": True}),
    ("Llama", {"num_key_value_heads": 4}), ("Llama", {"num_key_value_heads": 1}), ("Qwen2", {}),
    ("Mistral", {"sliding_window": 8, "head_dim": 8}), ("Qwen3", {"head_dim": 8}), ("Cohere", {}), ("Olmo2", {}),
    ("Granite", {"attention_multiplier": 0.2}), ("Gemma", {"head_dim": 8}), ("Olmo", {}),
    ("StableLm", {"partial_rotary_factor": 0.5}), ("Qwen3Next", NEXT),
)  # fmt: skip
"""Decoders that allow different rescalings: key heads are shared, embeddings tied, norms add one to their weight."""


def call_rescaling(card: Card, model: nn.Module, seed: int = 0) -> Replacement:
    """The replacement that a method makes of a model, drawn from this seed."""
    return card.function(model, generator=seeded_generator(seed), **card.example)


def predictions(model: nn.Module, replacement: Replacement) -> Tensor:
    """The model's logits with the replacement in effect."""
    with in_effect(model, replacement):
        return logits(model, tokens(2, 16))


def same_function(card: Card) -> None:
    """The logits of every family stay as they are, whatever is drawn."""
    for family in FAMILIES:
        model = _model(family).double()
        said = logits(model, tokens(2, 16))
        for seed in (0, 1):
            off = float((predictions(model, call_rescaling(card, model, seed)) - said).norm() / said.norm())
            assert off < 1e-6, f"{card.name} changes the logits of {_title(family)} by {off:.3g}"


def other_weights(card: Card) -> None:
    """The weights of every layer do change, by more than rounding, and keep their shapes."""
    for family in FAMILIES:
        model = _model(family)
        replacement = call_rescaling(card, model)
        parameters = dict(model.named_parameters())
        unknown = replacement.weights.keys() - parameters.keys()
        assert not unknown, f"{card.name} of {_title(family)} replaces {sorted(unknown)}, which are no parameters"
        for name, value in replacement.weights.items():
            assert value.shape == parameters[name].shape, f"{card.name} gives {name} the shape {tuple(value.shape)}"
        for path, layer in decoder_layers(model).items():
            names = replacement.weights.keys() & {f"{path}.{name}" for name, _ in layer.named_parameters()}
            moved = any(_differs(parameters[name], replacement.weights[name]) for name in names)
            assert moved, f"{card.name} changes no weight of {path} of {_title(family)}"


def _differs(old: Tensor, new: Any) -> bool:
    return float((_dense(new) - old).detach().norm() / old.detach().norm()) > 1e-2


def precision(card: Card) -> None:
    """In single and half precision weights keep their dtype, and logits change by rounding alone."""
    for family in FAMILIES[:3]:
        for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)):
            model = _model(family).to(dtype)
            said = logits(model, tokens(2, 16)).double()
            replacement = call_rescaling(card, model)
            for name, value in replacement.weights.items():
                assert value.dtype == dtype, f"{card.name} gives {name} of {dtype} the dtype {value.dtype}"
            off = float((predictions(model, replacement).double() - said).norm() / said.norm())
            assert off < limit, f"{card.name} changes the logits of {_title(family)} in {dtype} by {off:.3g}"


def randomness(card: Card) -> None:
    """One seed gives the same numbers every time, another other ones; torch's own generator and the model stay."""
    for family in FAMILIES[:3]:
        model = _model(family)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        state = torch.get_rng_state()
        first, again, other = (call_rescaling(card, model, seed).weights for seed in (0, 0, 1))
        assert torch.equal(torch.get_rng_state(), state), f"{card.name} draws from torch's own generator"
        for name, value in first.items():
            assert torch.equal(_dense(value), _dense(again[name])), f"{card.name} of one seed gives two {name}"
        same = all(torch.equal(_dense(value), _dense(other[name])) for name, value in first.items())
        assert not same, f"{card.name} of another seed gives the same numbers"
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), f"{card.name} changed {name} in place"


def ties(card: Card) -> None:
    """An embedding that is tied to the output head is so afterwards."""
    model = _model(("Llama", {"tie_word_embeddings": True}))
    with in_effect(model, call_rescaling(card, model)):
        same = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert same, f"{card.name} unties the embedding from the output head"


def repetition(card: Card) -> None:
    """A rescaled model can be rescaled again."""
    model = _model(FAMILIES[0]).double()
    said = logits(model, tokens(2, 16))
    with in_effect(model, call_rescaling(card, model)):
        off = float((predictions(model, call_rescaling(card, model, 1)) - said).norm() / said.norm())
    assert off < 1e-6, f"{card.name} of a rescaled model changes the logits by {off:.3g}"


def _model(family: Family) -> Any:
    return decoder(family[0], **family[1])


def _title(family: Family) -> str:
    return " ".join([family[0], *(f"{name}={value}" for name, value in family[1].items() if family[1] is not NEXT)])


def _dense(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else value.to_dense()


CHECKS = (same_function, other_weights, precision, randomness, ties, repetition)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "FAMILIES", "call_rescaling", "other_weights", "precision", "predictions", "randomness",
    "repetition", "same_function", "ties",
]  # fmt: skip
