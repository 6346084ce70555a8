"""The rules by which llama.cpp splits text before its merges, as the library tokenizers has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
FOLDED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
FIRST = CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MARKS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
BEFORE = r"[^\r\n\p{L}\p{N}]?"
SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

KINDS: Mapping[str, tuple[str, ...]] = {
    "gpt-2": (FIRST,),
    "smollm": (r"\p{N}", FIRST),
    "qwen2": (FOLDED + WORDS + r"|\p{N}" + MARKS,),
    "llama-bpe": (FOLDED + WORDS + r"|\p{N}{1,3}" + MARKS,),
    "dbrx": (FOLDED + WORDS + r"|\p{N}{1,3}" + MARKS,),
    "tekken": (f"{BEFORE}{UPPER}*{LOWER}+|{BEFORE}{UPPER}+{LOWER}*" + r"|\p{N}" + SLASH,),
    "gpt-4o": (f"{BEFORE}{UPPER}*{LOWER}+{FOLDED}?|{BEFORE}{UPPER}+{LOWER}*{FOLDED}?" + r"|\p{N}{1,3}" + SLASH,),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", FIRST, r"\p{N}+", "[0-9][0-9][0-9]"),
}
"""By the name in files: the patterns that split a text, one after the other."""

WHOLE_WORDS = ("llama-bpe", "tekken")
"""Kinds for which a word that is a token is taken as it is, whatever the merges say."""

SAMPLE = (
    "The quick brown fox (aged 3) didn't jump over 1234567 lazy dogs; it's 98.6°F — we'll see!\n\n"
    "def f(x):\n    return {'a': x**2, \"b\": [i for i in range(10)]}  # done\n\t\tif x != 0:\r\n"
    "Él preguntó: ¿cuántos años, señor Ångström? Größe, naïve, ŁÓDŹ, Ελλάδα, Привет мир.\n"
    "你好，世界！今天是2024年12月31日。 こんにちは 한국어 नमस्ते مرحبا שלום\n"
    "   three   spaces\t and 🙂🚀👩‍💻 emoji…  HELLOworld helloWORLD I'LL can'T e=mc² ½ http://a.b/c?d=1&e=2  \n"
)
"""A text with digits, accents, several scripts, code, emoji and runs of spaces, in which splitting rules differ."""


def choose_kind(tokenizer: Any, stated: Mapping[str, Any]) -> str:
    """The kind that gives the very ids of a tokenizer on the sample; ``stated`` is what its tokenizer.json says."""
    expected = tokenizer(SAMPLE, add_special_tokens=False, verbose=False).input_ids
    for kind in KINDS:
        if _as_llama_cpp(stated, kind).encode(SAMPLE, add_special_tokens=False).ids == list(expected):
            return kind
    raise ValueError(
        f"the tokenizer splits text as none of GGUF's kinds does ({', '.join(KINDS)} were tried on a text), so the "
        "file's engine would read other tokens; use --format onnx or transformers instead"
    )


def _as_llama_cpp(stated: Mapping[str, Any], kind: str) -> Any:
    """A tokenizer of these tokens and merges that splits as llama.cpp does for a kind."""
    from tokenizers import Tokenizer

    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in KINDS[kind]
    ]
    encode = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {**stated["model"], "ignore_merges": kind in WHOLE_WORDS, "dropout": None}
    return Tokenizer.from_str(json.dumps({
        **stated, "model": model, "normalizer": None, "post_processor": None, "truncation": None, "padding": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, encode]},
    }))  # fmt: skip
