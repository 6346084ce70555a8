"""Statistics that a calibration gave, and then were lost, cut, or made of another model; models that no text fits."""

from functools import partial

import pytest
import torch
import transformers

import tiny
from polyad._card import methods
from polyad.cache import KSortBFP, MatryoshkaKV, Metric, cache_for, observe

NEEDY = [card for card in methods("codec") if card.needs]
PAIR = {
    "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 97,
    "decoder_start_token_id": 0,
}  # fmt: skip
SOUND = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "vocab_size": 97,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_source_positions": 20,
    "max_target_positions": 60, "num_mel_bins": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 2, "begin_suppress_tokens": None, "suppress_tokens": None,
}  # fmt: skip
DAMAGE = {
    "missing": (lambda t: None, "has no statistics"),
    "cut": (lambda t: t[..., :-1], "shape"),
    "nan": (lambda t: t * float("nan"), "NaN or infinite"),
    "whole numbers": (lambda t: t.to(torch.int32), "floating-point"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("card", NEEDY, ids=lambda card: card.name)
def test_damaged_statistics_are_refused_by_their_names(card, damage):
    model = tiny.model()
    make = partial(card.function, **{k: v for k, v in card.example.items() if isinstance(v, int | float)})
    seen = observe(model, make, [tiny.ids(1, 40)])
    for name in card.needs[""] & seen[0].keys():
        change, said = DAMAGE[damage]
        damaged = [dict(layer) for layer in seen]
        damaged[1] |= {name: change(damaged[1][name])}
        if damage == "missing":
            del damaged[1][name]
            if "_fisher" in name and card.name == "palu":  # read where no ranks are given
                continue
        with pytest.raises(ValueError, match=rf"layer 1 (has|holds).*'{name}'") as caught:
            cache_for(model, make, seen=damaged)
        assert said in str(caught.value)


def test_statistics_of_another_model_are_refused():
    wide = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**tiny.SHAPE, "num_key_value_heads": 4}))
    seen = observe(tiny.model("mqa"), MatryoshkaKV, [tiny.ids(1, 40)])
    seen = [{**layer, "key_mean": other["key_mean"]} for layer, other in zip(
        seen, observe(wide, MatryoshkaKV, [tiny.ids(1, 40)]), strict=True
    )]  # fmt: skip
    with pytest.raises(ValueError, match=r"layer 0 holds 'key_mean' of shape \(32,\)"):
        cache_for(tiny.model("mqa"), partial(MatryoshkaKV, rank=2), seen=seen)


def test_text_calibrates_an_encoder_and_its_decoder():
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**PAIR)).eval()
    tokens = tiny.ids(2, 30) % 90 + 3
    make = partial(KSortBFP, bits=8, group=4)
    seen = observe(model, make, [tokens])
    assert [tuple(layer["keys"].shape) for layer in seen] == [(32, 32)] * 2
    options = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False}
    expected = model.generate(tokens, **options)
    answer = model.generate(tokens, past_key_values=cache_for(model, make, window=4, seen=seen), **options)
    assert float((answer == expected).float().mean()) > 0.8


def test_models_that_read_sound_are_refused_for_a_calibration_with_text():
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**SOUND)).eval()
    with pytest.raises(ValueError, match="WhisperForConditionalGeneration takes input_features, so that no text"):
        observe(model, KSortBFP, [tiny.ids(1, 40) % 90])


def test_codecs_that_compare_with_queries_are_refused_before_the_calibration():
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**PAIR)).eval()
    with pytest.raises(ValueError, match="so that Metric cannot compare them with queries; choose a codec"):
        observe(model, Metric, [tiny.ids(1, 40) % 90])
