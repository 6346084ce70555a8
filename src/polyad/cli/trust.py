"""``--trust-remote-code`` of every command that loads a model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

HELP = "run Python code that the model's folder brings; read it before"


def with_trust(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command with an option more, which holds for all that the command loads."""
    option = inspect.Parameter(
        "trust_remote_code",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--trust-remote-code", help=HELP)],
    )

    @functools.wraps(function)
    def command(*args: Any, trust_remote_code: bool = False, **named: Any) -> Any:
        from polyad._trust import trusting

        with trusting(trust_remote_code):
            return function(*args, **named)

    signature = inspect.signature(function, eval_str=True)  # typer reads what a signature holds, not names of types
    parameters = [*signature.parameters.values(), option]
    command.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command
