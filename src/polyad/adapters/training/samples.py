"""Continuations of texts by a model without its adapters and with them."""

from __future__ import annotations

from collections.abc import Iterable

from polyad.adapters.host.adapters import Adapters
from polyad.data import evaluation
from polyad.evaluation.sample_record import Sample
from polyad.evaluation.samples import continuations, samples
from polyad.models import origin


def adapter_samples(adapters: Adapters, sources: Iterable[str]) -> list[Sample]:
    """Continuations of the held-out part of each text by the model alone, and with the adapters that are active."""
    texts, active = evaluation(adapters.model, sources, count=1), adapters.active
    adapters.activate([])
    before = continuations(adapters.model, texts)
    adapters.activate(active)
    return samples(origin(adapters.model).tokenizer, texts, before, continuations(adapters.model, texts))
