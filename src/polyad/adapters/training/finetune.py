"""Fine-tuning of a language model on text by an adapter, and the record of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyad._callback import Callback
from polyad._partial import whole_file
from polyad._versions import NEWEST
from polyad.adapters.host.adapters import Adapters
from polyad.adapters.host.build import Method, card_of, needs_of, unwrap_method
from polyad.adapters.training.batches import FIRST, Tokens
from polyad.adapters.training.loop import train
from polyad.adapters.training.rate_range import RateRange, rate_range
from polyad.adapters.training.settings import Finetuning
from polyad.data.calibration import evaluation, evaluation_counted
from polyad.data.text import digest
from polyad.evaluation import memory, quality
from polyad.evaluation.trial_records import HeldOut, TrainingRecord
from polyad.models.calibration import collect
from polyad.models.surgery import Which
from polyad.statistics import Moments
from polyad.train.state import fingerprint

NAME = "adapter"


def finetune(
    model: Any, method: Method, asked: Finetuning, *, state: Path | None = None, callback: Callback | None = None
) -> tuple[Adapters, TrainingRecord]:
    """Attach an adapter to a language model, train it, and return the record; it stays attached, as ``adapter``.

    The record holds the loss of every step, the held-out loss of each text before and after (nats a token, protocol
    ``text-1``), trained numbers, bytes, seconds and peak memory. With ``state``, a file, an interrupted training goes
    on where it stopped.
    """
    quality.check_predicts(model)
    rate, tried = asked.rate, None
    if rate == "auto":
        tried = try_rates(model, method, asked, callback=callback)
        rate = tried.best
    weights = "" if state is None else fingerprint(model)
    method, arguments = unwrap_method(method, {})
    tokens = Tokens(model, asked)
    heldout, counted = _heldout(model, asked)
    before = _losses(model, heldout, counted, quality.original_losses, callback, "loss before")
    measured = memory.forget()
    clock = time.perf_counter()
    adapters, layers = _attach(model, method, arguments, asked, tokens)
    attaching, count = time.perf_counter() - clock, sum(p.numel() for p in adapters.parameters(NAME))
    stated = {"method": _name_of(method), "arguments": arguments}
    identity = {**asked.stated(), **stated, "tokens": tokens.digest, "dtype": str(model.dtype), "model": weights}
    torch.manual_seed(asked.seed)
    with _train_mode(model):
        learned = train(
            adapters, NAME, tokens.loss, steps=asked.steps, rate=rate, state=state, asked=identity, callback=callback
        )
    peak = memory.largest_resident_set() if measured else None
    after = _losses(model, heldout, counted, quality.losses, callback, "loss after")
    record: TrainingRecord = {
        "version": NEWEST["record"], "method": stated["method"], "arguments": arguments,
        "layers": layers, "trained_parameters": count,
        "bytes": sum(t.nbytes for t in adapters.state_dict(NAME).values()),
        "learning_rate": learned.rate, "rates_tried": None if tried is None else asdict(tried),
        "steps": asked.steps, "batch": asked.batch, "length": tokens.length, "seed": asked.seed,
        "loss_curve": list(learned.losses), "held_out": _held_out(heldout, before, after),
        "seconds": {"attaching": attaching, "training": learned.seconds}, "peak_memory_bytes": _peak(model, peak),
        "dtype": str(model.dtype).removeprefix("torch."), "device": str(model.device),
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    return adapters, record


def try_rates(
    model: Any,
    method: Method,
    asked: Finetuning,
    *,
    steps: int = 40,
    without: Sequence[float] | None = None,
    callback: Callback | None = None,
) -> RateRange:
    """Try rising learning rates of a method on the first batches of a fine-tuning; the model is left as it was.

    ``without`` are the model's own losses of these batches, if they are known. Costs as much as ``steps`` steps and
    their forward passes.
    """
    method, arguments = unwrap_method(method, {})
    tokens = Tokens(model, asked)
    adapters, _ = _attach(model, method, arguments, asked, tokens)
    torch.manual_seed(asked.seed)
    try:
        with _train_mode(model):
            return rate_range(adapters, NAME, tokens.loss, steps=steps, without=without, callback=callback)
    finally:
        adapters.detach(NAME)


@contextmanager
def _train_mode(model: Any) -> Iterator[None]:
    """Train mode within it; the mode that the model had before, behind it."""
    training = model.training
    model.train()
    try:
        yield
    finally:
        model.train(training)


def _name_of(method: Method) -> str:
    listed = card_of(method)
    return method.__name__ if listed is None else listed.name


def _held_out(
    heldout: Mapping[str, Tensor], before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, HeldOut]:
    return {
        text: {"before": before[text], "after": after[text], "windows": len(w), "sha256": digest(w)}
        for text, w in heldout.items()
    }


def _heldout(model: Any, asked: Finetuning) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The held-out windows of each text and, where prompts do not count, the tokens in them that do."""
    heldout = evaluation(model, asked.texts, count=asked.windows)
    counted = evaluation_counted(model, asked.texts, count=asked.windows)
    for text, marks in counted.items():
        useful = marks[:, 1:].any(1)
        if not bool(useful.any()):
            raise ValueError(f"no held-out window of {text!r} reaches a completion; give more examples")
        heldout[text], counted[text] = heldout[text][useful], marks[useful]
    return heldout, counted


def _losses(
    model: Any,
    heldout: Mapping[str, Tensor],
    counted: Mapping[str, Tensor],
    measure: Callable[..., Tensor],
    callback: Callback | None,
    stage: str,
) -> dict[str, float]:
    """The mean loss of each text's held-out windows."""
    report = None if callback is None else lambda step, total, _values: callback(step, total, {"stage": stage})
    return {
        text: float(measure(model, windows, counted=counted.get(text), callback=report).mean())
        for text, windows in heldout.items()
    }


def _attach(
    model: Any, method: Method, arguments: Mapping[str, Any], asked: Finetuning, tokens: Tokens
) -> tuple[Adapters, int]:
    """Attach the adapter, started from the first batches where the method reads them; and count its layers."""
    adapters, which, needs = Adapters(model), asked.which(model), needs_of(method)
    start: dict[str, Any] = {"loss": tokens.start_loss} if "gradient" in needs else {}
    if needs - {"weight", "gradient"}:
        start["stats"] = _statistics(adapters, which, method, arguments, needs, tokens)
    return adapters, len(
        adapters.attach(NAME, which, method, seed=asked.seed, trained=asked.trained, **arguments, **start)
    )


def _statistics(
    adapters: Adapters,
    which: Which,
    method: Method,
    arguments: Mapping[str, Any],
    needs: frozenset[str],
    tokens: Tokens,
) -> dict[str, Moments]:
    paths = [match.name for match in adapters.preview(which, method, **arguments)]
    wanted = {path: needs - {"weight", "gradient"} for path in paths}
    return collect(tokens.model, wanted, [tokens.rows(step) for step in range(FIRST)])


def _peak(model: Any, resident: int | None) -> int | None:
    """Bytes at the peak of training: of the device where that is no processor, else of this process."""
    return torch.cuda.max_memory_allocated(model.device) if model.device.type == "cuda" else resident


def write_record(file: Path, record: Mapping[str, Any] | list[Any]) -> None:
    """Write a record, whole or not at all."""
    with whole_file(file) as partial_file:
        partial_file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
