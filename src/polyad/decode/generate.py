"""Generating: a model continues prompts, by the loop where its structure permits and by transformers otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from polyad._types import check_type
from polyad.cache.host.held_cache import HeldCache
from polyad.cache.maker import PLAIN
from polyad.data import at_hand
from polyad.decode.by_transformers import generate_by_transformers, list_settings
from polyad.decode.caches import cache_by_name
from polyad.decode.clock import Clock
from polyad.decode.default_dtype import default_dtype
from polyad.decode.generation import Generation
from polyad.decode.loop import decoding_method
from polyad.decode.outline import NoLoopError
from polyad.decode.prepare import DTYPES, Prepared, prepare_decoder, stored_tensors
from polyad.decode.prompts import Prompt, read_prompt
from polyad.decode.stops import Stop, stop_settings, streamer_of
from polyad.layers.kernels import check_kernels
from polyad.models.loading import origin


def generate(
    model: Any,
    prompt: Prompt,
    *,
    max_new_tokens: int = 64,
    sample: bool = False,
    cache: str | HeldCache | None = PLAIN,
    dtype: torch.dtype | None = None,
    stream: Callable[[str], Any] | None = None,
    stop: Stop | None = None,
    generator: torch.Generator | None = None,
    logits_processor: Any = None,
    attention_mask: Tensor | None = None,
    calibrate: Any = None,
    kernels: str = "auto",
    **settings: Any,
) -> Generation:
    """Let a model continue a prompt, a text or token ids, or each of several.

    The tokens are those of ``model.generate``: the likeliest ones or, with ``sample``, drawn from ``generator``, with
    the temperature and whatever else the model's generation configuration or ``settings`` say. A text ends after
    ``max_new_tokens``, at a stop token or at a ``stop``, words or token ids. ``stream`` is called with each piece of
    the text. Token ids (batch, tokens) are padded on the left where ``attention_mask`` is zero.

    A decoder of layers that polyad knows from their structure runs in a loop of its own, in ``dtype``: by default
    bfloat16 where the processor is fast in it. What was read of the structure is checked once against the model's own
    forward pass. Any other model runs as transformers runs it, in the dtype that it has. ``cache`` is a codec's name,
    such as ``kivi:bits=4``, calibrated on ``calibrate`` where it needs that, or a cache. ``kernels`` are the loop's
    products, as for ``polyad.load``: in float32 ``auto`` takes none that round as bfloat16 does.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = {"hidden_size": 16, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 9}
    >>> model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, eos_token_id=None, **sizes)).eval()
    >>> generation = generate(model, [1, 5, 7], max_new_tokens=4, dtype=torch.float32)
    >>> generation.tokens.shape, generation.loop
    (torch.Size([1, 4]), 'polyad')
    """
    _check(model, max_new_tokens, dtype, generator, cache)
    check_kernels(kernels)
    ids, mask = read_prompt(model, prompt, attention_mask)
    streamer = streamer_of(model, stream, len(ids))
    settings |= {"max_new_tokens": max_new_tokens, "do_sample": bool(sample), "attention_mask": mask}
    _complete(settings, model, stop, logits_processor)
    texts = at_hand if calibrate is None else lambda: calibrate
    kv = cache_by_name(model, cache, texts) if isinstance(cache, str) else cache
    clock, wanted = Clock(ids.device), dtype or default_dtype(ids.device.type)
    prepared = prepare_decoder(model, wanted, kernels)
    reason, sequences = prepared.reason, None
    if prepared.decoder is not None:
        try:
            sequences = _by_loop(model, ids, kv, prepared, clock, streamer, generator, settings)
        except NoLoopError as error:
            reason = str(error)
    if sequences is None:
        sequences = generate_by_transformers(model, ids, kv, clock, streamer, generator, settings)
        wanted = model.dtype
    held_bytes = prepared.decoder.nbytes if prepared.decoder and reason is None else None
    return _result(model, ids, mask, sequences, clock, wanted, reason, held_bytes if kv is None else kv.nbytes)


def _complete(settings: dict[str, Any], model: Any, stop: Stop | None, logits_processor: Any) -> None:
    """Add the model's stops and whoever changes logits to what is given to transformers."""
    ends, criteria = stop_settings(model, stop)
    settings |= ends | {"return_dict_in_generate": False}
    settings["stopping_criteria"] = [*settings.get("stopping_criteria", ()), *criteria]
    if logits_processor is not None:
        several = isinstance(logits_processor, list | tuple)
        settings["logits_processor"] = list(logits_processor) if several else [logits_processor]


def _result(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    sequences: Tensor,
    clock: Clock,
    dtype: torch.dtype,
    reason: str | None,
    nbytes: int | None,
) -> Generation:
    tokens, tokenizer = sequences[:, ids.shape[1] :].clone(), origin(model).tokenizer
    text = None if tokenizer is None else tuple(tokenizer.batch_decode(tokens, skip_special_tokens=True))
    return Generation(
        tokens, sequences.clone(), text, "polyad" if reason is None else "transformers", reason, dtype,
        torch.get_num_threads(), clock.milliseconds_per_token, int(mask.sum()) / clock.prefill_seconds,
        clock.seconds, nbytes,
    )  # fmt: skip


def _check(model: Any, count: int, dtype: Any, generator: Any, cache: Any) -> None:
    """Refuse, before any work, what cannot be generated from."""
    check_type("model", model, nn.Module, "give the model itself, as polyad.load returns it")
    check_type("max_new_tokens", count, int, "give a number of tokens")
    if count < 1:
        raise ValueError(f"max_new_tokens={count} is below 1; ask for at least one token")
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is not one of {', '.join(map(str, DTYPES))}; choose one of them")
    if generator is not None:
        check_type("generator", generator, torch.Generator, "give a torch.Generator, or leave it out")
    if not isinstance(cache, str | HeldCache | None):
        raise TypeError(
            f"cache is a {type(cache).__name__}; give a name such as 'kivi:bits=4', or a cache of polyad's"
        )
    name = type(model).__name__
    if not getattr(model, "can_generate", lambda: False)():
        raise ValueError(f"a {name} predicts no next token, so that it continues no prompt; load a causal model")
    if any(tensor.is_meta for tensor in stored_tensors(model)):
        raise ValueError(f"the {name} is on the meta device and has no numbers; load its weights first")
    if model.training:
        raise ValueError(f"the {name} is in training mode, in which it drops numbers; call model.eval() first")


def _by_loop(
    model: Any, ids: Tensor, kv: HeldCache | None, prepared: Prepared, clock: Clock, streamer: Any, generator: Any,
    settings: dict[str, Any],
) -> Tensor:  # fmt: skip
    assert prepared.decoder is not None
    decode = decoding_method(prepared.decoder, clock, streamer, generator, kv)
    with prepared.lock, torch.inference_mode():
        try:
            return model.generate(ids, custom_generate=decode, **list_settings(settings))
        finally:
            if kv is not None:
                prepared.decoder.release()
