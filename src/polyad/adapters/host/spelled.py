"""Adapters by the names that the command line gives them: ``lora:rank=8,alpha=16``."""

from __future__ import annotations

from functools import partial
from typing import Any

from polyad._arguments import read_method


def method_of(text: str) -> partial[Any]:
    """The adapter of the catalogue that has this name, with its arguments; ``dropout`` may be among them.

    >>> method_of("lora:rank=4,alpha=8").keywords
    {'rank': 4, 'alpha': 8}
    """
    method, arguments = read_method(text, ["adapter"])
    return partial(method.function, **arguments)
