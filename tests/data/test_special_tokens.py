"""What a tokenizer puts around a text stands around everything that a model reads, and is in its hash."""

import json
import math
from functools import partial
from importlib.resources import files

import pytest
import torch
import transformers
from torch import nn

import polyad
import tiny
from polyad import claims
from polyad.adapters.training.batches import Tokens
from polyad.adapters.training.settings import Finetuning
from polyad.cache import Kivi, cache_for, observe
from polyad.cache.maker import maker
from polyad.data import Frame, calibration, digest, evaluation, frame, tokenizer_frame
from polyad.data.calibration import splits
from polyad.evaluation import evaluate
from polyad.evaluation.quality import compare_quality, losses, original_losses
from polyad.models.loading import Origin, smollm2
from polyad.models.pretrained import load_tokenizer

START, TWO, ENCODER = "<start> $A", "<mask> <start> $A", "<start> $A <stop>"


def start_of(text, model=None):
    """A model whose tokenizer puts this around a text; a decoder if none is given."""
    model = tiny.model() if model is None else model
    model.polyad_origin = Origin("tiny", None, tiny.tokenizer(text))
    return model


@pytest.mark.parametrize(
    ("around", "expected"), [("$A", ((), ())), (START, ((1,), ())), (TWO, ((1, 2), ())), (ENCODER, ((1,), (2,)))]
)
def test_a_frame_is_asked_of_the_tokenizer(around, expected):
    tokenizer = tiny.tokenizer(around)
    assert tokenizer_frame(tokenizer) == Frame(*expected)
    text = tiny.PART.joined()[:300]
    bare = torch.tensor(tokenizer(text, add_special_tokens=False).input_ids)
    assert tokenizer_frame(tokenizer).enclose(bare).tolist() == tokenizer(text).input_ids
    assert len(tokenizer) == 500
    assert tokenizer_frame(None) == Frame()


def test_a_frame_is_asked_of_tokenizers_that_transformers_has():
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the"])}
    assert tokenizer_frame(transformers.BertTokenizer(vocab=words)) == Frame((2,), (3,))
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("a", -1.0)]
    assert tokenizer_frame(transformers.T5Tokenizer(vocab=pieces, extra_ids=0)) == Frame((), (1,))


def test_a_decoder_is_given_what_comes_first_and_an_encoder_the_whole():
    assert frame(start_of(ENCODER)) == Frame((1,))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bert = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=500, **sizes))
    assert frame(start_of(ENCODER, bert)) == Frame((1,), (2,))
    t5 = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 500}
    both = transformers.T5ForConditionalGeneration(transformers.T5Config(**t5))
    assert frame(start_of(ENCODER, both)) == Frame((1,), (2,))
    assert frame(nn.Linear(1, 1)) == Frame()


@pytest.mark.usefixtures("own_cache")
def test_every_window_begins_with_the_start_token_and_its_text_follows(tiny_text):
    model = start_of(START)
    seen = calibration(model, tiny_text, count=10_000)
    assert seen.windows.shape[1] == 64
    assert bool((seen.windows[:, 0] == 1).all())
    assert bool((seen.windows[:, 1:] != 1).all())
    assert bool((seen.probe[:, 0] == 1).all())
    (part,) = splits(model, tiny_text)
    assert torch.equal(seen.windows[0, 1:], part.calibration[:63])
    assert torch.equal(seen.windows[-1, 1:], part.calibration[-63:])
    assert len(seen.windows) == len(part.calibration) // 63
    held = evaluation(model, tiny_text, count=2)["topics"]
    assert torch.equal(held[0], torch.cat([torch.tensor([1]), part.evaluation[:63]]))
    assert seen.digests == {"topics": digest(seen.windows)}
    assert digest(held) != digest(torch.stack([part.evaluation[:64], part.evaluation[-64:]]))


@pytest.mark.usefixtures("own_cache")
def test_windows_of_an_encoder_have_its_whole_frame(tiny_text, monkeypatch):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=500, max_position_embeddings=64, **sizes)
    model = start_of(ENCODER, transformers.BertModel(config))
    monkeypatch.setitem(calibration.__globals__, "PROBE_LENGTH", 24)
    seen = calibration(model, tiny_text, count=4)
    for rows in (seen.windows, seen.probe):
        assert bool((rows[:, 0] == 1).all())
        assert bool((rows[:, -1] == 2).all())
        assert bool((rows[:, 1:-1] > 2).all())
    assert (seen.windows.shape, seen.probe.shape) == ((4, 64), (2, 24))
    assert torch.equal(seen.probe[:, :-1], seen.windows[2:, :23])


@pytest.mark.usefixtures("own_cache")
def test_rows_without_room_for_text_are_refused(tiny_text):
    model = start_of(TWO)
    sentence = r"length=2 leaves no room for text beside the 2 tokens .* give a length of at least 3"
    with pytest.raises(ValueError, match=sentence):
        evaluation(model, tiny_text, length=2)
    with pytest.raises(ValueError, match=sentence):
        Tokens(model, Finetuning((str(tiny_text),), length=2))
    assert evaluation(model, tiny_text, length=3, count=1)["topics"].shape == (1, 3)


def nats(model, window, first):
    """The mean negative log-likelihood of a window's tokens from number ``first`` on, by hand."""
    p = tiny.logits(model, window[None])[0].double().log_softmax(-1)
    return -sum(float(p[i - 1, window[i]]) for i in range(first, len(window))) / (len(window) - first)


@pytest.mark.parametrize(("around", "first"), [("$A", 1), (START, 1), (TWO, 2)])
@pytest.mark.usefixtures("own_cache")
def test_what_the_tokenizer_puts_first_is_not_scored(around, first, tiny_text, tmp_path):
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer(around).save_pretrained(tmp_path / "model")
    model, other = polyad.load(tmp_path / "model"), start_of(around, tiny.model(seed=1))
    held = evaluation(model, tiny_text, count=2)["topics"]
    expected = [nats(model, window, first) for window in held]
    for measure in (losses, original_losses, original_losses):
        assert measure(model, held).tolist() == pytest.approx(expected, rel=1e-5)
    quality, agreement = compare_quality(other, model, {"topics": held})
    theirs = [nats(other, window, first) for window in held]
    gap = sum(theirs) / 2 - sum(expected) / 2
    assert quality["topics"].ratio == pytest.approx(math.exp(gap), rel=1e-4)
    assert agreement.top1 * 2 * (64 - first) == pytest.approx(round(agreement.top1 * 2 * (64 - first)), abs=1e-3)
    if around != "$A":  # the same words without it are of another hash
        plain = evaluate(start_of("$A", model), tiny_text, windows=2).perplexity["topics"]
        assert plain.sha256 != quality["topics"].sha256


@pytest.mark.usefixtures("own_cache")
def test_losses_of_two_readings_of_the_same_tokens_are_kept_apart(tiny_text, tmp_path):
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer(TWO).save_pretrained(tmp_path / "model")
    model = polyad.load(tmp_path / "model")
    held = evaluation(model, tiny_text, count=2)["topics"]
    before = original_losses(model, held)
    model.polyad_origin = Origin("tiny", tmp_path / "model", None)
    assert not torch.equal(original_losses(model, held), before)
    assert torch.equal(original_losses(model, held), losses(model, held))


@pytest.mark.parametrize(("around", "first"), [("$A", 1), (START, 1), (TWO, 2)])
@pytest.mark.usefixtures("own_cache")
def test_training_rows_begin_with_it_and_learn_what_follows(around, first, tiny_text):
    model = start_of(around)
    tokens = Tokens(model, Finetuning((str(tiny_text),), batch=3, length=24))
    (part,) = splits(model, tiny_text)
    rows, before = tokens.rows(2), frame(model).before
    assert rows.shape == (3, 24)
    text = part.calibration.unfold(0, 24 - len(before), 1)
    for row in rows:
        assert tuple(row[: len(before)].tolist()) == before
        assert bool((text == row[len(before) :]).all(1).any())
    expected = sum(nats(model, row, first) for row in rows) / 3
    assert float(tokens.loss(2).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("own_cache")
def test_a_training_is_another_where_rows_begin_otherwise(tiny_text, monkeypatch):
    asked = Finetuning((str(tiny_text),), length=24)
    model = start_of(START)
    told = Tokens(model, asked).digest
    monkeypatch.setitem(calibration.__globals__, "frame", lambda _model: Frame())
    assert Tokens(model, asked).digest != told


@pytest.mark.parametrize("around", ["$A", START, TWO])
def test_generate_continues_a_prompt_as_the_tokenizer_encodes_it(around, polyad_command, tmp_path):
    model, tokenizer = tiny.model(), tiny.tokenizer(around)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    prompt, ids = "the import", tokenizer("the import", return_tensors="pt").input_ids
    made = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    code, out, err = polyad_command(
        "generate", tmp_path / "model", prompt, "--tokens", 8, "--json", "--dtype", "float32"
    )
    assert code == 0, err
    assert json.loads(out)["text"] == tokenizer.decode(made, skip_special_tokens=True)
    code, _, err = polyad_command("generate", tmp_path / "model", "", "--tokens", 8)
    assert (code, "the prompt is empty" in err) == (1, True)


def test_a_prompt_is_not_ended_by_what_the_tokenizer_puts_last(polyad_command, tmp_path):
    model, tokenizer = tiny.model(), tiny.tokenizer(ENCODER)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    ids = tokenizer("the import", return_tensors="pt").input_ids[:, :-1]
    made = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    _, out, _ = polyad_command(
        "generate", tmp_path / "model", "the import", "--tokens", 8, "--json", "--dtype", "float32"
    )
    assert json.loads(out)["text"] == tokenizer.decode(made, skip_special_tokens=True)


@pytest.mark.usefixtures("own_cache")
def test_the_start_token_is_a_sink_of_a_cache(tiny_text):
    model = start_of(TWO)
    window = evaluation(model, tiny_text, count=1)["topics"]
    exact, stored = cache_for(model), maker(model, "kivi:bits=2,group=8,window=8", lambda: window)()
    for cache in (exact, stored):
        model(window, past_key_values=cache)
    for mine, theirs in zip(stored.held, exact.held, strict=True):
        assert mine.first.length == 4  # both tokens before the text, and two of the text
        for kept, whole in zip(mine.first.read(), theirs.recent.read(4), strict=True):
            assert torch.equal(kept, whole)
    whole, later = (observe(model, partial(Kivi, bits=2), window, sinks=sinks) for sinks in (0, 2))
    assert not torch.allclose(whole[0]["keys"], later[0]["keys"])


@pytest.mark.usefixtures("own_cache")
def test_a_recipe_and_a_comparison_of_caches_read_it(polyad_command, tiny_text, tmp_path, monkeypatch):
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer(START).save_pretrained(tmp_path / "model")
    read = []
    forward = transformers.LlamaModel.forward

    def spied(self, input_ids=None, **more):
        past = more.get("past_key_values")
        if input_ids is not None and (past is None or past.get_seq_length() == 0):
            read.append(input_ids)
        return forward(self, input_ids, **more)

    monkeypatch.setattr(transformers.LlamaModel, "forward", spied)
    text = ("--text", tiny_text, "--calibrate", tiny_text, "--windows", 2, "--calibration-windows", 2)
    for command, *words in (
        ("compress", "--method", "lord", "--keep", 0.8, "--out", tmp_path / "out"),
        ("cache", "--methods", "plain;metric:rank=4,bits=4,window=8", "--context", 40, "--scored", 8),
    ):
        read.clear()
        code, _, err = polyad_command(command, tmp_path / "model", *words, *text, "--alternations", 0)
        assert code == 0, err
        long = [ids for ids in read if ids.shape[1] > 16]  # shorter ones are trials of the model itself
        assert long
        assert all(bool((ids[:, 0] == 1).all()) for ids in long)


def test_rows_of_healing_begin_with_it():
    from polyad.attention.conversion.convert import _rows

    model, text = start_of(TWO), torch.arange(10, 10 + 3 * 62).view(3, 62)
    windows = list(frame(model).enclose(text))
    around = frame(model)
    rows = torch.cat([_rows(windows, around)(step) for step in range(2)])
    assert all(tuple(row[:2].tolist()) == (1, 2) for row in rows)
    assert sorted({tuple(row[2:].tolist()) for row in rows}) == [tuple(row.tolist()) for row in text]
    plain = torch.cat([_rows(list(text), around)(step) for step in range(2)])
    assert {tuple(row.tolist()) for row in plain} == {tuple(row.tolist()) for row in text}


def test_what_smollm2_reads_is_what_was_recorded():
    model = nn.Module()
    model.polyad_origin = Origin("smollm2", None, load_tokenizer(smollm2()))
    assert frame(model) == Frame()
    stored = json.loads(files(claims).joinpath("results", "eora.json").read_text())
    told = json.dumps(stored)
    assert digest(evaluation(model, "stdlib", count=8)["stdlib"]) in told
    assert calibration(model, "stdlib", count=8).digests["stdlib"] in told
