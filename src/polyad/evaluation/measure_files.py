"""Functions in files of a user: run, and their faults told by the user's own lines."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def function_in_file(
    text: str, *, option: str = "--measure", example: str = "my_measure.py:accuracy"
) -> Callable[..., Any]:
    """The function that ``FILE.py:function`` names; the file is run, as ``python FILE.py`` would.

    Errors name the option that the text came from.
    """
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise ValueError(f"{option} {text!r} names no function of a file; write {option} {example}")
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{option}: there is no file {path}")
    module = _run_file(path, option)
    function = getattr(module, name, None)
    if not callable(function):
        known = [
            key for key, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__
        ]
        raise ValueError(f"{path} has no function {name}; it has {', '.join(known) or 'none'}")
    return function


def _run_file(path: Path, option: str) -> Any:
    """The module of a user's file; files beside it can be imported from it."""
    spec = importlib.util.spec_from_file_location(f"measure_of_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is the user's code
        raise ValueError(f"{option}: {place_of(error, path)}") from error
    finally:
        sys.path.remove(folder)
    return module


def code_file(function: Callable[..., Any]) -> Path | None:
    """The file that a function stands in, where it is written in Python."""
    code = getattr(function, "__code__", None)
    return None if code is None else Path(code.co_filename)


def place_of(error: Exception, file: Path | None) -> str:
    """The last line of a file that an error came through, and what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    at = next((f for f in reversed(frames) if file is not None and Path(f.filename) == file), None)
    where = "" if at is None else f"{Path(at.filename).name}, line {at.lineno}: "
    return f"{where}{type(error).__name__}: {error}"
