"""The comparison of a written file, as llama.cpp runs it, with the model that it was made of."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyad.export.gguf.contents import Contents
from polyad.export.gguf.pretokenizers import SAMPLE
from polyad.export.gguf.reference import (
    continue_greedily,
    log_probabilities,
    rounded_inputs,
    with_numbers_of_file,
)
from polyad.interop.gguf_engine import engine_name, is_installed, run_engine
from polyad.models import origin

PREDICT, TOP = 12, 8
LENGTHS = (5, 40)
BEYOND = 1024
"""The longest prompt with which windows and scaled rotations are looked at."""
FLOOR = 0.01
"""Root mean square of differences of log-probabilities that are never taken for a fault: tables of activations."""
SEVERAL = 2.0
"""Times the differences that rounding inputs makes which are no fault either: an engine may round them otherwise."""


def refuse_without_engine() -> None:
    """Refuse to write what cannot be run."""
    if not is_installed():
        raise ImportError(
            "the written file is run by llama.cpp before it is put in its place, and that is not installed: "
            "pip install 'polyad[engines]', or give --unchecked (unchecked=True) to write without"
        )


def check_file(model: Any, whole: Contents, file: Path, lora: Path | None) -> dict[str, Any]:
    """Run a written file and compare tokens and log-probabilities with the model; what differs is refused.

    The model has the numbers of the file for that, so that what rounding weights costs is not taken for a fault of
    the file, nor hides one. The model rounds the inputs of its layers as the engine does;
    the tolerance is some times what that does, for engines that round in another order.
    """
    reference = with_numbers_of_file(model, whole.encoded)
    prompts = sample_prompts(model, whole)
    plain = [continue_greedily(reference, prompt, PREDICT) for prompt in prompts]
    continued = [tokens for tokens, _ in plain]
    template = chat_sample(origin(model).tokenizer)
    texts = [SAMPLE, *([] if template is None else [template])]
    answer = run_engine({
        "file": str(file), "lora": None if lora is None else str(lora), "threads": torch.get_num_threads(),
        "context": max(len(prompt) for prompt in prompts) + PREDICT + 4, "prompts": prompts, "continued": continued,
        "top": TOP, "texts": texts,
    })  # fmt: skip
    check_tokens(origin(model).tokenizer, texts, answer["ids"])
    with rounded_inputs(reference, whole.encoded):
        rounded = [log_probabilities(reference, *pair) for pair in zip(prompts, continued, strict=True)]
    ours, noisy = torch.cat([values for _, values in plain]), torch.cat(rounded)
    return difference_figures([top for tops in answer["answers"] for top in tops], ours, noisy)


def difference_figures(theirs: list[Any], ours: Tensor, rounded: Tensor) -> dict[str, Any]:
    """The figures of a comparison at many positions (of log-probabilities (positions, vocabulary) of ours)."""
    places = [place for place, top in enumerate(theirs) if top]
    if not places:
        raise ValueError("llama.cpp gave no token behind any prompt; nothing was written")
    ids = torch.tensor([[i for i, _ in theirs[place]] for place in places])
    far = torch.tensor([[value for _, value in theirs[place]] for place in places]) - rounded[places].gather(1, ids)
    noise = (rounded[places] - ours[places]).gather(1, ids)
    best = ours[places].amax(1)
    same = int((ours[places].gather(1, ids[:, :1]).flatten() == best).sum())
    spread, tolerance = float(far.square().mean().sqrt()), FLOOR + SEVERAL * float(noise.square().mean().sqrt())
    figures = {
        "engine": engine_name(), "tokens": len(places), "same_tokens": same, "rms_difference": spread,
        "largest_difference": float(far.abs().max()), "tolerance": tolerance,
    }  # fmt: skip
    if not (math.isfinite(spread) and spread <= tolerance):
        raise ValueError(
            f"llama.cpp runs the written file and says something else than the model: log-probabilities differ by "
            f"{spread:.3g} (root mean square; {tolerance:.3g} is allowed), {same} of {len(places)} greedy tokens "
            "agree; nothing was written. Use --format onnx or transformers instead"
        )
    return figures


def sample_prompts(model: Any, whole: Contents) -> list[list[int]]:
    """Two short prompts, and one that is longer than windows and original lengths are, as far as that is cheap."""
    tokenizer = origin(model).tokenizer
    ids = list(tokenizer(SAMPLE, verbose=False).input_ids)
    limit = whole.keys[f"{whole.architecture}.context_length"] - PREDICT - 1
    lengths: list[int] = list(LENGTHS)
    keys = {key.partition(".")[2]: value for key, value in whole.keys.items()}
    original = keys.get("rope.scaling.original_context_length")
    if original is not None and "rope_factors_long.weight" in whole.tensors:
        # the engine takes these for long contexts, however short the text, and rounds contexts up to 256
        limit = max(LENGTHS[0], min(limit, original - 256 - PREDICT))
    scaled = original is not None or "rope.scaling.factor" in keys or "rope_freqs.weight" in whole.tensors
    if scaled or "attention.sliding_window" in keys:
        lengths.append(min(2 * (original or keys.get("attention.sliding_window") or BEYOND), BEYOND))
    lengths = sorted({min(length, limit) for length in lengths if min(length, limit) > 0})
    return [(ids * (length // len(ids) + 1))[:length] for length in lengths]


def chat_sample(tokenizer: Any) -> str | None:
    """A turn of a chat, as the tokenizer's template writes it; None without a template."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    turn = [{"role": "user", "content": "Hello, how are you?"}]
    try:
        return tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    except Exception:  # a template may raise anything over what it is given; then there is nothing to compare
        return None


def check_tokens(tokenizer: Any, texts: list[str], engine: list[list[int]]) -> None:
    """Refuse a file with which the engine reads other tokens than the model's tokenizer."""
    for text, theirs in zip(texts, engine, strict=True):
        ours = list(tokenizer(text, verbose=False).input_ids)
        if ours != theirs:
            place = next(
                (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
            )
            raise ValueError(
                f"llama.cpp cuts a text into other tokens than the model's tokenizer: at token {place} of "
                f"{len(ours)} it reads {theirs[place : place + 3]} for {ours[place : place + 3]}; nothing was written"
            )
