"""The reference decoder and its text: Llama-like, on byte-pair tokens of the State of the Union addresses."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from polyad.data import sotu

VOCABULARY = 4096
SIZES = {
    "10M": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6},
    "2.5M": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 6},
}
"""About so many parameters in the layers, outside of the embedding and the head."""
BATCH, LENGTH = 8, 128


def decoder(size: str, seed: int = 0) -> Any:
    """A decoder with random numbers of a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=VOCABULARY, max_position_embeddings=256, tie_word_embeddings=True, **SIZES[size]
        )
        return LlamaForCausalLM(config)


@functools.cache
def tokens() -> tuple[Tensor, Tensor]:
    """The token ids to train on, and those held out: the text's first 70 % and its last 30 %."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    text = sotu().joined()
    train, heldout = text[: int(0.7 * len(text))], text[int(0.7 * len(text)) :]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)  # pyright: ignore[reportCallIssue]
    tokenizer.train_from_iterator([train], trainer)
    first, last = (torch.tensor(tokenizer.encode(text).ids) for text in (train, heldout))
    return first, last


def batch(ids: Tensor, seed: int, step: int) -> Tensor:
    """Rows (BATCH, LENGTH) at random places of the tokens, the same at a step of a seed for every optimiser."""
    draws = torch.Generator().manual_seed(1_000_003 * seed + step)
    starts = torch.randint(len(ids) - LENGTH, (BATCH,), generator=draws)
    return ids[starts[:, None] + torch.arange(LENGTH)]


@torch.no_grad()
def heldout_loss(model: Any, ids: Tensor, rows: int = 64) -> float:
    """Nats a token over evenly spaced rows."""
    starts = torch.linspace(0, len(ids) - LENGTH - 1, rows).long()
    windows = ids[starts[:, None] + torch.arange(LENGTH)]
    losses = [float(model(part, labels=part).loss) for part in windows.split(16)]
    return sum(losses) / len(losses)
