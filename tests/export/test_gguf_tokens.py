"""The tokenizer, its special tokens and its chat template in a GGUF file."""

import json

import gguf
import pytest
import tokenizers
import transformers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

import polyad
import tiny
from polyad.export import export
from polyad.export.gguf.pretokenizers import KINDS, SAMPLE, WHOLE_WORDS, choose_kind
from polyad.export.gguf.tokens import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER
from polyad.interop import gguf_engine
from polyad.models.source import Origin
from polyad.testing.decoders import random_decoder

TEXTS = [body for _, body in tiny.TOPICS[:6]]


def byte_level(patterns, whole_words=False):
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=whole_words))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    encode = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([*splits, encode])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=encode.alphabet(), special_tokens=["<end>"], show_progress=False
    )
    made.train_from_iterator([*TEXTS, SAMPLE * 60], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<end>")


def sentencepiece(prepend=True):
    """A tokenizer of pieces with bytes behind them, as Llama 2 and Gemma have it."""
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    spaces = [normalizers.Prepend("▁")] * prepend + [normalizers.Replace(" ", "▁")]
    made.normalizer = normalizers.Sequence(spaces)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False, max_token_length=16)
    made.train_from_iterator(TEXTS, trainer)
    stated = json.loads(made.to_str())
    stated["added_tokens"] = stated["added_tokens"][:3]
    made = tokenizers.Tokenizer.from_str(json.dumps(stated))
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def write(folder, tokenizer, rows=None, generation=None):
    shape = {**tiny.SHAPE, "vocab_size": rows or len(tokenizer), "max_position_embeddings": 128, "eos_token_id": 2}
    model = random_decoder("Llama", **shape)
    model.polyad_origin = Origin("tiny", None, tokenizer)
    if generation:
        model.generation_config.eos_token_id = generation
    export(model, folder / "x.gguf", "gguf", unchecked=not gguf_engine.is_installed(), container="F32")
    reader = gguf.GGUFReader(folder / "x.gguf")
    return {
        name.removeprefix("tokenizer."): field.contents()
        for name, field in reader.fields.items()
        if name.startswith("tokenizer.")
    }


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"dbrx"}))
def test_the_kind_is_the_one_that_cuts_text_alike(kind):
    tokenizer = byte_level(KINDS[kind], kind in WHOLE_WORDS)
    assert choose_kind(tokenizer, json.loads(tokenizer.backend_tokenizer.to_str())) == kind


def test_a_tokenizer_of_no_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"splits text as none of GGUF's kinds does \(gpt-2, "):
        write(tmp_path, byte_level([r".{3}"]))
    pieces = tokenizers.Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], unk_id=0, byte_fallback=False))
    with pytest.raises(ValueError, match="a tokenizer of the kind Unigram has no place in a GGUF file"):
        write(tmp_path, transformers.PreTrainedTokenizerFast(tokenizer_object=pieces))
    assert list(tmp_path.iterdir()) == []


def test_types_of_tokens_ends_and_padding(tmp_path):
    tokenizer = byte_level(KINDS["gpt-2"])
    tokenizer.add_tokens(["<think>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    count = len(tokenizer)
    keys = write(tmp_path, tokenizer, rows=count + 4, generation=[2, 7, tokenizer.convert_tokens_to_ids("<turn>")])
    types = keys["ggml.token_type"]
    assert [types[tokenizer.convert_tokens_to_ids(name)] for name in ("<end>", "<turn>", "<think>")] == [
        CONTROL, CONTROL, USER,
    ]  # fmt: skip
    assert types[count:] == [UNUSED] * 4
    assert types[20] == NORMAL
    assert keys["ggml.tokens"][count] == f"[PAD{count}]"
    assert [keys[f"ggml.{end}_token_id"] for end in ("eos", "eot", "eom")] == [0, 2, 7]
    assert keys["ggml.add_bos_token"] is False


@pytest.mark.parametrize("prepend", [True, False])
def test_pieces_with_bytes(prepend, tmp_path):
    tokenizer = sentencepiece(prepend)
    tokenizer.chat_template = {"default": "{{bos_token}}{{messages[0]['content']}}", "tool": "none"}
    keys = write(tmp_path, tokenizer)
    assert keys["ggml.model"] == "llama"
    assert keys["ggml.add_space_prefix"] is prepend
    assert keys["ggml.add_bos_token"] is True
    assert keys["ggml.bos_token_id"] == 1
    assert keys["ggml.token_type"][:4] == [UNKNOWN, CONTROL, CONTROL, BYTE]
    assert keys["chat_template"].startswith("{{bos_token}}")
    assert (keys["chat_templates"], keys["chat_template.tool"]) == (["tool"], "none")
    again = polyad.models.origin(polyad.load(tmp_path / "x.gguf")).tokenizer
    ids = again("two words, été 🙂").input_ids
    assert ids == tokenizer("two words, été 🙂").input_ids
    assert again.decode(ids, skip_special_tokens=True).removeprefix(" ") == "two words, été 🙂"
    assert prepend or again.decode(ids, skip_special_tokens=True) == "two words, été 🙂"
