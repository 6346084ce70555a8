"""The command line: ``polyad --help`` lists the commands."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer
from safetensors import SafetensorError

import polyad
from polyad.cli import (
    adapt,
    cache,
    catalogue,
    compare,
    compress,
    convert,
    decompose,
    evaluate,
    export,
    generate,
    inspect,
    merge,
    report,
)
from polyad.cli.output import complain, err, shown
from polyad.cli.run_settings import with_shared
from polyad.cli.trust import with_trust

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False,
                  help="Low-rank and tensor structure for PyTorch models.")  # fmt: skip
app.command("inspect")(with_shared(with_trust(inspect.inspect)))
app.command("adapt")(with_shared(with_trust(adapt.adapt)))
app.command("compress")(with_shared(with_trust(compress.compress)))
app.command("compare")(with_shared(with_trust(compare.compare)))
app.command("convert")(with_shared(with_trust(convert.convert)))
app.command("cache")(with_shared(with_trust(cache.cache)))
app.command("decompose")(with_shared(decompose.decompose))
app.command("evaluate")(with_shared(with_trust(evaluate.evaluate)))
app.command("export")(with_shared(with_trust(export.export)))
app.command("generate")(with_shared(with_trust(generate.generate)))
app.command("merge")(with_shared(with_trust(merge.merge)))
app.command("report")(with_shared(report.report))
app.command("methods")(with_shared(catalogue.methods))
app.command("claims")(with_shared(catalogue.claims))


def _print_version(asked: bool) -> None:
    if asked:
        print(polyad.__version__)
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and end")
    ] = False,
) -> None:
    """Low-rank and tensor structure for PyTorch models."""


KEPT = {
    "compress": "finished statistics are kept and used again by the same command",
    "adapt": "the same command goes on from the last step that was kept",
}
AGAIN = "nothing half done is left behind; the same command begins again"
INTERRUPTED = 130  # the shell's code for a command that was stopped from the keyboard


def main() -> None:
    """Run a command; what it cannot do becomes a sentence on standard error and exit code 1."""
    try:
        app()
    except (
        ValueError,
        TypeError,
        KeyError,
        OSError,
        ImportError,
        RuntimeError,
        MemoryError,
        SafetensorError,
    ) as error:
        if shown.debug:
            traceback.print_exc()
        complain(sentence(error))
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as stopped:
        if isinstance(stopped, SystemExit) and stopped.code != INTERRUPTED:  # typer turns the one into the other
            raise
        err.print(f"stopped; {KEPT.get(''.join(sys.argv[1:2]), AGAIN)}", soft_wrap=True)
        sys.exit(INTERRUPTED)


def sentence(error: BaseException) -> str:
    """The message of an error for somebody who did not write the code."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, MemoryError) and not str(error):
        return "there is not enough memory; try a smaller model, fewer windows, or --dtype bfloat16"
    if isinstance(error, KeyError) and error.args:
        return f"nothing is called {error.args[0]!r}"
    return str(error) or type(error).__name__
