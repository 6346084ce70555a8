"""A search that a result keeps is not run again; another grid's, one that it lacks, or one of other code, is."""

import dataclasses

import pytest

from polyad.claims import _kept_search, read_result
from polyad.claims._kept_search import search_once

KEY = "losses of IA3 by rate, when tuned"


@pytest.fixture
def keep(monkeypatch):
    """Lets the result of IA3 be of these changed definitions, and gives what it keeps."""

    def result_of(*changed):
        stored = dataclasses.replace(read_result("ia3"), changed=changed)
        monkeypatch.setattr(_kept_search, "read_result", lambda handle: stored)
        return stored.details[KEY]

    return result_of


def test_a_kept_search_is_taken_from_the_result(keep):
    kept = keep()
    asked = []
    assert search_once("ia3", KEY, kept, asked.append) == kept
    assert not asked


def test_a_search_of_another_method_is_measured_again(keep):
    kept = keep("IA3")
    assert search_once("ia3", KEY, kept, lambda name: 0.0) == dict.fromkeys(kept, 0.0)


@pytest.mark.parametrize(("key", "names"), [(KEY, ["0.003", "0.01"]), ("no such key", ["0.003", "0.01", "0.03"])])
def test_another_grid_is_measured(keep, key, names):
    keep()
    asked = []
    assert search_once("ia3", key, names, lambda name: asked.append(name) or float(name)) == {
        name: float(name) for name in names
    }
    assert asked == names
