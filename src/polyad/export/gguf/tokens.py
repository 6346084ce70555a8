"""A tokenizer and its chat template as keys of a GGUF file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyad.export.gguf.pretokenizers import choose_kind
from polyad.models import origin
from polyad.models.special_tokens import tokenizer_frame

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
UNLIKELY = -1e6
"""The score of a token of several letters that no merge makes."""


def token_keys(model: Any, rows: int) -> dict[str, Any]:
    """The keys for a model's tokenizer, filled up with unused tokens to the rows of the embedding."""
    tokenizer = origin(model).tokenizer
    if tokenizer is None:
        raise ValueError(
            "a GGUF file holds its tokenizer, and this model has none; load it with polyad.load from a folder that "
            "holds one"
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    stated = json.loads(backend.to_str()) if backend is not None else {"model": {}}
    kind = stated["model"].get("type")
    if kind != "BPE":
        raise ValueError(
            f"a tokenizer of the kind {kind or type(tokenizer).__name__} has no place in a GGUF file, which holds "
            "byte pair encodings; use --format onnx or transformers instead"
        )
    keys = _byte_fallback(stated) if stated["model"].get("byte_fallback") else _byte_level(tokenizer, stated)
    tokens, types = _tokens(stated, rows, "▁" if stated["model"].get("byte_fallback") else "")
    keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"] = tokens, types
    scores = keys.get("tokenizer.ggml.scores")
    if scores is not None:
        keys["tokenizer.ggml.scores"] = scores + [UNLIKELY] * (rows - len(scores))
    return {**keys, **_special(model, tokenizer), **_templates(tokenizer)}


def name_of_file(model: Any) -> str:
    """The name of a model; llama.cpp reads in it whether special tokens swallow the spaces behind them (Phi 3)."""
    source = origin(model)
    name = Path(source.name).name or type(model).__name__
    added = getattr(source.tokenizer, "added_tokens_decoder", {}).values()
    swallow = {token.content for token in added if token.rstrip}
    if "</s>" in swallow:
        return name if re.search("phi-?3", name.lower()) else f"Phi-3 {name}"
    return re.sub("phi-?3", "phi", name, flags=re.IGNORECASE)


def _byte_level(tokenizer: Any, stated: Mapping[str, Any]) -> dict[str, Any]:
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in stated["model"]["merges"]]
    pre = choose_kind(tokenizer, stated)
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.merges": merges}


def _byte_fallback(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Pieces as SentencePiece has them: the earlier a merge, the higher the score of what it makes."""
    vocabulary: dict[str, int] = stated["model"]["vocab"]
    scores = {token: UNLIKELY if len(token) > 1 else 0.0 for token in vocabulary}
    for rank, pair in reversed(list(enumerate(stated["model"]["merges"]))):
        scores["".join(pair.split(" ") if isinstance(pair, str) else pair)] = -float(rank)
    count = max(vocabulary.values()) + 1
    by_id = [0.0] * count
    for token, number in vocabulary.items():
        by_id[number] = scores[token]
    rules = json.dumps([stated.get("normalizer"), stated.get("pre_tokenizer")])
    prefix = '"Prepend"' in rules or re.search(r'"prepend_scheme": "(first|always)"', rules) is not None
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.scores": by_id,
        "tokenizer.ggml.add_space_prefix": prefix,
    }  # fmt: skip


def _tokens(stated: Mapping[str, Any], rows: int, space: str) -> tuple[list[str], list[int]]:
    """Every token by its id, and its type."""
    added = {token["id"]: token for token in stated.get("added_tokens", [])}
    names = {number: token for token, number in stated["model"]["vocab"].items()}
    names |= {number: token["content"] for number, token in added.items()}
    unknown = stated["model"].get("unk_token")
    tokens, types = [], []
    for number in range(rows):
        token = names.get(number)
        if token is None:
            tokens.append(f"[PAD{number}]")
            types.append(UNUSED)
            continue
        kind = NORMAL
        if number in added:
            kind = CONTROL if added[number]["special"] else USER
            token = token if added[number]["special"] or not space else token.replace(space, " ")
        if token == unknown and space:
            kind = UNKNOWN
        elif space and BYTE_TOKEN.fullmatch(token):
            kind = BYTE
        tokens.append(token)
        types.append(kind)
    return tokens, types


def _special(model: Any, tokenizer: Any) -> dict[str, Any]:
    """The ids that begin, end and fill up texts: ends are those of tokenizer, configuration and generation."""
    frame = tokenizer_frame(tokenizer)
    if len(frame.before) > 1 or len(frame.after) > 1:
        raise ValueError(
            f"the tokenizer puts the tokens {[*frame.before]} before a text and {[*frame.after]} behind it, and GGUF "
            "has a place for one each; use --format onnx or transformers instead"
        )
    start = frame.before[0] if frame.before else tokenizer.bos_token_id
    generation = getattr(model, "generation_config", None)
    stated = [tokenizer.eos_token_id, *(getattr(x, "eos_token_id", None) for x in (model.config, generation))]
    ends = list(dict.fromkeys(i for value in stated for i in (value if isinstance(value, list) else [value])))
    ends = [*frame.after, *(i for i in ends if i is not None and i not in frame.after)]
    names = dict(zip(("eos", "eot", "eom"), ends, strict=False))
    ids = {"bos": start, **names, "unknown": tokenizer.unk_token_id, "padding": tokenizer.pad_token_id}
    return {
        **{f"tokenizer.ggml.{name}_token_id": int(i) for name, i in ids.items() if i is not None},
        "tokenizer.ggml.add_bos_token": bool(frame.before), "tokenizer.ggml.add_eos_token": bool(frame.after),
    }  # fmt: skip


def _templates(tokenizer: Any) -> dict[str, Any]:
    templates = getattr(tokenizer, "chat_template", None) or {}
    templates = {"default": templates} if isinstance(templates, str) else dict(templates)
    keys: dict[str, Any] = {}
    others = sorted(name for name in templates if name != "default")
    if others:
        keys["tokenizer.chat_templates"] = others
    keys |= {f"tokenizer.chat_template.{name}": templates[name] for name in others}
    return keys | ({"tokenizer.chat_template": templates["default"]} if "default" in templates else {})
