"""The comparison of a written file, as llama.cpp runs it, with the model that it was made of."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyad.export.gguf.contents import Contents
from polyad.export.gguf.encoding import Encoded
from polyad.export.gguf.pretokenizers import SAMPLE
from polyad.formats import Dense
from polyad.interop.gguf_engine import engine_name, is_installed, run_engine
from polyad.layers import Embedding, Factors, Linear
from polyad.models import origin

PREDICT, TOP = 12, 8
LENGTHS = (5, 40)
BEYOND = 1024
"""The longest prompt with which windows and scaled rotations are looked at."""
FLOOR = 0.01
"""Root mean square of differences of log-probabilities that are never taken for a fault: tables of activations."""
SEVERAL = 4.0
"""Times the differences that rounding activations makes, as llama.cpp rounds them, which are no fault either."""


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
    the file, nor hides one. The tolerance is several times what rounding the inputs of layers does, as the engine
    rounds them.
    """
    reference = with_numbers_of_file(model, whole.encoded)
    prompts = sample_prompts(model, whole)
    context = max(len(prompt) for prompt in prompts) + PREDICT + 4
    template = chat_sample(origin(model).tokenizer)
    texts = [SAMPLE, *([] if template is None else [template])]
    request = {
        "file": str(file), "lora": None if lora is None else str(lora), "threads": torch.get_num_threads(),
        "context": context, "prompts": prompts, "predict": PREDICT, "top": TOP, "texts": texts,
    }  # fmt: skip
    answer = run_engine(request)
    check_tokens(origin(model).tokenizer, texts, answer["ids"])
    plain = [log_probabilities(reference, p, a) for p, a in zip(prompts, answer["answers"], strict=True)]
    with rounded_inputs(reference, whole.encoded):
        rounded = [log_probabilities(reference, p, a) for p, a in zip(prompts, answer["answers"], strict=True)]
    return compare(answer["answers"], plain, rounded)


def compare(answers: list[dict[str, Any]], plain: list[Tensor], rounded: list[Tensor]) -> dict[str, Any]:
    """The figures of a comparison; a difference beyond the tolerance is refused."""
    differences, noise, same, tokens, gaps = [], [], 0, 0, [0.0]
    for answer, ours, noisy in zip(answers, plain, rounded, strict=True):
        for step, top in enumerate(answer["top"]):
            ids = torch.tensor([i for i, _ in top])
            theirs = torch.tensor([value for _, value in top])
            differences.append(theirs - ours[step, ids])
            noise.append(noisy[step, ids] - ours[step, ids])
            best = int(ours[step].argmax())
            tokens, same = tokens + 1, same + (best == answer["tokens"][step])
            gaps.append(float(ours[step, best] - ours[step, answer["tokens"][step]]))
    if not differences:
        raise ValueError("llama.cpp gave no token for any prompt, so that the file was not written")
    far = torch.cat(differences)
    spread, expected = float(far.square().mean().sqrt()), float(torch.cat(noise).square().mean().sqrt())
    tolerance = FLOOR + SEVERAL * expected
    figures = {
        "engine": engine_name(), "tokens": tokens, "same_tokens": same, "rms_difference": spread,
        "largest_difference": float(far.abs().max()), "tolerance": tolerance,
        "milliseconds_per_token": answers[-1]["milliseconds"],
    }  # fmt: skip
    if not (spread <= tolerance and max(gaps) <= 4 * tolerance and math.isfinite(spread)):
        raise ValueError(
            f"llama.cpp runs the written file and says something else than the model: log-probabilities differ by "
            f"{spread:.3g} (root mean square; {tolerance:.3g} is allowed), {same} of {tokens} greedy tokens agree; "
            "nothing was written. Use --format onnx or transformers instead"
        )
    return figures


def with_numbers_of_file(model: Any, encoded: tuple[Encoded, ...]) -> Any:
    """A copy of a model in float32 that has the numbers of the file where those were rounded."""
    reference = copy.deepcopy(model).float().cpu().eval()
    for one in encoded:
        if one.restored is None:
            continue
        module = reference.get_submodule(one.piece.path)
        if isinstance(module, Linear | Embedding):
            factors = Factors(Dense(one.restored), trainable=False)
            for other in [m for m in reference.modules() if getattr(m, "weight", None) is module.weight]:
                other.weight = factors
        else:
            matrix = one.restored if module.weight.shape == one.restored.shape else one.restored.mT
            module.weight.data = matrix.contiguous()
    return reference


@contextmanager
def rounded_inputs(reference: nn.Module, encoded: tuple[Encoded, ...]) -> Iterator[None]:
    """A model whose layers round what they read as llama.cpp does: for codes to eight bits in blocks of 32."""
    containers = {one.piece.path: one.rows.container for one in encoded if one.origin != "vector"}
    if "lm_head" not in containers:
        containers["lm_head"] = next(c for path, c in containers.items() if path.endswith("embed_tokens"))
    hooks = []
    for path, container in containers.items():
        if container != "F32" and not path.endswith("embed_tokens"):
            hooks.append(reference.get_submodule(path).register_forward_pre_hook(_rounding(container)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _rounding(container: str) -> Any:
    plain = {"F16": torch.float16, "BF16": torch.bfloat16}.get(container)

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *others = inputs
        if plain is not None:
            return (x.to(plain).to(x.dtype), *others)
        short = -x.shape[-1] % 32
        blocks = nn.functional.pad(x, (0, short)).unflatten(-1, (-1, 32))
        scale = (blocks.abs().amax(-1, keepdim=True) / 127).half().to(x.dtype)
        codes = (blocks / torch.where(scale == 0, 1, scale)).round()
        return ((codes * scale).flatten(-2)[..., : x.shape[-1]], *others)

    return hook


def log_probabilities(reference: Any, prompt: list[int], answer: dict[str, Any]) -> Tensor:
    """The log-probabilities (tokens, vocabulary) with which a model continues a prompt as the engine did."""
    ids = torch.tensor([[*prompt, *answer["tokens"]]])
    with torch.no_grad():
        logits = reference(ids).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1)


def sample_prompts(model: Any, whole: Contents) -> list[list[int]]:
    """Two short prompts, and one that is longer than windows and original lengths are, as far as that is cheap."""
    tokenizer = origin(model).tokenizer
    ids = list(tokenizer(SAMPLE, verbose=False).input_ids)
    limit = whole.keys[f"{whole.architecture}.context_length"] - PREDICT - 1
    lengths = list(LENGTHS)
    keys = {key.partition(".")[2]: value for key, value in whole.keys.items()}
    original = keys.get("rope.scaling.original_context_length")
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
