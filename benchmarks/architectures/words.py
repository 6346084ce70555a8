"""A tokenizer of three hundred tokens, for models that have no other."""

from __future__ import annotations

import functools
from typing import Any

from polyad.data import stdlib


@functools.cache
def tokenizer() -> Any:
    """Bytes and the first merges of the built-in text; three special tokens come first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", "<start>", "<end>"], show_progress=False,
    )  # fmt: skip
    words.train_from_iterator([body for _, body in stdlib().documents[:3]], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<start>", eos_token="<end>")
