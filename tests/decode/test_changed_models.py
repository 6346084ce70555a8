"""Generating with compressed and adapted models, small caches, and models that change between two calls."""

import copy

import pytest
import torch

import polyad
import tiny
from polyad.adapters import Adapters, DoRA, LoRA
from polyad.adapters.host.adapted import Adapted
from polyad.cache import cache_for
from polyad.cache.maker import maker
from polyad.data import Calibration
from polyad.decode.prepare import prepare_decoder
from polyad.decode.structure import rotary
from polyad.testing.decoders import random_decoder

NEW = 12
TEXT = Calibration(tiny.ids(6, 48, seed=2), tiny.ids(2, 32, seed=3), {"ids": "0"})


def model(kind="llama", seed=0):
    made = tiny.model(kind, seed)
    made.config.eos_token_id = made.generation_config.eos_token_id = None
    return made


def compare(made, loop="polyad", **settings):
    """The generation, held to the tokens of transformers for a batch padded on the left."""
    ids = tiny.ids(2, 20)
    mask = torch.ones_like(ids)
    mask[1, :5], ids[1, :5] = 0, 0
    got = polyad.generate(made, ids, attention_mask=mask, max_new_tokens=NEW, dtype=torch.float32, **settings)
    expected = made.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
    assert (got.loop, got.reason is None) == (loop, loop == "polyad")
    assert got.sequences.tolist() == expected.tolist()
    return got


RECIPES = {
    "4 bits": "rtn:bits=4,group=8",
    "8 bits": "rtn:bits=8",
    "low rank": "svd",
    "low rank in 4 bits": ["svd", "rtn:bits=4,group=4"],
    "4 bits and low rank": ["rtn:bits=4,group=8", "eora:rank=2"],
    "fewer channels": "modegpt",
}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "neox"])
@pytest.mark.parametrize("name", RECIPES)
def test_compressed_models_take_the_loop(name, kind):
    if name == "fewer channels" and kind == "neox":
        return  # has no blocks of separate matrices
    made = model(kind)
    recipe = RECIPES[name]
    keep = {"keep": 0.6} if "svd" in str(recipe) or "modegpt" in str(recipe) else {}
    polyad.apply(made, polyad.plan(made, recipe, **keep, calibrate=TEXT))
    compare(made)


def test_heads_that_keep_some_pairs_take_the_loop_at_their_widths():
    made = model("llama")
    polyad.apply(made, polyad.plan(made, "modegpt", keep=0.5, calibrate=TEXT))
    got = compare(made)
    whole = compare(model("llama"))
    assert got.cache_bytes < whole.cache_bytes
    names = [layer.attention.rotary.name for layer in prepare_decoder(made, torch.float32).decoder.outline.layers]
    assert len(set(names)) > 1  # pairs of their own


def test_embedding_and_head_in_codes():
    made = model("tied")
    polyad.apply(made, polyad.plan(made, "rtn:bits=8", select="*"))
    compare(made)


@pytest.mark.parametrize("method", [LoRA, DoRA])
def test_adapters_that_are_attached_count(method):
    made = model()
    plain = compare(made)
    adapters = Adapters(made)
    adapters.attach("a", "*_proj", method, rank=2)
    with torch.no_grad():
        for i, parameter in enumerate(adapters.parameters("a")):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    adapted = compare(made)
    assert adapted.sequences.tolist() != plain.sequences.tolist()
    adapters.merge()
    assert compare(made).sequences.tolist() == adapted.sequences.tolist()
    adapters.unmerge()
    adapters.detach("a")
    assert compare(made).sequences.tolist() == plain.sequences.tolist()


def test_low_rank_adapters_on_codes_are_products_of_the_loop(monkeypatch):
    made = model()
    polyad.apply(made, polyad.plan(made, "rtn:bits=8", select="*"))
    adapters = Adapters(made)
    for seed, (name, which) in enumerate((("a", "*_proj"), ("b", "*v_proj"))):
        adapters.attach(name, which, LoRA, rank=2)
        with torch.no_grad():
            for parameter in adapters.parameters(name):
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    tokens = {}
    for name, which in {"a": ["a"], "both": {"a": 0.5, "b": -1.0}, "less": {"a": 0.25, "b": 2.0}, "none": []}.items():
        adapters.activate(which)
        expected = made.generate(tiny.ids(1, 20), max_new_tokens=NEW, do_sample=False)
        prepare_decoder(made, torch.float32)  # which reads the structure off a pass of the model
        with monkeypatch.context() as patch:
            patch.setattr(Adapted, "forward", lambda self, x: pytest.fail("the loop called an adapted layer"))
            generation = polyad.generate(made, tiny.ids(1, 20), max_new_tokens=NEW, dtype=torch.float32)
        tokens[name] = tuple(generation.tokens[0].tolist())
        assert generation.sequences.tolist() == expected.tolist()
    assert len(set(tokens.values())) == len(tokens)


def test_a_model_whose_numbers_change_is_read_again():
    made, other = model(), model(seed=3)
    first = compare(made)
    decoder = prepare_decoder(made, torch.float32).decoder
    assert prepare_decoder(made, torch.float32).decoder is decoder
    for parameter, new in zip(made.parameters(), other.parameters(), strict=True):
        parameter.data.copy_(new.data)
    assert compare(made).sequences.tolist() != first.sequences.tolist()
    made.model.layers[1].mlp = copy.deepcopy(made.model.layers[0].mlp)
    compare(made)


def test_a_hook_of_a_layer_still_runs():
    made = model()
    calls = []
    handle = made.model.layers[0].mlp.up_proj.register_forward_hook(lambda *_: calls.append(1))
    compare(made)
    before = len(calls)
    polyad.generate(made, [5, 6], max_new_tokens=3, dtype=torch.float32)
    assert len(calls) == before + 3
    handle.remove()
    compare(made)


CODECS = [
    "kivi:bits=2,group=8", "gear:bits=2,rank=2,group=8", "metric:rank=4,bits=4", "transform_coding:rate=3.0",
    "xkv:rank=8", "h2o:keep=0.5,block=8", "streaming_llm", "plain",
]  # fmt: skip


@pytest.mark.parametrize(
    ("codec", "kind"),
    [*((codec, "llama") for codec in CODECS),
     *((codec, kind) for codec in (CODECS[0], CODECS[3]) for kind in ("glm", "neox", "gpt2", "mistral", "smollm3")),
     (CODECS[0], "reduced"), (CODECS[5], "reduced")],
)  # fmt: skip
def test_the_loop_fills_a_codec_as_the_forward_pass_does(codec, kind):
    made = reduced() if kind == "reduced" else layers_without_rotation() if kind == "smollm3" else model(kind)
    ids = tiny.ids(2, 20)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    make = maker(made, codec + (",window=4" if ":" in codec else ":window=4"), lambda: tiny.ids(6, 48, seed=2))
    got, mine, theirs = {}, make(), make()
    for dtype in (torch.float32, torch.bfloat16):
        mine = mine if dtype == torch.float32 else make()
        settings = {"attention_mask": mask, "max_new_tokens": NEW, "cache": mine, "dtype": dtype}
        got[dtype] = polyad.generate(made, ids, **settings)
    expected = made.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, past_key_values=theirs)
    assert {one.loop for one in got.values()} == {"polyad"}
    assert got[torch.float32].sequences.tolist() == expected.tolist()
    assert got[torch.float32].cache_bytes == theirs.nbytes
    assert theirs.get_seq_length() == 20 + NEW - 1
    compare(made)  # the loop has buffers of its own again


def reduced():
    made = model("llama")
    return polyad.apply(made, polyad.plan(made, "modegpt", keep=0.5, calibrate=TEXT))


def layers_without_rotation():
    made = random_decoder("SmolLM3", **tiny.SHAPE, no_rope_layer_interval=2)
    made.config.eos_token_id = made.generation_config.eos_token_id = None
    return made


def test_a_cache_that_the_loop_cannot_fill_is_filled_by_transformers():
    made = model()
    kv = cache_for(made)
    with torch.no_grad():
        made(tiny.ids(1, 6), past_key_values=kv)
    got = polyad.generate(made, tiny.ids(1, 20), max_new_tokens=3, cache=kv, dtype=torch.float32)
    assert (got.loop, "holds tokens already" in got.reason) == ("transformers", True)
    capped = random_decoder("Gemma2", **tiny.SHAPE | {"head_dim": 8, "sliding_window": 8})
    got = polyad.generate(capped, tiny.ids(1, 20), max_new_tokens=3, cache="kivi:bits=8,group=8", dtype=torch.float32)
    assert (got.loop, "in a way of its own" in got.reason) == ("transformers", True)


def test_a_loop_that_is_wrong_is_caught_and_not_used(monkeypatch):
    made, original = model(), rotary._partner
    monkeypatch.setattr("polyad.decode.steps.layer.swap_function", lambda read: lambda x: x)
    got = compare(made, loop="transformers")
    assert "its loop makes logits that are" in got.reason
    monkeypatch.undo()
    monkeypatch.setattr(rotary, "_partner", lambda *args: original(*args).flip(0))
    got = compare(model(seed=1), loop="transformers")
    assert "queries and keys are not made by" in got.reason


def test_a_model_that_is_no_longer_what_was_read_falls_back():
    made = model()
    attend = made.model.layers[1].self_attn.forward

    def louder(*inputs, **named):
        attended, *others = attend(*inputs, **named)
        return (attended + 1, *others)

    made.model.layers[1].self_attn.forward = louder
    got = compare(made, loop="transformers")
    assert "layer 1" in got.reason


def test_an_mlp_that_someone_changed_runs_as_it_is():
    made = model()
    before = compare(made)
    inner = made.model.layers[1].mlp.forward
    made.model.layers[1].mlp.forward = lambda x: inner(x) + 1
    assert compare(made).sequences.tolist() != before.sequences.tolist()


def test_a_copy_of_a_model_has_a_loop_of_its_own():
    made = model()
    first = compare(made)
    other = copy.deepcopy(made)
    with torch.no_grad():
        other.lm_head.weight.neg_()
    assert compare(other).sequences.tolist() != first.sequences.tolist()
    assert compare(made).sequences.tolist() == first.sequences.tolist()
