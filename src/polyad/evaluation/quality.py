"""Perplexity, and agreement with the original, on the measuring protocol's windows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad._callback import Callback
from polyad.data.calibration import check_predicts as check_predicts
from polyad.data.text import digest
from polyad.evaluation.baselines import read_baseline, write_baseline
from polyad.models.folder import base_of
from polyad.models.loading import check_numbers, origin
from polyad.models.special_tokens import frame

AGREEMENT_WINDOWS = 8  # of each text: both models run on them, side by side


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean negative log-likelihood on one text, beside the original's on the same windows.

    ``error`` is the paired standard error of ``ratio`` over windows; ``sha256`` identifies the tokens.
    """

    perplexity: float
    windows: int
    sha256: str
    original: float | None = None
    ratio: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Agreement:
    """Mean KL divergence from the original's next-token distribution, in nats, and the share of equal top tokens."""

    kl: float
    top1: float


def losses(model: Any, windows: Tensor, *, counted: Tensor | None = None, callback: Callback | None = None) -> Tensor:
    """Mean negative log-likelihood of each window's tokens after the first, float64, shape (windows,).

    What the tokenizer put before the text is not scored. ``counted``, bool of the windows' shape, leaves tokens out.
    """
    return _losses(model, windows, frame(model).first_scored(windows), counted, callback)


def _losses(model: Any, windows: Tensor, first: int, counted: Tensor | None, callback: Callback | None) -> Tensor:
    """``losses`` of the tokens from number ``first`` on."""
    by_window: list[float] = []
    with torch.no_grad():
        for number, window in enumerate(windows, 1):
            logits, wanted = _logits(model, window, first), window
            if counted is not None:
                marks = counted[number - 1, first:]
                logits, wanted = logits[marks.to(logits.device)], torch.cat([window[:first], window[first:][marks]])
            by_window.append(_loss(logits, wanted, first))
            if callback is not None:
                callback(number, len(windows), {"stage": "perplexity"})
    return _sound(model, by_window)


def compare_quality(
    model: Any,
    original: Any,
    texts: Mapping[str, Tensor],
    *,
    agreement: int = AGREEMENT_WINDOWS,
    callback: Callback | None = None,
) -> tuple[dict[str, Perplexity], Agreement]:
    """Quality of a model beside its original's, text by text; ``texts`` maps names to windows (count, length).

    The original's losses are kept in polyad's cache, by its files' sha256 and the tokens', and not measured twice.
    A model that was changed since it was loaded is measured anew.
    """
    by_text: dict[str, Perplexity] = {}
    around = frame(original)
    scored = {name: around.first_scored(windows) for name, windows in texts.items()}
    baseline = Baseline(original)
    totals = torch.zeros(3, dtype=torch.float64)  # KL, equal top tokens, positions
    done, count = 0, sum(len(w) for w in texts.values())
    with torch.no_grad():
        for name, windows in texts.items():
            first = scored[name]
            theirs = baseline.losses(windows, first, callback)
            beside = set(range(0, len(windows), max(1, -(-len(windows) // agreement))))
            mine = []
            for i, window in enumerate(windows):
                logits = _logits(model, window, first)
                mine.append(_loss(logits, window, first))
                if i in beside:
                    totals += _agreement(_logits(original, window, first), logits)
                done += 1
                if callback is not None:
                    callback(done, count, {"stage": "quality"})
            by_text[name] = _perplexity(_sound(model, mine), theirs, windows)
    positions = float(totals[2])
    return by_text, Agreement(float(totals[0]) / positions, float(totals[1]) / positions)


def original_losses(
    original: Any, windows: Tensor, *, counted: Tensor | None = None, callback: Callback | None = None
) -> Tensor:
    """``losses`` of an unchanged model, kept between runs where its folder says which model it is."""
    if counted is not None:
        return losses(original, windows, counted=counted, callback=callback)
    return Baseline(original).losses(windows, frame(original).first_scored(windows), callback)


class Baseline:
    """An unchanged model beside which others are measured; its losses are kept by its files and the text."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.base = base_of(origin(model).folder)
        self._identity = [self.base, model_fingerprint(model)] if self.base else []

    def losses(self, windows: Tensor, first: int, callback: Callback | None = None) -> Tensor:
        """``losses`` of the model from token number ``first`` on, measured where they are not kept."""
        if not self._identity:
            return _losses(self.model, windows, first, None, callback)
        unscored = [first] if first > 1 else []
        key = json.dumps([*self._identity, digest(windows), torch.__version__, *unscored], sort_keys=True)
        stored = read_baseline(key, len(windows))
        if stored is not None:
            return stored
        measured = _losses(self.model, windows, first, None, callback)
        write_baseline(key, measured)
        return measured


def model_fingerprint(model: Any) -> list[Any]:
    """A description in which two models of the same files may differ: dtypes, sums of tensors, configuration."""
    sums = [[name, str(t.dtype), float(t.sum(dtype=torch.float64))] for name, t in model.state_dict().items()]
    config = model.config.to_dict()
    return [type(model).__name__, {k: str(v) for k, v in config.items() if k != "_name_or_path"}, sums]


def perplexity_of(losses: Tensor, windows: Tensor) -> Perplexity:
    """The perplexity of losses that are compared with nothing."""
    return Perplexity(_exp(float(losses.mean())), len(windows), digest(windows))


def _perplexity(mine: Tensor, known: Tensor, windows: Tensor) -> Perplexity:
    gap = mine - known
    ratio = _exp(float(gap.mean()))
    error = ratio * float(gap.std()) / math.sqrt(len(gap)) if len(gap) > 1 else None
    original = _exp(float(known.mean()))
    return Perplexity(_exp(float(mine.mean())), len(windows), digest(windows), original, ratio, error)


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


def _logits(model: Any, window: Tensor, first: int) -> Tensor:
    """The logits of the tokens from number ``first`` on: each stands where the token before it was read."""
    return model(window[None].to(model.device), use_cache=False).logits[0, first - 1 : -1].float()


def _loss(logits: Tensor, window: Tensor, first: int) -> float:
    return float(F.cross_entropy(logits, window[first:].to(logits.device)))


def _sound(model: Any, found: list[float]) -> Tensor:
    """Losses as a tensor; NaN among them is refused, naming the weights that it comes from where these hold some."""
    if any(math.isnan(loss) for loss in found):
        check_numbers(model)
        raise ValueError(
            "the model's output is NaN although its weights are finite; the dtype may be too narrow: try "
            "dtype=torch.float32 (--dtype float32)"
        )
    return torch.tensor(found, dtype=torch.float64)


def _agreement(reference: Tensor, logits: Tensor) -> Tensor:
    p, q = reference.log_softmax(-1), logits.log_softmax(-1)
    kl = F.kl_div(q, p, reduction="sum", log_target=True)
    same = (p.argmax(-1) == q.argmax(-1)).sum()
    return torch.tensor([float(kl), float(same), len(p)], dtype=torch.float64)
