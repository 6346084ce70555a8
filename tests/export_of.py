"""Exports in tests: written where the engine is installed, refused with its name where it is not."""

import functools

import pytest

import polyad
from polyad.export import export
from polyad.quantize import round_to_nearest


def written_or_refused(installed, sentence, format, model, out, **options):
    """The result of an export; None where no engine is installed, which the export must say."""
    if installed:
        return export(model, out, format, **options)
    with pytest.raises(ImportError, match=sentence):
        export(model, out, format, **options)
    assert not out.exists()
    return None


def rounded(model, select=None, **options):
    """A model whose layers, or those selected, are codes."""
    recipe = functools.partial(round_to_nearest, **options)
    polyad.apply(model, polyad.plan(model, recipe, select=select))
    return model
