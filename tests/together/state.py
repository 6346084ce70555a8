"""A model on its way through several parts of the library, and the plain dense model that it must equal."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import transformers

import tiny
from polyad.adapters import Adapted, Adapters
from polyad.formats import Format
from polyad.layers import Factors
from polyad.models.attention import ReducedAttention
from polyad.models.source import Origin
from polyad.testing.decoders import random_decoder

SHAPE = tiny.SHAPE | {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 128,
    "eos_token_id": None,
}  # fmt: skip
IDS = tiny.ids(2, 20)


@dataclass
class State:
    """A model, the adapters on it if it has any, and a folder to write in."""

    model: Any
    place: Any
    adapters: Adapters | None = None

    def branch(self, place):
        """A copy that goes on by itself."""
        model = copy.deepcopy(self.model)
        return State(model, place, None if self.adapters is None else Adapters(model))

    def logits(self):
        return tiny.logits(self.model, IDS)


def start(place, **changed):
    """A tiny random Llama as ``polyad.load`` would give it."""
    model = random_decoder("Llama", **{**SHAPE, **changed})
    model.polyad_origin = Origin("tiny", None, tiny.tokenizer())
    return State(model, place)


@torch.no_grad()
def dense_twin(model):
    """A Llama of transformers that computes what the model states: formats multiplied out, updates of adapters added,
    and zeros where channels were cut."""
    twin = transformers.LlamaForCausalLM(copy.deepcopy(model.config)).eval()
    twin.set_attn_implementation("eager")
    widened = _weights_of_cut_heads(model)
    for path, weight in twin.named_parameters():
        name = path.removesuffix(".weight")
        numbers = widened[name] if name in widened else dense_weight(model.get_submodule(name))
        weight.zero_()
        weight[tuple(slice(n) for n in numbers.shape)] = numbers  # an MLP that was cut is padded
    return twin


def dense_weight(layer):
    """The matrix by which a layer multiplies, its adapters included."""
    if isinstance(layer, Adapted):
        updates = [term.adapter.scale * term.adapter.B @ term.adapter.A for term in layer.terms]
        return dense_weight(layer.layer) + sum(updates)
    weight = layer.weight() if isinstance(layer.weight, Factors) else layer.weight
    return weight.to_dense() if isinstance(weight, Format) else weight


def _weights_of_cut_heads(model):
    """The projections of attentions of which rotation pairs and channels of values were cut, at their full size."""
    weights = {}
    width = SHAPE["hidden_size"] // SHAPE["num_attention_heads"]
    for path, module in model.named_modules():
        if not isinstance(module, ReducedAttention):
            continue
        pairs = module.pairs if module.pairs is not None else torch.arange(width // 2).expand(module.key_heads, -1)
        for role, heads in (("q", module.heads), ("k", module.key_heads)):
            part = dense_weight(module.get_submodule(f"{role}_proj")).unflatten(0, (heads, -1))
            whole = part.new_zeros(heads, width, part.shape[-1])
            for head in range(heads):
                kept = pairs[head * module.key_heads // heads]
                whole[head, torch.cat((kept, kept + width // 2))] = part[head]
            weights[f"{path}.{role}_proj"] = whole.flatten(0, 1)
        values = dense_weight(module.v_proj).unflatten(0, (module.key_heads, -1))
        weights[f"{path}.v_proj"] = _widen(values, 1, width).flatten(0, 1)
        output = dense_weight(module.o_proj).unflatten(1, (module.heads, -1))
        weights[f"{path}.o_proj"] = _widen(output, 2, width).flatten(1, 2)
    return weights


def _widen(x, dim, width):
    shape = list(x.shape)
    shape[dim] = width - shape[dim]
    return torch.cat((x, x.new_zeros(shape)), dim)
