"""Small random models of several architectures, with a tokenizer of their own."""

import torch
import transformers

from polyad.data import Text, stdlib
from polyad.testing.decoders import random_decoder, random_tokens

TOPICS = stdlib().documents
PART = Text("topics", TOPICS[:12])
"""About 40 KB: several windows of 64 tokens for calibration and for evaluation."""


def tokenizer(frame="$A"):
    """A byte-level BPE of 500 tokens, trained on a slice of the help topics.

    ``frame`` is what it puts around a text, such as ``<start> $A``: special tokens by their names.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = sorted(set(frame.split()) - {"$A", "<end>"})
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=["<end>", *special], show_progress=False
    )
    made.train_from_iterator([body for _, body in TOPICS[:6]], trainer)
    if frame != "$A":
        ids = [(token, made.token_to_id(token)) for token in ("<end>", *special)]
        made.post_processor = processors.TemplateProcessing(single=frame, special_tokens=ids)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<end>")


SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}

KINDS = {
    "llama": ("Llama", {}),
    "mha": ("Llama", {"num_key_value_heads": 4}),
    "mqa": ("Llama", {"num_key_value_heads": 1}),
    "tied": ("Llama", {"tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": 8, "head_dim": 8}),
    "qwen2": ("Qwen2", {}),
    "qwen2-mixed": ("Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "cohere": ("Cohere", {}),
    "olmo2": ("Olmo2", {}),
    "phi3": ("Phi3", {}),  # one projection for queries, keys and values
    "neox": ("GPTNeoX", {"num_key_value_heads": 4, "rotary_pct": 0.5}),  # a part of the channels is rotated
    "stablelm": ("StableLm", {"partial_rotary_factor": 0.5}),
    "starcoder2": ("Starcoder2", {"sliding_window": None}),
    "granite": ("Granite", {"attention_multiplier": 0.2}),
    "glm": ("Glm", {"head_dim": 8, "partial_rotary_factor": 0.5}),  # neighbouring channels, a part of them
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
}


def model(kind="llama", seed=0):
    """A random model whose activations are of the size that trained ones have, biases and norms included."""
    family, changed = KINDS[kind]
    shape = SHAPE if family != "GPT2" else {"vocab_size": 500, "bos_token_id": None, "eos_token_id": 0}
    return random_decoder(family, seed=seed, **{**shape, **changed})


def mixture(family="Mixtral", seed=0):
    """A mixture of four experts of ``transformers``, with no number at zero."""
    torch.manual_seed(seed)
    small = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 50, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8,
    }  # fmt: skip
    config = getattr(transformers, f"{family}Config")(**small, pad_token_id=0)
    made = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=0.2)
    return made


def ids(batch=2, length=24, seed=1):
    return random_tokens(batch, length, 500, seed)


def logits(made, tokens=None, **more):
    with torch.no_grad():
        return made(ids() if tokens is None else tokens, **more).logits
