"""Lines, verdicts and results of claims: what is stored, when a re-run writes, and what the commands show of it."""

import json
import math
import re
from dataclasses import asdict, fields

import pytest

import polyad
from polyad.claims import _result_files, conflict, handles, measure, results, run, unreadable_results
from polyad.claims._scripts import SCRIPTS, import_script
from polyad.claims.record import Line, Outcome, Result, mean_and_error

FIELDS = [
    "handle", "assertion", "figure", "error", "relation", "bound", "verdict", "seeds", "windows", "rival", "control",
    "data", "commit", "minutes", "tolerance", "changed_since",
]  # fmt: skip
HANDLE = "meta-factorization"


def line(figure=0.9, relation="<=", bound=1.0, **rest):
    return Line(assertion="as stated", figure=figure, relation=relation, bound=bound, **rest)


def test_a_line_has_the_fields_that_all_claims_share():
    assert [field.name for field in fields(Line)] == FIELDS


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (line(), "holds"),
        (line(1.0), "holds"),
        (line(1.1), "fails"),
        (line(1.1, ">="), "holds"),
        (line(math.nan), "fails"),
        (line(math.nan, ">="), "fails"),
        (line(1, "<=", 1, error=0), "holds"),
        (line(2, "<=", 1, error=0, seeds=3), "fails"),
        (line(error=0.0232, seeds=3), "holds"),  # 0.1 / 4.3027 = 0.02324
        (line(error=0.0233, seeds=3), "no clear difference"),
        (line(1.1, error=0.0232, seeds=3), "fails"),
        (line(1.1, error=0.0233, seeds=3), "no clear difference"),
        (line(1.1, ">=", error=0.0232, seeds=3), "holds"),
        (line(error=0.0388, seeds=6), "holds"),  # 0.1 / 2.5706 = 0.0389
        (line(error=0.0390, seeds=6), "no clear difference"),
        (line(error=0.0388, windows=6), "holds"),
        (line(error=0.0388, seeds=1, windows=6), "holds"),
        (line(error=0.0388, seeds=3, windows=6), "no clear difference"),
        (line(0.9, error=0.2, seeds=2), "no clear difference"),
    ],
)
def test_the_verdict_follows_from_figure_error_and_bound(given, verdict):
    assert given.verdict == verdict


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ({"relation": "<"}, ValueError, "write '<=' or '>='"),
        ({"error": -0.1, "seeds": 3}, ValueError, "error=-0.1 is not a size"),
        ({"tolerance": math.nan}, ValueError, "tolerance=nan"),
        ({"seeds": 0}, ValueError, "seeds=0 is not a count"),
        ({"windows": 2.5}, ValueError, "windows=2.5 is not a count"),
        ({"error": 0.1}, ValueError, "say in seeds or windows how many there were"),
        ({"error": 0.1, "seeds": 1}, ValueError, "over 1 seed"),
        ({"figure": "0.9"}, TypeError, "figure='0.9' is not a number"),
        ({"figure": True}, TypeError, "figure=True"),
        ({"bound": None}, TypeError, "bound=None"),
    ],
)
def test_lines_that_cannot_be_meant_are_refused(wrong, kind, said):
    with pytest.raises(kind, match=said):
        line(**wrong)


def test_the_error_is_that_of_the_mean_over_pairs():
    given = mean_and_error([0.1, 0.2, 0.6])
    assert given["figure"] == pytest.approx(0.3)
    assert given["error"] == pytest.approx(0.07**0.5 / 3**0.5)
    assert line(**given, seeds=3).interval == pytest.approx((0.3 - 0.65724, 0.3 + 0.65724), abs=1e-5)
    with pytest.raises(ValueError, match="at least two"):
        mean_and_error([1.0])


@pytest.mark.parametrize(
    ("before", "figure", "agrees"),
    [
        (line(0.9), 0.9099, True), (line(0.9), 0.911, False), (line(1e-12), 5e-13, True),
        (line(3.0, tolerance=0.0), 3.0, True), (line(3.0, tolerance=0.0), 3.0000001, False),
        (line(2.0, bound=0.0), 2.01, True), (line(2.0, bound=0.0), 2.03, False), (line(math.nan), math.nan, True),
        (line(math.inf), 1.0, False), (line(0.9), math.nan, False), (line(math.inf), math.inf, True),
    ],
)  # fmt: skip
def test_a_rerun_agrees_within_the_tolerance(before, figure, agrees):
    assert before.agrees(figure) == agrees


@pytest.mark.parametrize(
    ("before", "again", "reason"),
    [
        ([line(0.9)], [line(0.905)], None),
        ([line(0.9)], [line(0.95)], "too far"),
        ([line(0.9, error=0.02, seeds=3)], [line(0.95)], None),
        ([line(0.9, error=0.02, seeds=3)], [line(0.99)], "too far"),
        ([line(0.999)], [line(1.001)], "reversed"),
        ([line(0.99, error=0.02, seeds=3)], [line(1.001, error=0.02, seeds=3)], None),
        ([line(0.9, data={"x": "1"})], [line(0.9, data={"x": "2"})], None),
        ([line(0.9)], [line(0.9), line(0.8)], "2 lines and had 1"),
    ],
)
def test_a_rerun_contradicts_by_its_verdict_or_its_distance(before, again, reason):
    said = conflict(before, again)
    assert said is None if reason is None else reason in said


@pytest.fixture
def claim(tmp_path, monkeypatch, own_cache):
    """One claim alone, with no result; calling it with lines makes it give these."""
    monkeypatch.setattr(_result_files, "RESULTS", tmp_path / "results")
    for handle in set(SCRIPTS) - {HANDLE}:
        monkeypatch.delitem(SCRIPTS, handle)
    script = import_script(HANDLE)

    def give(*lines, details=None, **words):
        words = words | {"details": details or {}}
        outcome = Outcome(lines, words["details"]) if lines else Result("as stated", **words)
        monkeypatch.setattr(script, "claim", lambda callback=None: outcome)

    return give


def stored_file():
    return _result_files.RESULTS / f"{HANDLE}.json"


def other_code():
    """Let the stored result be of other code."""
    content = json.loads(stored_file().read_text())
    content["definitions"] = [label[:-1] + "x" for label in content["definitions"]]
    stored_file().write_text(json.dumps(content))


def test_a_claim_of_several_lines_is_stored_as_it_is(claim):
    claim(line(0.9, data={"x": "1"}), line(2, ">=", 1, error=0, rival="the best", control="noise"), details={"a": 1})
    rerun = run(HANDLE)
    assert rerun.written
    assert "it had no result" in rerun.because
    (stored,) = results()
    assert stored.details == {"a": 1}
    assert [asdict(one) for one in stored.lines] == [asdict(one) for one in rerun.lines]
    assert [one.verdict for one in stored.lines] == ["holds", "holds"]
    assert all(one.handle == HANDLE and one.minutes == 0.0 and not one.changed_since for one in stored.lines)


def test_a_rerun_that_agrees_writes_nothing_and_is_logged(claim, own_cache):
    claim(line(0.9))
    run(HANDLE)
    before = stored_file().read_bytes()
    claim(line(0.9005))
    rerun = run(HANDLE)
    assert not rerun.written
    assert "nothing is written" in rerun.because
    assert stored_file().read_bytes() == before
    first, second = map(json.loads, (own_cache / "claims.jsonl").read_text().splitlines())
    assert (first["lines"][0]["figure"], second["lines"][0]["figure"]) == (0.9, 0.9005)
    assert second["seconds"] == 0.0
    assert "torch" in second["versions"]
    assert "seconds" not in before.decode()
    assert "versions" not in before.decode()


@pytest.mark.parametrize(
    ("again", "reason"),
    [
        ([line(0.8)], "the figure 0.8 is not 0.9 within a tolerance of 0.01"),
        ([line(0.9, data={"x": "2"})], "data is"),
        ([line(0.9, bound=0.95)], "bound is 0.95 and was 1.0"),
        ([line(0.9, error=0.1, seeds=3)], "verdict is 'no clear difference' and was 'holds'"),
        ([line(0.9, seeds=6)], "seeds is 6"),
        ([line(0.9), line(0.8)], "2 lines and had 1"),
    ],
)
def test_a_rerun_that_says_something_new_is_written(claim, again, reason):
    claim(line(0.9))
    run(HANDLE)
    claim(*again)
    rerun = run(HANDLE)
    assert rerun.written
    assert reason in rerun.because
    assert [one.figure for one in results()[0].lines] == [one.figure for one in again]


def test_code_that_changed_is_a_flag_beside_the_verdict(claim):
    claim(line(0.9))
    run(HANDLE)
    other_code()
    (stored,) = results()
    assert stored.lines[0].verdict == "holds"
    assert stored.lines[0].changed_since
    assert stored.lines[0].state == "holds (code changed since)"
    assert "claim" in stored.changed
    before = stored_file().read_bytes()
    assert not run(HANDLE).written
    assert stored_file().read_bytes() == before
    claim(line(0.9001))
    rerun = run(HANDLE, confirm=True)
    assert "noted that the code as it is now gives it" in rerun.because
    (stored,) = results()
    assert (stored.lines[0].figure, stored.lines[0].changed_since) == (0.9, False)


def test_a_result_of_the_old_form_takes_over_what_it_does_not_state(claim):
    claim(line(0.9, seeds=5, rival="the best", tolerance=0.2, error=0.0, data={"x": "1"}))
    run(HANDLE)
    claim(measured=0.8, relation="<=", bound=1.0, data={"x": "1"}, seed=0, details={"b": 2})
    assert not run(HANDLE).written
    claim(measured=0.5, relation="<=", bound=1.0, data={"x": "1"}, seed=0, details={"b": 2})
    assert run(HANDLE).written
    (stored,) = results()
    first = stored.lines[0]
    assert (first.figure, first.seeds, first.rival, first.tolerance, first.error) == (0.5, 5, "the best", 0.2, 0.0)
    assert stored.details == {"b": 2}


def test_measuring_writes_no_result(claim):
    claim(line(0.9))
    assert measure(HANDLE).lines[0].handle == HANDLE
    assert results() == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[:100], "is damaged"),
        (lambda text: "[]", "is damaged"),
        (lambda text: text.replace('"bound"', '"bond"'), "bond, bound"),
        (lambda text: text.replace('"figure": 0.9', '"figure": 1.9'), "has the verdict 'holds', and its figure says"),
        (lambda text: text.replace('"figure": 0.9', '"figure": "high"'), "is not a number"),
        (lambda text: text.replace('"details"', '"detail"'), "where an object with details is needed; restore it"),
        (lambda text: json.dumps({**json.loads(text), "lines": []}), "it has no line"),
        (lambda text: json.dumps({**json.loads(text), "definitions": [1]}), "states 1 for definitions[0]"),
    ],
)
def test_a_damaged_result_is_named_and_nothing_else_stops(claim, polyad_command, damage, said):
    claim(line(0.9))
    run(HANDLE)
    stored_file().write_text(damage(stored_file().read_text()))
    assert results() == []
    assert said in unreadable_results()[HANDLE]
    assert str(stored_file()) in unreadable_results()[HANDLE]
    for told in (("claims",), ("claims", "--json"), ("methods", "--json")):
        code, out, err = polyad_command(*told)
        assert code == 0
        if told[0] == "claims":
            assert stored_file().name in err.replace("\n", "")
        if "--json" in told:
            assert isinstance(json.loads(out), list)
    assert "is damaged" in run(HANDLE).because
    assert unreadable_results() == {}


def test_the_command_prints_every_field_of_every_line(claim, polyad_command):
    claim(line(0.9), line(1.1))
    code, out, err = polyad_command("claims", HANDLE, "--json")
    assert code == 0
    assert "written: it had no result" in err
    printed = json.loads(out)
    assert [list(one) for one in printed] == [FIELDS, FIELDS]
    assert [one["verdict"] for one in printed] == ["holds", "fails"]
    code, out, _ = polyad_command("methods", "--json")
    assert code == 0
    (card,) = [card for card in json.loads(out) if HANDLE in card["handles"]]
    assert [list(one) for one in card["claims"]] == [FIELDS, FIELDS]


def test_the_command_runs_what_changed_or_has_no_result(claim, polyad_command):
    claim(line(0.9))
    code, out, err = polyad_command("claims")
    assert code == 0
    assert f"never run here: {HANDLE}" in out
    code, _, err = polyad_command("claims", "--changed")
    assert (code, "written" in err) == (0, True)
    other_code()
    code, out, _ = polyad_command("claims")
    assert code == 0
    assert "code changed since" in " ".join(out.split())
    assert "polyad claims --changed" in out
    code, out, err = polyad_command("claims", "--stale", "--json")
    assert code == 0
    assert "--stale is now called --changed" in err
    assert "noted that the code" in " ".join(err.split())
    assert [one["changed_since"] for one in json.loads(out)] == [False]
    code, _, err = polyad_command("claims", "--changed")
    assert (code, err.strip()) == (0, "")
    code, _, err = polyad_command("claims", HANDLE, "--all")
    assert code == 1
    assert "not several of these" in err


def test_stored_results_are_readable_and_of_claims_that_are_there():
    assert unreadable_results() == {}
    assert {file.stem for file in _result_files.RESULTS.glob("*.json")} <= set(handles())
    assert {file.suffix for file in _result_files.RESULTS.iterdir()} == {".json"}


def test_methods_whose_claims_fail_say_what_to_use_in_their_place():
    failing = {result.handle for result in results() if any(line.verdict == "fails" for line in result.lines)}
    silent = {handle for handle in failing if not any(c.instead for c in polyad.methods() if handle in c.handles)}
    assert failing
    assert not silent
    for card in polyad.methods():
        named = {word for word in re.findall("`([a-z_0-9]+)`", card.instead) if word != "head"}
        unknown = named - {other.name for other in polyad.methods()}
        assert not unknown, f"{card.name} sends its users to {unknown}"
        assert card.instead == "" or card.instead.endswith(".")
