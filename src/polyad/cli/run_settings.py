"""The options that every command has: --config, --quiet, --debug; and the record of a run beside its output."""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from polyad._partial import whole_file
from polyad.cli import output

RECORD = "run.toml"
"""The file in an output folder from which ``--config`` repeats the run."""
NOT_OF_THE_RUN = frozenset({"config", "quiet", "debug", "json", "preview"})


def with_shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command with the options that all have; what it was asked stands in its output folder afterwards."""
    shared = {
        "config": Annotated[
            Path | None,
            typer.Option(
                callback=_read_config, is_eager=True, help=f"a {RECORD} that says what is not said here; each output "
                "folder has one",
            ),
        ],
        "quiet": Annotated[bool, typer.Option("--quiet", help="print results and errors, no progress and no notes")],
        "debug": Annotated[bool, typer.Option("--debug", help="show where in the code an error comes from")],
    }  # fmt: skip
    defaults = {"config": None, "quiet": False, "debug": False}

    @functools.wraps(function)
    def command(*args: Any, quiet: bool = False, debug: bool = False, **named: Any) -> Any:
        named.pop("config", None)  # read before the others
        shown = output.shown
        shown.quiet, shown.debug, shown.folder, shown.settled = quiet, debug, None, {}
        result = function(*args, **named)
        _write_record()
        return result

    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=kind)
            for name, kind in shared.items()]  # fmt: skip
    parameters = [*own, *more]
    command.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _spelled(parameter: Any) -> str:
    """The name of an argument in a file: its option's, or its own."""
    longest = max(parameter.opts, key=len)
    if longest.startswith("--"):
        return longest.lstrip("-")
    return str(getattr(parameter, "metavar", None) or parameter.name).lower()


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take what a file says for all that the command line leaves open."""
    output.shown.context = context
    if path is None:
        return None
    try:
        stated = tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"--config {path} is not there; give the {RECORD} of an output folder, or write one"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--config {path} cannot be read as TOML ({error}); write lines such as keep = 0.8"
        ) from None
    name = str(context.info_name)
    if stated.pop("command", name) != name:
        raise ValueError(
            f"--config {path} is of another command than polyad {name}; give one that polyad {name} wrote"
        )
    known = {_spelled(p): p for p in context.command.params if p.name not in NOT_OF_THE_RUN and p.name != "help"}
    for key in stated:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
            raise ValueError(f"--config {path} says {key}, which polyad {name} does not take; {hint}")
    context.default_map = {**(context.default_map or {}), **{known[k].name: v for k, v in stated.items()}}
    return path


def _write_record() -> None:
    """Write what was asked into the folder that the command made."""
    context = output.shown.context
    if context is None:  # called from Python
        return
    named = (Path(v) for name, v in context.params.items() if name in ("out_folder", "out_path") and v)
    folder = output.shown.folder or next(named, None)
    if folder is None or not folder.expanduser().is_dir():
        return
    params = {**context.params, **output.shown.settled}
    asked = {
        _spelled(p): params[p.name]
        for p in context.command.params
        if p.name not in NOT_OF_THE_RUN and params.get(p.name) is not None
    }
    asked.setdefault("out", folder)
    with whole_file(folder.expanduser() / RECORD) as partial:
        partial.write_text(record_text(str(context.info_name), asked), encoding="utf-8")


def record_text(command: str, asked: Mapping[str, Any]) -> str:
    """The TOML that repeats a command.

    >>> print(record_text("compress", {"keep": 0.8, "plain": True, "out": Path("small")}))
    # polyad compress --config run.toml runs this again; what the command line says goes before it
    command = "compress"
    keep = 0.8
    plain = true
    out = "small"
    <BLANKLINE>
    """
    lines = [f"# polyad {command} --config {RECORD} runs this again; what the command line says goes before it"]
    lines += [f"command = {json.dumps(command)}"]
    for name, value in asked.items():
        plain = value if isinstance(value, bool | int | float) else str(value)
        lines.append(f"{name} = {json.dumps(plain, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"
