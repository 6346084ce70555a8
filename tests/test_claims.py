"""When a kept result says something of the code as it stands, and when it has gone stale."""

import json
from types import ModuleType

import pytest

from polyad.claims import CLAIMS, _code, _result, handles, results, run

CACHED = [f for f in vars(_code).values() if hasattr(f, "cache_clear")]

FILES = {
    "claims/thing.py": "from polyad.methods import one\nfrom polyad import numbers as n\n\nclaim = one\n",
    "claims/__init__.py": "from polyad.claims import thing\n",
    "methods/__init__.py": "from polyad.methods.one import one\nfrom polyad.methods.two import two\n",
    "methods/one.py": "from polyad._check import share\n\n\ndef one():\n    from polyad.algebra import root\n\n"
                      "    return root('# no comment')\n",
    "methods/two.py": "def two():\n    return 2\n",
    "algebra/__init__.py": "from polyad.algebra.roots import root\n",
    "algebra/roots.py": "def root(x):\n    return x  # as it is\n",
    "numbers.py": "N = 1\n",
    "_check.py": "def share(x):\n    return x\n",
}  # fmt: skip


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a few files in polyad's place; calling it with a change gives the hash of its claim."""
    monkeypatch.setattr(_code, "ROOT", tmp_path)

    def code(**changed):
        for name, content in {**FILES, **{k.replace("__", "/") + ".py": v for k, v in changed.items()}}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
        for function in CACHED:
            function.cache_clear()
        return _code.code(ModuleType("polyad.claims.thing"))

    yield code
    for function in CACHED:
        function.cache_clear()


def test_names_are_followed_to_the_modules_that_define_them(package):
    package()
    reached = {name.removeprefix("polyad.") for name in _code.reached("polyad.claims.thing")}
    assert reached == {"claims.thing", "methods.one", "algebra.roots", "numbers"}


@pytest.mark.parametrize("name", ["claims__thing", "methods__one", "algebra__roots", "numbers"])
def test_what_a_claim_uses_makes_it_stale(package, name):
    before = package()
    file = name.replace("__", "/") + ".py"
    assert package(**{name: FILES[file] + "\nX = 2\n"}) != before
    assert package() == before


def test_what_a_claim_does_not_use_and_what_is_only_said_leave_it_fresh(package):
    before = package()
    assert package(methods__two="def two():\n    return 3\n") == before
    assert package(_check="def share(x):\n    return not x\n") == before
    assert (
        package(algebra__roots='"""Roots."""\n\n\ndef root(x):\n    """A root."""\n    # said\n    return x\n')
        == before
    )
    assert package(methods__one=FILES["methods/one.py"].replace("# no comment", "# a string")) != before


def test_a_file_outside_goes_stale_with_what_it_uses(package, tmp_path):
    package()
    file = tmp_path / "bench.py"
    file.write_text("from polyad.methods import two\nROWS = two\n")
    before = _code.code_below(file)
    package(methods__one="def one():\n    return 1\n")
    assert _code.code_below(file) == before
    package(methods__two="def two():\n    return 3\n")
    assert _code.code_below(file) != before
    package()
    assert _code.code_below(file) == before
    file.write_text("from polyad.methods import two\nROWS = two, two\n")
    assert _code.code_below(file) != before


def test_every_claim_reaches_its_method_and_nothing_that_only_shows():
    for module in CLAIMS.values():
        reached = _code.reached(module.__name__)
        assert not [name for name in reached if name.split(".")[1] in ("cli", "report", "testing")]
        assert len(reached) > 1
    reached = _code.reached(CLAIMS["eora"].__name__)
    assert {
        "polyad.compress.methods.eora",
        "polyad.linalg.metric",
        "polyad.quantize.methods.round_to_nearest",
    } <= reached
    assert "polyad.compress.methods.welore" not in reached


def test_a_result_goes_stale_with_the_code_that_it_tests(tmp_path, monkeypatch, polyad_command):
    monkeypatch.setattr(_result, "RESULTS", tmp_path)
    handle = "meta-factorization"
    kept = run(handle)
    assert [(r["handle"], r["state"], r["because"]) for r in results()] == [(handle, "holds", None)]
    file = tmp_path / f"{handle}.json"
    for changed, reason in (
        ({"code": "0"}, "the code that it tests has changed"),
        ({"source": "0"}, "the claim has changed"),
        ({"code": None}, "before the code that it tests was recorded"),
    ):
        record = {k: v for k, v in {**kept, **changed}.items() if v is not None}
        file.write_text(json.dumps(record))
        (found,) = results()
        assert found["state"] == "stale"
        assert reason in found["because"]
    code, out, _ = polyad_command("claims")
    assert code == 0
    assert "stale" in out
    assert "polyad claims --stale" in out
    monkeypatch.setattr("polyad.claims.handles", lambda: [handle])
    code, out, _ = polyad_command("claims", "--stale", "--json")
    assert code == 0
    assert [r["state"] for r in json.loads(out)] == ["holds"]
    code, _, err = polyad_command("claims", handle, "--all")
    assert code == 1
    assert "not several of these" in err


def test_kept_results_are_of_claims_that_are_there():
    assert {r["handle"] for r in results()} <= set(handles())
