"""``polyad cache``: what ways of storing keys and values cost a model, in quality, bytes and time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyad._versions import NEWEST
from polyad.cli import options
from polyad.cli.output import command, complain, emit, number, out, progress, table

if TYPE_CHECKING:
    from polyad.evaluation.trial_records import CacheRecord


def cache(
    model: options.Model,
    methods: Annotated[
        str, typer.Option(help="ways to store, joined by semicolons, such as plain;kivi:bits=4;metric:rank=64,bits=4")
    ],
    context: Annotated[int, typer.Option(min=1, help="tokens of the prompt that is compressed")] = 1024,
    text: options.Texts = None,
    calibrate: options.Texts = None,
    calibration_windows: options.CalibrationWindows = 16,
    windows: Annotated[
        int | None, typer.Option(min=1, help="windows of each text that quality is measured on")
    ] = None,
    scored: Annotated[int | None, typer.Option(min=2, help="tokens after the prompt, read one by one")] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="bytes a token that a recommendation may take")] = None,
    alternations: options.Alternations = None,
    thorough: options.Thorough = False,
    report: Annotated[Path | None, typer.Option(help="an HTML file to write")] = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Compress the keys and values of prompts of MODEL in several ways and compare what each costs.

    A prompt is run once and compressed by each; the tokens after it are scored one by one beside the exact cache.
    """
    from polyad.cache.maker import maker
    from polyad.data import calibration, evaluation
    from polyad.evaluation.caches import cache_quality, cache_speed
    from polyad.report import write_study
    from polyad.report.studies import cache_study

    names = _names(methods)
    windows = options.effort(windows, usual=3, full=8, thorough=thorough)
    scored = options.effort(scored, usual=64, full=127, thorough=thorough)
    alternations = options.effort(alternations, usual=3, full=9, thorough=thorough)
    options.check_report(report)
    options.fix_seed(seed)
    one = options.load_model(model, dtype, device)
    _refuse_cacheless(one)
    texts = evaluation(one, options.texts_of(text), count=windows, length=context + scored)

    def read_windows() -> Any:
        return calibration(one, options.texts_of(calibrate), count=calibration_windows).windows

    with progress() as callback:
        makes = {name: maker(one, name, read_windows, callback=callback) for name in names}
        quality = {
            name: cache_quality(one, makes, prompts, scored=scored, callback=callback)
            for name, prompts in texts.items()
        }
        timed = {"context": context, "alternations": alternations, "callback": callback}
        seconds = cache_speed(one, makes, **timed) if alternations else {}
    records = _records(names, quality, seconds, context)
    best = recommend(records, budget)
    facts = _facts(texts, scored, alternations, seed, dtype)
    if report is not None:
        write_study(report, cache_study(records, best, facts))
    if json:
        emit({"caches": records, "recommended": best, "facts": facts})
    else:
        show(records, best, budget, dtype)
        if report is not None:
            out.print(f"report in {report}")


def _refuse_cacheless(one: Any) -> None:
    """Refuse models whose layers hold nothing that grows with the text."""
    from polyad.cache.host.probe import uses_of_cache

    if not uses_of_cache(one):
        raise ValueError(
            f"every layer of {type(one).__name__} has a sliding window or no keys at all, which transformers' own "
            "cache holds in little memory already; there is nothing to compress"
        )


def _names(methods: str) -> list[str]:
    from polyad.cache.maker import check_name

    names = [part.strip() for part in methods.split(";") if part.strip()]
    if not names:
        raise ValueError(f"--methods {methods!r} names no way to store a cache; write --methods 'plain;kivi:bits=4'")
    for name in names:
        check_name(name)
    return names


def _facts(texts: Mapping[str, Any], scored: int, alternations: int, seed: int, dtype: str) -> dict[str, Any]:
    """The facts that a reader of the page needs to run it again."""
    from polyad.compress.result import versions
    from polyad.data.text import digest

    facts: dict[str, Any] = {"Seed": seed, "Dtype": dtype, "Tokens scored after each prompt": f"{scored}, one by one"}
    for name, windows in texts.items():
        facts |= {f"Windows of {name}": len(windows), f"sha256 of {name}": digest(windows)}
    if alternations:
        facts["Turns of the clock"] = alternations
    return facts | {f"Version of {name}": value for name, value in versions().items()}


def _records(
    names: list[str], quality: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, float], context: int
) -> list[CacheRecord]:
    return [
        {
            "version": NEWEST["record"],
            "method": name,
            "context": context,
            "bytes_per_token": first.nbytes / context,
            "shared_bytes": first.shared_nbytes,
            "times_smaller": first.ratio_of_bytes,
            "perplexity": {
                t: {"ratio": by_name[name].ratio, "error": by_name[name].error} for t, by_name in quality.items()
            },
            "decode_seconds": seconds.get(name),
            "transformers_decode_seconds": seconds.get("transformers"),
            "command": command(),
        }
        for name in names
        for first in [next(iter(quality.values()))[name]]
    ]


def _gain(ratio: float, error: float | None) -> str:
    """A change of perplexity with its standard error, which one window does not have."""
    return f"{100 * (ratio - 1):+.2f} %" + (f" ± {number(100 * error)}" if error else "")


def recommend(records: list[CacheRecord], budget: int | None) -> str | None:
    """The way of the least loss over all texts among those that fit the budget; without a budget there is none."""
    fitting = [r for r in records if budget is not None and r["bytes_per_token"] <= budget]
    worst = lambda r: max(quality["ratio"] for quality in r["perplexity"].values())  # noqa: E731
    return min(fitting, key=worst)["method"] if fitting else None


def show(records: list[CacheRecord], best: str | None, budget: int | None, dtype: str = "bfloat16") -> None:
    """The table, and the recommendation where there was a budget."""
    texts = list(records[0]["perplexity"])
    wide = options.dtype_of(dtype).itemsize / 2
    rows = []
    for record in records:
        ratios = [record["perplexity"][t] for t in texts]
        gains = [_gain(r["ratio"], r["error"]) for r in ratios]
        mine, plain = record["decode_seconds"], record["transformers_decode_seconds"]
        clock = "–" if mine is None or plain is None else f"{mine / plain:.2f} x"
        size = [number(record["bytes_per_token"], 0), f"{wide * record['times_smaller']:.2f} x"]
        size += [f"{record['times_smaller']:.2f} x"] if wide != 1 else []
        rows.append([record["method"], *size, *gains, clock])
    smaller = [f"smaller than {dtype}", *(["than bfloat16"] if wide != 1 else [])]
    columns = ["cache", "bytes a token", *smaller, *(f"perplexity, {t}" for t in texts), "time of a token"]
    table(f"after {records[0]['context']:,} tokens, held in {dtype}; time beside transformers' own", columns, rows)
    if best is not None:
        out.print(f"recommended for {budget:,} bytes a token: {best}")
    elif budget is not None:
        least = min(records, key=lambda r: r["bytes_per_token"])
        complain(
            f"no cache fits in {budget:,} bytes a token; {least['method']} takes {least['bytes_per_token']:,.0f}"
        )
        raise typer.Exit(1)
