"""What polyad does with a model, each held against plain transformers or against arithmetic done here."""

from __future__ import annotations

import copy
import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from benchmarks.architectures.build import Architecture, inputs
from benchmarks.architectures.pictures import pictured
from benchmarks.architectures.words import tokenizer
from torch import Tensor, nn
from transformers import DynamicCache

import polyad
from polyad.adapters import Adapters, LoRA
from polyad.cache import Kivi, Palu, cache_for, observe
from polyad.cache.host.probe import uses_of_cache


class WrongResult(AssertionError):  # noqa: N818
    """A number that is not the right one."""


class DoesNotApply(Exception):  # noqa: N818 - it is no error
    """A job that has no meaning for this architecture."""


@dataclass
class Case:
    """One architecture in a folder of its own; every job starts from a model made anew."""

    architecture: Architecture
    folder: Path
    batch: dict[str, Tensor] | None = None
    """What the model is called with; None is text alone."""

    def model(self) -> Any:
        return self.architecture.model()

    def inputs(self, model: Any, **sizes: int) -> dict[str, Tensor]:
        if self.batch is None or sizes:
            return inputs(self.architecture, model, **sizes)
        return {name: t.to(model.dtype) if t.is_floating_point() else t for name, t in self.batch.items()}

    def logits(self, model: Any, **sizes: int) -> Tensor:
        with torch.no_grad():
            return model(**self.inputs(model, **sizes)).logits

    def decoder(self) -> Any:
        """A model that makes text token by token with a cache of keys and values."""
        if self.architecture.kind == "masked":
            raise DoesNotApply("it makes no text")
        model = self.model()
        if not model.can_generate():
            raise DoesNotApply("it makes no text")
        return model


def same(value: Tensor, other: Tensor, what: str) -> None:
    if value.shape != other.shape or not torch.equal(value, other):
        raise WrongResult(f"{what}: {distance(value, other)}")


def close(value: Tensor, other: Tensor, what: str, tolerance: float = 1e-4) -> None:
    if value.shape != other.shape or not distance(value, other) <= tolerance:
        raise WrongResult(f"{what}: relative error {distance(value, other):.2g}")


def distance(value: Tensor, other: Tensor) -> float:
    """The relative distance in the Frobenius norm; entries that are infinite on both sides count as equal."""
    if value.shape != other.shape:
        return float("inf")
    value, other = value.double(), other.double()
    equal = value == other
    value, other = value.masked_fill(equal, 0), other.masked_fill(equal & ~other.isfinite(), 0)
    return float((value - other.masked_fill(equal, 0)).norm() / other.norm().clamp_min(1e-30))


def load(case: Case) -> None:
    """A folder of transformers', loaded."""
    model = case.model()
    model.save_pretrained(case.folder)
    close(case.logits(polyad.load(case.folder)), case.logits(model), "loaded logits differ", 1e-6)


def save(case: Case) -> None:
    """A folder of polyad's, loaded twice: what was saved, saved again, and what plain transformers makes of it."""
    model = case.model()
    polyad.save(model, case.folder / "one")
    again = polyad.load(case.folder / "one")
    close(case.logits(again), case.logits(model), "logits differ after saving", 1e-6)
    polyad.save(again, case.folder / "two")
    close(case.logits(polyad.load(case.folder / "two")), case.logits(model), "logits differ after saving twice", 1e-6)
    plain = case.architecture.cls.from_pretrained(case.folder / "two", dtype=torch.float32).eval()
    close(case.logits(plain), case.logits(model), "plain transformers makes other logits of the folder", 1e-6)


def adapted(model: Any) -> Adapters:
    """LoRA on every linear layer but the last, with random factors."""
    last = {id(layer) for layer in (model.get_output_embeddings(),) if layer is not None}
    adapters = Adapters(model)
    adapters.attach("lora", lambda _, layer: id(layer) not in last, LoRA, rank=1, of=("linear",))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapters.parameters("lora"):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 / max(parameter.shape) ** 0.5)
    return adapters


def adapt(case: Case) -> None:
    """The function with LoRA is that of the plain model with B A added to its weights; loaded again, the same."""
    model, plain = case.model(), case.model()
    adapters = adapted(model)
    numbers = adapters.state_dict("lora")
    if not numbers:
        raise DoesNotApply("it has no linear layers")
    with torch.no_grad():
        for name in {name.rpartition(".")[0] for name in numbers}:
            weight = plain.get_submodule(name).weight
            update = numbers[f"{name}.B"] @ numbers[f"{name}.A"]
            transposed = type(plain.get_submodule(name)).__name__ == "Conv1D"
            weight.add_(update.T if transposed else update)
    changed = case.logits(model)
    close(changed, case.logits(plain), "adapted logits")
    if torch.equal(changed, case.logits(case.model())):
        raise WrongResult("the adapters change nothing")
    model.load_state_dict(model.state_dict())
    adapters.save("lora", case.folder / "adapter")
    again = case.model()
    Adapters(again).load(case.folder / "adapter")
    same(case.logits(again), changed, "logits after loading the adapter")


def merge(case: Case) -> None:
    """Merging keeps the function, is saved as a plain model, and undone to the bit."""
    model = case.model()
    before = case.logits(model)
    adapters = adapted(model)
    if not adapters.state_dict("lora"):
        raise DoesNotApply("it has no linear layers")
    changed = case.logits(model)
    adapters.merge()
    close(case.logits(model), changed, "merged logits")
    adapters.unmerge()
    close(case.logits(model), changed, "logits after unmerging", 1e-6)
    adapters.detach("lora")
    same(case.logits(model), before, "logits after detaching")
    adapters = adapted(model)
    adapters.merge(keep=False)
    merged = case.logits(model)
    close(merged, changed, "logits merged for good")
    polyad.save(model, case.folder / "merged")
    close(case.logits(polyad.load(case.folder / "merged")), merged, "logits of the merged model loaded", 1e-6)


def compress(case: Case) -> None:
    """A compressed model, loaded again, is the same; with nothing cut it is the original."""
    model = case.model()
    polyad.apply(model, polyad.plan(model, "svd", keep=0.5))
    polyad.save(model, case.folder / "half")
    loaded = case.logits(polyad.load(case.folder / "half"))
    close(loaded, case.logits(model), "logits of the compressed model loaded", 1e-6)
    whole = case.model()
    polyad.apply(whole, polyad.plan(whole, "rtn:bits=8"))
    polyad.save(whole, case.folder / "eight")
    loaded = case.logits(polyad.load(case.folder / "eight", kernels="plain"))
    close(loaded, case.logits(whole), "logits of the rounded model loaded", 1e-6)
    original, seen = case.model(), case.inputs(model)["input_ids"]
    close(case.logits(whole), case.logits(original), f"logits at eight bits ({tuple(seen.shape)})", 0.2)


def cache(case: Case) -> None:
    """Token by token with an exact cache, and with eight bits for a number."""
    model = case.decoder()
    plain = steps(case, model, None)
    close(steps(case, model, cache_for(model, window=4)), plain, "logits with the exact cache")
    close(steps(case, model, rounded(model)), plain, "logits with eight bits", 0.1)


def unrotated(case: Case) -> None:
    """The same with a codec that keeps all of every key, before its rotation; with padding and in a copy too."""
    model = case.decoder()
    plain, padded_too = steps(case, model, None), steps(case, model, None, pad=3)
    close(steps(case, model, all_coordinates(model)), plain, "logits", 1e-3)
    close(steps(case, model, all_coordinates(model), pad=3), padded_too, "logits of a padded batch", 1e-3)
    copied = steps(case, model, all_coordinates(model), between=copy.deepcopy)
    close(copied, plain, "logits with a copy", 1e-3)


def padding(case: Case) -> None:
    """The same for a batch padded on the left."""
    model = case.decoder()
    plain = steps(case, model, None, pad=3)
    close(steps(case, model, cache_for(model, window=4), pad=3), plain, "logits with the exact cache")
    greedy = {"max_new_tokens": 4, "do_sample": False}
    if model.config.is_encoder_decoder:
        greedy |= {"decoder_start_token_id": 0, "bos_token_id": 0}
    else:
        greedy["past_key_values"] = DynamicCache(config=model.config.get_text_config(decoder=True))
    kept = model.generate(**padded(case, model, 3), **greedy)
    other = model.generate(**padded(case, model, 3), **greedy | {"past_key_values": cache_for(model, window=4)})
    same(other, kept, "tokens generated")


def generate(case: Case) -> None:
    """``polyad generate``, plain and with rounded keys and values, against transformers' greedy tokens."""
    from polyad.cli import main

    model, words = case.decoder(), tokenizer()
    if model.config.is_encoder_decoder:
        raise DoesNotApply("`polyad generate` continues a prompt")
    model.generation_config.eos_token_id = None
    model.save_pretrained(case.folder)
    words.save_pretrained(case.folder)
    prompt = "the import statement"
    ids = words(prompt, return_tensors="pt").input_ids
    loaded = case.architecture.cls.from_pretrained(case.folder, dtype=torch.float32).eval()
    greedy = {"max_new_tokens": 6, "do_sample": False}
    caches = ({}, {"past_key_values": DynamicCache(config=loaded.config.get_text_config(decoder=True))})
    expected = set()
    for given in caches:  # transformers itself may differ by whether the cache is given, or take none
        with suppress(AttributeError, TypeError, ValueError):
            new = loaded.generate(ids, **greedy, **given)[0, ids.shape[1] :]
            expected.add(words.decode(new, skip_special_tokens=True))
    more = ("--tokens", "6", "--dtype", "float32", "--json", "--cache")
    for how in ("plain", "kivi:bits=8,group=4,window=4"):
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                with mock.patch.object(sys, "argv", ["polyad", "generate", str(case.folder), prompt, *more, how]):
                    main()
            except SystemExit as end:
                if end.code:
                    raise ValueError(err.getvalue().strip().removeprefix("error: ")) from None
        text = json.loads(out.getvalue())["text"]
        if how == "plain" and text not in expected:
            raise WrongResult(f"{text!r} where transformers makes {' or '.join(map(repr, expected))}")


def half(case: Case) -> None:
    """In bfloat16: loaded and saved to the bit, adapted and rounded to rounding, the exact cache's logits."""
    case.model().save_pretrained(case.folder / "whole")
    model = case.architecture.cls.from_pretrained(case.folder / "whole", dtype=torch.bfloat16).eval()
    try:
        expected = case.logits(model)
    except RuntimeError as error:
        raise DoesNotApply("plain transformers does not run it in bfloat16") from error
    polyad.save(model, case.folder / "half")
    same(case.logits(polyad.load(case.folder / "half", dtype=torch.bfloat16)), expected, "logits after saving")
    plain = plain_steps(case, model)
    if plain is not None:
        close(steps(case, model, cache_for(model, window=4)), plain, "logits with the exact cache", 0.05)
    adapters = adapted(model)
    changed = case.logits(model)
    adapters.merge()
    close(case.logits(model), changed, "merged logits", 0.2)
    adapters.unmerge()
    adapters.detach("lora")
    same(case.logits(model), expected, "logits after detaching")
    polyad.apply(model, polyad.plan(model, "rtn:bits=8"))
    close(case.logits(model), expected, "logits at eight bits", 0.3)


def deepcopy(case: Case) -> None:
    """Copies of adapted and compressed models and of caches go on as the original, and apart from it."""
    model = case.model()
    adapted(model)
    changed, other = case.logits(model), copy.deepcopy(model)
    same(case.logits(other), changed, "logits of the adapted model's copy")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    same(case.logits(model), changed, "logits after its copy was changed")
    small = case.model()
    polyad.apply(small, polyad.plan(small, "svd", keep=0.5))
    same(case.logits(copy.deepcopy(small)), case.logits(small), "logits of the compressed model's copy")
    model = case.model()
    plain = plain_steps(case, model)
    if plain is None:
        return
    held = cache_for(model, window=4)
    close(steps(case, model, held, between=copy.deepcopy), plain, "logits with a copy of the exact cache", 1e-4)
    held = rounded(model)
    close(steps(case, model, held, between=copy.deepcopy), plain, "logits with a copy of the rounded cache", 0.1)


def loop(case: Case) -> str:
    """Greedy tokens of ``polyad.generate`` in float32, of a batch padded on the left and of one prompt, against those
    of transformers; returns the reason where the plain forward pass made them, and nothing where the loop did."""
    model = case.decoder()
    if model.config.is_encoder_decoder:
        raise DoesNotApply("it reads through an encoder")
    model.generation_config.eos_token_id = model.config.get_text_config(decoder=True).eos_token_id = None
    reasons = []
    for batch in (padded(case, model, 3), padded(case, model, 0, length=14)):
        try:
            expected = model.generate(**batch, max_new_tokens=12, do_sample=False)
        except Exception as error:
            raise DoesNotApply("plain transformers makes no text of it") from error
        mask = batch["attention_mask"]
        got = polyad.generate(model, batch["input_ids"], attention_mask=mask, max_new_tokens=12, dtype=torch.float32)
        same(got.sequences, expected, f"tokens by the loop of {got.loop}")
        reasons.append(got.reason or "")
    return max(reasons)


def pictures(case: Case) -> None:
    """With a picture in the prompt: loaded, saved, adapted and merged, in bfloat16, and generating with the exact
    cache."""
    if case.architecture.kind != "image-text":
        raise DoesNotApply("it takes no picture")
    model = case.model()
    batch = pictured(model, case.inputs(model)["input_ids"])
    if batch is None:
        raise DoesNotApply("no picture that it takes is built by rules")
    for job in (load, save, adapt, merge, half):
        job(Case(case.architecture, case.folder / job.__name__, batch))
    if not model.can_generate():
        return
    greedy = {"max_new_tokens": 5, "do_sample": False}
    model.generation_config.eos_token_id = None
    try:
        expected = model.generate(**batch, **greedy)
    except Exception:  # what plain transformers does not do, nobody does
        return
    same(model.generate(**batch, **greedy, past_key_values=cache_for(model, window=4)), expected, "tokens generated")


def padded(case: Case, model: Any, pad: int, length: int = 9) -> dict[str, Tensor]:
    """A batch whose second sequence is shorter, with its padding in front."""
    batch = case.inputs(model, length=length)
    if pad:
        batch["input_ids"][1, :pad] = 0
        batch["attention_mask"][1, :pad] = 0
    return batch


def plain_steps(case: Case, model: Any) -> Tensor | None:
    """Logits with transformers' own cache; None where the model does not decode token by token."""
    if case.architecture.kind == "masked" or not model.can_generate():
        return None
    try:
        return steps(case, model, None)
    except DoesNotApply:
        return None


def steps(
    case: Case, model: Any, held: Any, *, pad: int = 0, between: Callable[[Any], Any] = lambda held: held
) -> Tensor:
    """Logits of a prompt's last token and of four more, fed one at a time; None is transformers' own cache."""
    if held is None:
        try:
            return _steps(case, model, held, pad, between)
        except DoesNotApply:
            raise
        except Exception as error:
            raise DoesNotApply("plain transformers does not decode it token by token") from error
    return _steps(case, model, held, pad, between)


def _steps(case: Case, model: Any, held: Any, pad: int, between: Callable[[Any], Any]) -> Tensor:
    batch = padded(case, model, pad)
    more = case.inputs(model, length=4, seed=5)["input_ids"]
    if model.config.is_encoder_decoder:
        return _decoder_steps(model, batch, held, between)
    mask, ids, rows = batch["attention_mask"], batch["input_ids"], []
    settings: dict[str, Any] = {"use_cache": True}
    with torch.no_grad():
        for i in range(more.shape[1] + 1):
            position = (mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
            given = {"position_ids": position} if pad and _takes(model, "position_ids") else {}
            out = model(input_ids=ids, attention_mask=mask, past_key_values=held, **settings, **given)
            held = between(getattr(out, "past_key_values", None))
            rows.append(out.logits[:, -1])
            if held is None:
                raise DoesNotApply("it keeps no past_key_values")
            if i < more.shape[1]:
                ids = more[:, i : i + 1]
                mask = torch.cat([mask, torch.ones_like(ids)], 1)
    return torch.stack(rows, 1)


def _decoder_steps(model: Any, batch: dict[str, Tensor], held: Any, between: Callable[[Any], Any]) -> Tensor:
    tokens, rows = batch.pop("decoder_input_ids"), []
    with torch.no_grad():
        for i in range(tokens.shape[1]):
            out = model(**batch, decoder_input_ids=tokens[:, i : i + 1], past_key_values=held, use_cache=True)
            held = between(getattr(out, "past_key_values", None))
            rows.append(out.logits[:, -1])
            if held is None:
                raise DoesNotApply("it keeps no past_key_values")
    return torch.stack(rows, 1)


def rounded(model: nn.Module) -> Any:
    return cache_for(model, partial(Kivi, bits=8, group=4), window=4)


def all_coordinates(model: Any) -> Any:
    """A cache of keys before rotation in as many coordinates as they have, observed on other tokens."""
    windows = torch.randint(3, 200, (4, 24), generator=torch.Generator().manual_seed(7))
    seen = observe(model, partial(Palu, heads=1), windows)
    heads = [use.heads for use in uses_of_cache(model).values()]
    ranks, value_ranks = (
        min(layer[name].shape[-1] // count for layer, count in zip(seen, heads, strict=True))
        for name in ("keys", "values")
    )
    make = partial(Palu, heads=1, rank=ranks, value_rank=value_ranks)
    return cache_for(model, make, window=2, seen=seen)


def _takes(model: Any, name: str) -> bool:
    import inspect

    return name in inspect.signature(model.forward).parameters


JOBS: dict[str, Callable[[Case], str | None]] = {
    job.__name__: job
    for job in (
        load,
        save,
        adapt,
        merge,
        compress,
        cache,
        unrotated,
        padding,
        generate,
        half,
        deepcopy,
        loop,
        pictures,
    )
}
