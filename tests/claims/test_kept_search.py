"""A search that a result keeps is not run again; another grid's, or one that it lacks, is."""

import pytest

from polyad.claims import read_result
from polyad.claims._kept_search import search_once

KEY = "losses of IA3 by rate, when tuned"


def test_a_kept_search_is_taken_from_the_result():
    kept = read_result("ia3").details[KEY]
    asked = []
    assert search_once("ia3", KEY, kept, asked.append) == kept
    assert not asked


@pytest.mark.parametrize(("key", "names"), [(KEY, ["0.003", "0.01"]), ("no such key", ["0.003", "0.01", "0.03"])])
def test_another_grid_is_measured(key, names):
    asked = []
    assert search_once("ia3", key, names, lambda name: asked.append(name) or float(name)) == {
        name: float(name) for name in names
    }
    assert asked == names
