"""Copies of caches: deep copies, pickles, repeated rows, and other instances of the model."""

import copy
import gc
import io
from functools import partial

import pytest
import torch

import polyad.cache  # noqa: F401
import tiny
from polyad._card import methods
from polyad.cache import Kivi, Metric, Palu, cache_for, observe
from polyad.testing.codecs import _subject as subject

CODECS = {card.name: card for card in methods("codec")}
EVERY = pytest.mark.parametrize("card", CODECS.values(), ids=list(CODECS))
IDS, NEXT = subject.tokens(2, subject.PROMPT), subject.tokens(2, 9, seed=3)
NEAR = {"rtol": 1e-9, "atol": 1e-9}


def filled(card, model, ids=IDS):
    make = partial(card.function, **dict(card.example))
    cache = cache_for(model, make, window=subject.WINDOW, seen=subject.statistics(card))
    subject.logits(model, ids, cache)
    return cache


def continued(model, cache, ids=NEXT):
    """The logits of tokens that follow one by one."""
    return subject.logits(model, ids, cache, [1] * ids.shape[1])


def modules_in(value):
    """The torch modules that an object refers to."""
    seen, queue, result = set(), [value], []
    while queue:
        one = queue.pop()
        if id(one) in seen or isinstance(one, type) or (callable(one) and hasattr(one, "__code__")):
            continue
        seen.add(id(one))
        if isinstance(one, torch.nn.Module):
            result.append(one)
        elif not isinstance(one, torch.Tensor):
            queue += gc.get_referents(one)
    return result


@EVERY
def test_a_deep_copy_goes_on_as_the_cache_does_and_apart_from_it(card):
    model = subject.decoder()
    cache = filled(card, model)
    duplicate = copy.deepcopy(cache)
    assert all(module in list(model.modules()) for module in modules_in(duplicate))
    expected = continued(model, cache)
    assert bool(torch.isfinite(expected).all())
    torch.testing.assert_close(continued(model, duplicate), expected, **NEAR)
    assert duplicate.get_seq_length() == cache.get_seq_length() == subject.PROMPT + 9
    assert duplicate.nbytes == cache.nbytes
    assert duplicate.shared_nbytes == cache.shared_nbytes


def test_a_deep_copy_shares_what_the_model_holds_once():
    cache = filled(CODECS["metric"], subject.decoder())
    duplicate = copy.deepcopy(cache)
    for one, other in zip(cache.held[0].codec.bases, duplicate.held[0].codec.bases, strict=True):
        assert one.data_ptr() == other.data_ptr()
    (_, first, _), (_, second, _) = cache.held[0].stored.read()[0], duplicate.held[0].stored.read()[0]
    assert first.left.data_ptr() != second.left.data_ptr()


@EVERY
def test_a_pickle_holds_the_sequences_and_no_module_of_the_model(card):
    model = subject.decoder()
    cache = filled(card, model)
    file = io.BytesIO()
    torch.save(cache, file)  # as pickle does, and with dtypes of one byte
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert not [module for module in modules_in(again) if list(module.parameters())]
    torch.testing.assert_close(continued(model, again), continued(model, cache), **NEAR)


@EVERY
@pytest.mark.parametrize("prepared", ["before", "after"])
def test_another_instance_of_the_model_reads_the_cache(card, prepared):
    model = subject.decoder()
    cache = filled(card, model)
    other = copy.deepcopy(model)
    if prepared == "after":  # as a model that is loaded anew
        for module in other.modules():
            module._forward_pre_hooks.clear()
        other.set_attn_implementation("sdpa")
        cache_for(other)
        cache_for(other, partial(card.function, **dict(card.example)), seen=subject.statistics(card))
    expected = continued(model, copy.deepcopy(cache))
    torch.testing.assert_close(continued(other, cache), expected, **NEAR)


def test_a_model_that_was_never_prepared_says_what_to_do():
    model = tiny.model()
    cache = cache_for(model, partial(Kivi, group=4), window=4)
    tiny.logits(model, tiny.ids(2, 20), past_key_values=cache)
    with pytest.raises(ValueError, match="cache_for"):
        tiny.logits(tiny.model(), tiny.ids(2, 1), past_key_values=cache)
    seen = observe(model, Metric, [tiny.ids(1, 40)])
    cache = cache_for(model, partial(Metric, rank=4), window=4, seen=seen)
    other = tiny.model()
    cache_for(other, Kivi)  # which hears no positions
    with pytest.raises(ValueError, match="cache_for"):
        tiny.logits(other, tiny.ids(2, 20), past_key_values=cache)


@EVERY
def test_repeated_rows_are_those_rows(card):
    model = subject.decoder()
    cache = filled(card, model)
    single = copy.deepcopy(cache)
    cache.batch_repeat_interleave(3)
    expected = continued(model, single).repeat_interleave(3, 0)
    torch.testing.assert_close(continued(model, cache, NEXT.repeat_interleave(3, 0)), expected, **NEAR)


@EVERY
def test_repeated_rows_of_padded_prompts_are_those_rows(card):
    model, mask = subject.decoder(), torch.ones(2, subject.PROMPT + 9, dtype=torch.int64)
    mask[0, : subject.PADDING] = 0
    make = partial(card.function, **dict(card.example))
    cache = cache_for(model, make, window=subject.WINDOW, seen=subject.statistics(card))
    with torch.no_grad():
        places = (mask.cumsum(1) - 1).clamp(min=0)
        subject.logits(model, IDS, cache, positions=places[:, : subject.PROMPT], mask=mask[:, : subject.PROMPT])
        results = []
        for repeats in (1, 2):
            duplicate = copy.deepcopy(cache)
            duplicate.batch_repeat_interleave(repeats)
            rows = lambda t, n=repeats: t.repeat_interleave(n, 0)  # noqa: E731
            results.append(
                model(
                    rows(NEXT[:, :1]), position_ids=rows(places[:, subject.PROMPT : subject.PROMPT + 1]),
                    attention_mask=rows(mask[:, : subject.PROMPT + 1]), past_key_values=duplicate,
                ).logits
            )  # fmt: skip
    torch.testing.assert_close(results[1], results[0].repeat_interleave(2, 0), **NEAR)


@pytest.mark.parametrize("rows", [(0, 2), [2, 0, 2], torch.tensor([1])])
@pytest.mark.parametrize("make", [None, partial(Palu, rank=8, value_rank=8)])
def test_rows_are_chosen_by_any_list_of_numbers(make, rows):
    model = tiny.model()
    ids = tiny.ids(3, 12)
    seen = None if make is None else observe(model, make, [tiny.ids(4, 48)])
    cache = cache_for(model, make, window=4, seen=seen)
    with torch.no_grad():
        model(ids, past_key_values=cache)
        cache.batch_select_indices(rows)
        kept = [int(row) for row in rows]
        more = model(ids[kept, -1:], past_key_values=cache).logits
        other = cache_for(model, make, window=4, seen=seen)
        model(ids[kept], past_key_values=other)
        torch.testing.assert_close(more, model(ids[kept, -1:], past_key_values=other).logits)
