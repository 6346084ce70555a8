"""One call for what a model is worth: quality, size and speed, beside its original."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from polyad._callback import Callback
from polyad.data.calibration import EVALUATION_WINDOWS, Source, evaluation
from polyad.data.text import PROTOCOL
from polyad.evaluation import memory, quality, size, speed
from polyad.evaluation.measure import Measure, MeasureResult, as_measure, beside, measure_alone, measured_values
from polyad.evaluation.quality import Agreement, Perplexity
from polyad.evaluation.records import EvaluationRecord, ModelRecord


@dataclass(frozen=True)
class Evaluation:
    """Perplexity by text and, where the original was given, the agreement with it."""

    perplexity: Mapping[str, Perplexity]
    agreement: Agreement | None = None
    measure: MeasureResult | None = None
    protocol: str = PROTOCOL

    def to_json(self) -> EvaluationRecord:
        """Plain numbers."""
        return cast(EvaluationRecord, asdict(self))


def evaluate(
    model: Any,
    text: Source | Iterable[Source] | None = None,
    *,
    original: Any = None,
    measure: Measure | str | Callable[[Any, Any], Any] | None = None,
    larger: bool = True,
    windows: int = EVALUATION_WINDOWS,
    length: int = 1024,
    callback: Callback | None = None,
) -> Evaluation:
    """Perplexity of a model on the evaluation part of one or several texts, by the protocol ``text-1``.

    ``text`` is a name (``stdlib``, ``sotu``), a path or a Text, or several. With ``original`` every perplexity comes
    with its ratio to the original's on the same windows, and the agreement is measured. Windows that a short text
    cannot fill are left out; a text of less than one window is refused.

    ``measure``, a function of (model, tokenizer) or ``"FILE.py:function"``, gives one number or one an example;
    ``larger`` says that more is better. With ``original`` both are measured, paired over examples. Then ``text`` may
    be left out, and the model need not predict tokens.
    """
    if text is None and measure is None:
        raise ValueError("there is nothing to measure; give a text such as 'stdlib', or measure=")
    users = None if measure is None else _measure(as_measure(measure, larger=larger), model, original)
    if text is None:
        return Evaluation({}, None, users)
    quality.check_predicts(model)
    texts = evaluation(model, text, count=windows, length=length)
    if original is not None:
        by_text, agreement = quality.compare_quality(model, original, texts, callback=callback)
        return Evaluation(by_text, agreement, users)
    alone = {name: quality.perplexity_of(quality.losses(model, w, callback=callback), w) for name, w in texts.items()}
    return Evaluation(alone, None, users)


def _measure(measure: Measure, model: Any, original: Any) -> MeasureResult:
    values = measured_values(measure, model)
    if original is None:
        return measure_alone(measure, values)
    return beside(measure, values, measured_values(measure, original))


@dataclass(frozen=True)
class Measured:
    """Everything the protocol asks of one model; what was not measured is None."""

    perplexity: Mapping[str, float]
    parameters: size.Share
    bytes: size.Share
    operations_per_token: int
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> ModelRecord:
        """Plain numbers."""
        return cast(ModelRecord, asdict(self))


def measured_pair(
    model: Any,
    original: Any,
    texts: Mapping[str, Tensor],
    selected: tuple[str, ...],
    *,
    width: int | None = None,
    alternations: int = speed.ALTERNATIONS,
    folders: tuple[Path | str | None, Path | str | None] = (None, None),
    callback: Callback | None = None,
) -> tuple[Measured, Measured, Agreement]:
    """A compressed model and its original, measured side by side: (compressed, original, agreement).

    ``width`` is the bytes that a float of the compressed model takes where it is stored; the original's take two.
    ``alternations=0`` leaves speed out; ``folders`` (compressed, original) are what peak memory is measured on.
    """
    by_text, agreement = quality.compare_quality(model, original, texts, callback=callback)
    rates = (
        speed.speeds({"model": model, "original": original}, alternations=alternations, callback=callback)
        if (alternations)
        else {}
    )
    peaks = [memory.peak(str(f)) if f is not None else None for f in folders]

    def gather(name: str, one: Any, wide: int | None, peak: int | None) -> Measured:
        rate = rates.get(name)
        mine = name == "model"
        return Measured(
            {text: p.perplexity if mine else p.original or 0.0 for text, p in by_text.items()},
            size.parameters(one, selected),
            size.nbytes(one, selected, width=wide),
            size.operations_per_token(one),
            rate.prefill.median if rate else None,
            rate.decode.median if rate else None,
            peak,
            {"perplexity": {text: asdict(p) for text, p in by_text.items()} if mine else {},
             "speed": asdict(rate) if rate else {}},
        )  # fmt: skip

    return gather("model", model, width, peaks[0]), gather("original", original, 2, peaks[1]), agreement
