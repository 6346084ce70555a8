"""``polyad evaluate``: perplexity on held-out windows."""

from __future__ import annotations

from typing import Annotated

import typer

from polyad.cli import options
from polyad.cli.measure_table import measure_table
from polyad.cli.output import emit, number, progress, share, table


def evaluate(
    model: options.Model,
    text: options.Texts = None,
    original: Annotated[str | None, typer.Option(help="a model to compare with, on the same windows")] = None,
    adapter: options.Adapter = None,
    measure: options.Measure = None,
    larger: options.Larger = True,
    windows: options.Windows = None,
    thorough: options.Thorough = False,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Measure MODEL's perplexity and, with --original, its ratio to another's and the agreement of the two.

    With --measure your own function takes the place of perplexity, unless --text is given too.
    """
    from polyad.evaluation import evaluate as run

    windows = options.effort(windows, usual=8, full=24, thorough=thorough)
    options.fix_seed(seed)
    chosen = options.measure_of(measure, larger=larger)
    texts = None if chosen is not None and text is None else options.texts_of(text)
    one = options.load_model(model, dtype, device, adapter)
    other = options.load_model(original, dtype, device) if original else None
    with progress() as callback:
        result = run(one, texts, original=other, measure=chosen, windows=windows, callback=callback)
    if json:
        emit({"model": model, "adapter": adapter, **result.to_json()})
        return
    if result.measure is not None:
        measure_table(result.measure.to_json(), f"{model}{f' with {adapter}' if adapter else ''}")
    if not result.perplexity:
        return
    rows = [
        [name, number(p.perplexity), number(p.original), number(p.ratio, 4), number(p.error, 4), str(p.windows)]
        for name, p in result.perplexity.items()
    ]
    table(
        f"{model}{f' with {adapter}' if adapter else ''}, protocol {result.protocol}",
        ["text", "perplexity", "original", "ratio", "± error", "windows"],
        rows,
    )
    if result.agreement is not None:
        kl, top = number(result.agreement.kl, 4), share(result.agreement.top1, 1)
        table("agreement with the original", ["KL, nats", "same top token"], [[kl, top]])
