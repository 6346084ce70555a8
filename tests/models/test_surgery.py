"""Choosing, replacing and undoing; and the attention that takes the place of a model's own."""

import pytest
import torch
from torch import nn

import tiny
from polyad.decompose import svd
from polyad.formats import LowRank
from polyad.layers import Embedding, Factors, Linear
from polyad.models import Replacement, blocks, decoder_layers, decoder_linears, replace, select
from polyad.models.attention import ReducedAttention
from polyad.models.blocks import readers
from polyad.models.replacement import layer, merge_replacements, modules

CUT = ("llama", "mha", "mqa", "mistral", "qwen2", "qwen2-mixed")


def test_patterns_and_predicates_choose_in_the_models_order():
    model = tiny.model()
    assert list(select(model, "*layers.1.*k_proj")) == ["model.layers.1.self_attn.k_proj"]
    chosen = list(select(model, ["*.mlp.up_proj", "*layers.0.self_attn.q*"]))
    assert chosen[0] == "model.layers.0.self_attn.q_proj"
    assert len(chosen) == 4
    assert next(iter(select(model, lambda path, module: module.out_features == 16))).endswith("0.self_attn.k_proj")
    assert len(decoder_linears(model)) == 21
    assert "lm_head" not in decoder_linears(model)


def test_what_matches_nothing_is_named_with_what_comes_near():
    model = tiny.model()
    with pytest.raises(ValueError, match=r"'\*\.upproj' matches none of the model's 22 Linear .*up_proj"):
        select(model, ["*.mlp.*", "*.upproj"])
    with pytest.raises(ValueError, match="the predicate chose none"):
        select(model, lambda _path, _module: False)


def test_replacing_is_undone_exactly():
    model = tiny.model()
    before, said = dict(model.named_modules()), tiny.logits(model)
    path = "model.layers.1.mlp.up_proj"
    undo = replace(model, {path: Linear(svd(model.get_submodule(path).weight.detach(), 4))})
    assert isinstance(model.get_submodule(path), Linear)
    assert not model.get_submodule(path).training
    assert not torch.equal(tiny.logits(model), said)
    undo()
    undo()
    assert all(dict(model.named_modules())[p] is m for p, m in before.items())
    assert torch.equal(tiny.logits(model), said)


def test_a_missing_path_replaces_nothing():
    model = tiny.model()
    good = "model.layers.0.mlp.up_proj"
    before = model.get_submodule(good)
    with pytest.raises(ValueError, match=r"no module at model\.nowhere; nothing was replaced"):
        replace(model, {good: nn.Linear(32, 48), "model.nowhere": nn.Linear(1, 1)})
    assert model.get_submodule(good) is before


@pytest.mark.parametrize("path", ["lm_head", "model.embed_tokens"])
def test_tied_layers_share_one_factors(path):
    model = tiny.model("tied")
    said = tiny.logits(model)
    held = svd(model.lm_head.weight.detach(), 32)
    undo = replace(model, {path: Linear(held) if path == "lm_head" else Embedding(held)})
    assert isinstance(model.lm_head, Linear)
    assert isinstance(model.model.embed_tokens, Embedding)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    torch.testing.assert_close(tiny.logits(model), said, rtol=1e-3, atol=1e-4)
    undo()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(tiny.logits(model), said)


def test_values_become_the_layers_that_hold_them():
    before = nn.Linear(4, 3)
    same = layer(before, {"weight": torch.ones(3, 4)})
    assert type(same) is nn.Linear
    assert same.bias is before.bias
    assert before.weight.detach().abs().max() < 1  # the layer before keeps its own
    smaller = layer(before, {"weight": torch.ones(2, 4), "bias": torch.ones(2)})
    assert (type(smaller), smaller.out_features) == (nn.Linear, 2)
    held = layer(before, {"weight": LowRank(torch.ones(3, 1), torch.ones(1, 4))})
    assert isinstance(held, Linear)
    torch.testing.assert_close(held.bias, before.bias)
    with pytest.raises(TypeError, match="a bias is a tensor"):
        layer(before, {"bias": LowRank(torch.ones(3, 1), torch.ones(1, 1))})
    with pytest.raises(ValueError, match=r"two methods replace a\.weight"):
        merge_replacements([Replacement({"a.weight": torch.ones(1)})] * 2)


def attention_of(model, number=1):
    path = f"model.layers.{number}.self_attn"
    block = next(b for b in blocks(model, ("qk",)) if b.home == path)
    return path, block


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", CUT)
def test_reduced_attention_of_full_size_is_the_models_own(kind, backend):
    model = tiny.model(kind)
    model.set_attn_implementation(backend)
    said = tiny.logits(model)
    for number in range(3):
        path, block = attention_of(model, number)
        every = torch.arange(block.width // 2).repeat(block.key_heads, 1)
        replace(model, modules(model, Replacement({}, {path: {"pairs": every}}), [block]))
        assert isinstance(model.get_submodule(path), ReducedAttention)
    torch.testing.assert_close(tiny.logits(model), said, rtol=1e-5, atol=1e-5)


def cut(model, number=1, keep=2, values=5):
    """Cut a layer's attention to some rotation pairs, other ones for each head, and its values to some columns."""
    path, block = attention_of(model, number)
    half, group = block.width // 2, block.heads // block.key_heads
    pairs = torch.stack([torch.randperm(half, generator=torch.Generator().manual_seed(h))[:keep].sort().values
                         for h in range(block.key_heads)])  # fmt: skip
    both = torch.cat((pairs, pairs + half), 1)
    own = dict(model.get_submodule(path).named_parameters())
    weights = {}
    for role, repeat in (("q", group), ("k", 1)):
        rows = both.repeat_interleave(repeat, 0)
        rows = (rows + torch.arange(len(rows))[:, None] * block.width).flatten()
        weights |= {f"{path}.{n}": v.detach()[rows] for n, v in own.items() if n.startswith(f"{role}_proj")}
    columns = (torch.arange(values) + torch.arange(block.key_heads)[:, None] * block.width).flatten()
    weights |= {f"{path}.{n}": v.detach()[columns] for n, v in own.items() if n.startswith("v_proj")}
    columns = (torch.arange(values) + torch.arange(block.heads)[:, None] * block.width).flatten()
    weights[f"{path}.o_proj.weight"] = own["o_proj.weight"].detach()[:, columns]
    made = Replacement(weights, {path: {"pairs": pairs, "value_width": values}})
    return modules(model, made, [block]), pairs


def masked(model, pairs, number=1, values=5):
    """Set to zero, in the full model, what ``cut`` leaves out."""
    _, block = attention_of(model, number)
    half = block.width // 2
    home = model.get_submodule(f"model.layers.{number}.self_attn")
    with torch.no_grad():
        for head in range(block.key_heads):
            gone = [i for i in range(half) if i not in pairs[head].tolist()]
            rows = [head * block.width + i + shift for i in gone for shift in (0, half)]
            home.k_proj.weight[rows] = 0
            home.v_proj.weight[head * block.width + values : (head + 1) * block.width] = 0
            for layer in (home.k_proj, home.v_proj):
                if layer.bias is not None:
                    layer.bias[rows if layer is home.k_proj else slice(head * block.width + values,
                                                                       (head + 1) * block.width)] = 0  # fmt: skip


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", CUT)
def test_reduced_attention_is_the_original_with_the_rest_set_to_zero(kind, backend):
    model, whole = tiny.model(kind), tiny.model(kind)
    for one in (model, whole):
        one.set_attn_implementation(backend)
    made, pairs = cut(model)
    replace(model, made)
    masked(whole, pairs)
    torch.testing.assert_close(tiny.logits(model), tiny.logits(whole), rtol=1e-4, atol=1e-5)


def padded():
    """Two prompts, the first padded on the left."""
    tokens = tiny.ids(2, 10)
    tokens[0, :4] = 0
    mask = torch.ones_like(tokens)
    mask[0, :4] = 0
    return tokens, mask


@pytest.mark.parametrize("kind", CUT)
def test_generation_with_a_cache_is_generation_without_one(kind):
    model = tiny.model(kind)
    for number in (0, 1):
        replace(model, cut(model, number)[0])
    tokens, mask = padded()
    told = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    with torch.no_grad():
        cached = model.generate(tokens, use_cache=True, **told)
        plain = model.generate(tokens, use_cache=False, **told)
        alone = model.generate(tokens[:1, 4:], use_cache=True, **{**told, "attention_mask": mask[:1, 4:]})
    assert cached.shape == (2, 22)
    assert torch.equal(cached, plain)
    assert torch.equal(cached[0, 10:], alone[0, 6:])  # padding changes nothing


def test_keys_and_values_are_cached_at_their_reduced_width():
    model = tiny.model()
    replace(model, cut(model)[0])
    with torch.no_grad():
        cache = model(tiny.ids(), use_cache=True).past_key_values
    assert [layer.keys.shape[-1] for layer in cache.layers] == [8, 4, 8]
    assert [layer.values.shape[-1] for layer in cache.layers] == [8, 5, 8]


def test_the_sliding_window_stays_known():
    model = tiny.model("mistral")
    replace(model, cut(model)[0])
    assert model.model.layers[1].self_attn.sliding_window == 8


@pytest.mark.parametrize(
    ("kind", "found"),
    [("llama", {"mlp": 3, "qk": 3, "vo": 3}), ("qwen2", {"mlp": 3, "qk": 3, "vo": 3}), ("qwen3", {"mlp": 3}),
     ("cohere", {"mlp": 3}), ("olmo2", {"mlp": 3})],
)  # fmt: skip
def test_blocks_are_those_whose_cut_is_understood(kind, found):
    kinds = [b.kind for b in blocks(tiny.model(kind))]
    assert {k: kinds.count(k) for k in set(kinds)} == found


def test_attention_that_was_cut_is_not_cut_again():
    model = tiny.model()
    replace(model, cut(model)[0])
    assert [b.layer for b in blocks(model, ("qk", "vo"))] == [0, 0, 2, 2]


def test_unknown_architectures_get_a_sentence():
    with pytest.raises(ValueError, match=r"Linear has no list of layers; choose its modules by pattern"):
        decoder_layers(nn.Linear(2, 2))
    other = nn.Sequential(nn.ModuleList([nn.Linear(2, 2)]))
    with pytest.raises(ValueError, match=r"Sequential has no blocks that polyad knows .* such as lord or svd"):
        blocks(other)


def test_norms_are_matched_only_with_layers_that_alone_read_them():
    assert len(readers(tiny.model())) == 6
    assert len(readers(tiny.model("qwen3"))) == 6
    assert readers(tiny.model("cohere")) == {}  # attention and MLP read one norm
    assert readers(tiny.model("olmo2")) == {}  # its norms follow


def test_factors_in_a_replaced_embedding_are_one_module():
    model = tiny.model("tied")
    replace(model, {"lm_head": Linear(svd(model.lm_head.weight.detach(), 4))})
    assert sum(isinstance(m, Factors) for m in model.modules()) == 1


@pytest.mark.parametrize("path", ["model.layers.0.mlp.up_proj", "model.layers.2.mlp.up_proj"])
def test_a_module_at_two_places_is_replaced_at_both(path):
    model = tiny.model()
    model.model.layers[2].mlp.up_proj = model.model.layers[0].mlp.up_proj
    before, new = model.get_submodule(path), nn.Linear(32, 48, bias=False)
    said = tiny.logits(model)
    undo = replace(model, {path: new})
    assert model.model.layers[0].mlp.up_proj is new
    assert model.model.layers[2].mlp.up_proj is new
    undo()
    assert model.model.layers[0].mlp.up_proj is model.model.layers[2].mlp.up_proj is before
    assert torch.equal(tiny.logits(model), said)
