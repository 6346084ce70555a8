"""Texts as prompts, the ends of texts, streams, and sentences for what cannot be generated from."""

import pytest
import torch

import polyad
import tiny
from polyad.models import origin
from polyad.models.source import Origin


@pytest.fixture(scope="module")
def made():
    model = tiny.model()
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    model.polyad_origin = Origin("tiny", None, tiny.tokenizer())
    origin(model).tokenizer.eos_token = None
    return model


def run(model, prompt, **settings):
    return polyad.generate(model, prompt, **{"max_new_tokens": 24, "dtype": torch.float32} | settings)


def test_a_text_and_its_tokens_are_the_same_prompt(made):
    ids = origin(made).tokenizer("the import statement").input_ids
    got = run(made, "the import statement")
    assert got.loop == "polyad"
    assert (
        got.sequences.tolist() == run(made, ids).sequences.tolist() == run(made, torch.tensor(ids)).sequences.tolist()
    )
    assert got.text == (origin(made).tokenizer.decode(got.tokens[0], skip_special_tokens=True),)


def test_texts_of_a_batch_are_continued_as_each_alone(made):
    texts = ["the import statement", "a", "the words of a longer text that is continued"]
    got = run(made, texts)
    assert got.text == tuple(run(made, text).text[0] for text in texts)


def test_stop_tokens_end_a_text(made):
    free = run(made, "the import statement").tokens[0].tolist()
    end = next(token for i, token in enumerate(free) if i > 3 and token not in free[:i])
    got = run(made, "the import statement", stop=end)
    assert got.tokens[0].tolist() == free[: free.index(end) + 1]
    for place in (made.config, made.generation_config):
        place.eos_token_id = [499, end]
        stopped = run(made, "the import statement")
        place.eos_token_id = None
        assert stopped.tokens[0].tolist() == free[: free.index(end) + 1]


def test_a_batch_is_padded_behind_a_stop_token(made):
    texts = ["the import statement", "a"]
    free = run(made, texts).tokens.tolist()
    end = free[0][5]
    assert end not in free[0][:5] + free[1]
    made.generation_config.pad_token_id = 3
    got = run(made, texts, stop=[end]).tokens.tolist()
    made.generation_config.pad_token_id = 0
    assert got[0] == [*free[0][:6], *[3] * 18]
    assert got[1] == free[1]


def test_stop_words_end_a_text(made):
    free = run(made, "the import statement")
    word = free.text[0][6:9]
    got = run(made, "the import statement", stop=word)
    assert word in got.text[0]
    assert got.tokens.shape[1] < free.tokens.shape[1]


@pytest.mark.parametrize("cache", ["plain", "kivi:bits=8,group=8,window=4"])
def test_pieces_of_a_stream_are_the_text(made, cache):
    pieces = []
    got = run(made, "the import statement", stream=pieces.append, cache=cache)
    assert "".join(pieces) == got.text[0]
    assert len(pieces) > 1


@pytest.mark.parametrize(
    ("prompt", "settings", "kind", "sentence"),
    [
        ("", {}, ValueError, "the prompt is empty"),
        ([], {}, ValueError, "the prompt is empty"),
        (["a", ""], {}, ValueError, "the prompt is empty"),
        (torch.zeros(1, 0, dtype=torch.int64), {}, ValueError, "the prompt is empty"),
        (torch.ones(3), {}, ValueError, "give integers"),
        ([1.5], {}, TypeError, "neither texts nor token ids"),
        ([700], {}, ValueError, "token ids from 700 to 700"),
        ([1] * 65, {}, ValueError, "65 tokens and the model 64 positions"),
        ([5, 6], {"max_new_tokens": 0}, ValueError, "max_new_tokens=0 is below 1"),
        ([5, 6], {"max_new_tokens": 1.5}, TypeError, "max_new_tokens is a float"),
        ([5, 6], {"dtype": torch.int8}, ValueError, "dtype=torch.int8 is not one of"),
        ([5, 6], {"dtype": "float32"}, ValueError, "dtype='float32' is not one of"),
        ([5, 6], {"generator": 3}, TypeError, "generator is a int"),
        ([5, 6], {"cache": 3}, TypeError, "cache is a int"),
        ([5, 6], {"cache": "kivy"}, ValueError, "kivy"),
        ([5, 6], {"stop": 1.5}, TypeError, "stop"),
        ([5, 6], {"stop": [""]}, ValueError, "stop=\\[''\\]"),
        ([5, 6], {"stream": 3}, TypeError, "stream is a int"),
        (["a", "b"], {"stream": print}, ValueError, "the batch has 2 prompts"),
        ("a", {"attention_mask": torch.ones(1, 1)}, ValueError, "texts are padded here"),
        ([5, 6], {"attention_mask": torch.ones(1, 3)}, ValueError, "attention_mask has shape"),
        ([5, 6], {"attention_mask": torch.tensor([[1, 0]])}, ValueError, "pad prompts on the left"),
    ],
)  # fmt: skip
def test_bad_requests_get_a_sentence(made, prompt, settings, kind, sentence):
    with pytest.raises(kind, match=sentence):
        run(made, prompt, **settings)


def test_bad_models_get_a_sentence(made):
    with pytest.raises(TypeError, match="model is a str"):
        run("smollm2", [1])
    with pytest.raises(ValueError, match="is in training mode"):
        run(tiny.model().train(), [1])
    with torch.device("meta"):
        empty = tiny.model()
    with pytest.raises(ValueError, match="is on the meta device and has no numbers"):
        run(empty, [1])
    with pytest.raises(ValueError, match="predicts no next token"):
        run(made.model, [1])
    with pytest.raises(ValueError, match="no tokenizer"):
        run(tiny.model(), "text")
