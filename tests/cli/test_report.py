"""The report without a browser: self-contained, escaped, whole, and right in its numbers."""

import copy
import json
import math
import re
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from polyad.cli import app
from polyad.report import check, front, headline, heat, spectra, tables, words, write, write_study
from polyad.report.points import mean_quality, quality
from polyad.report.studies import adapter_study, cache_study

DATA = Path(__file__).parent.parent / "data"
TRAINED = {
    "spelled": "lora", "trained_parameters": 1_200_000, "bytes": 4_800_000, "steps": 150, "learning_rate": 1e-3,
    "seconds": {"training": 75.0}, "held_out": {"stdlib": {"before": 2.5, "after": 2.1}}, "peak_memory_bytes": None,
    "loss_curve": [float(i) for i in range(150)],
}  # fmt: skip


@pytest.fixture
def one():
    return json.loads((DATA / "compress.json").read_text())


@pytest.fixture
def many():
    return json.loads((DATA / "compare.json").read_text())


class Page(HTMLParser):
    """What a page holds: links to elsewhere, text by element, scripts, tags."""

    def __init__(self, text):
        super().__init__()
        self.links, self.text, self.tags, self.scripts, self.data = [], "", [], 0, ""
        self.inside = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "action", "data", "poster", "srcset") and v]
        self.inside = "data" if values.get("id") == "data" else tag
        self.scripts += tag == "script"

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "data":
            self.data += data
        elif self.inside not in ("script", "style"):
            self.text += data


def read(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["compress", "compare"])
def test_a_report_needs_nothing_beside_itself(tmp_path, name):
    records = json.loads((DATA / f"{name}.json").read_text())
    made = write(tmp_path / "new" / "report.html", records if name == "compare" else [records])
    found = read(made)
    assert found.links == ["data:,"]
    assert found.tags.count("html") == found.tags.count("title") == 1
    assert found.scripts == 3
    assert '<html lang="en">' in made.read_text()
    assert not re.search(r"@import|url\(", made.read_text().split("</style>")[0])
    assert set(json.loads(found.data)) == {"front", "heat", "spectra"}
    assert [p.name for p in made.parent.iterdir()] == ["report.html"]


def test_one_result_has_no_figure_of_one_point(tmp_path, one, many):
    assert 'id="front"' not in write(tmp_path / "one.html", [one]).read_text()
    assert 'id="front"' in write(tmp_path / "many.html", many).read_text()
    hidden = re.compile(r'<section aria-labelledby="front-title" hidden>')
    assert hidden.search(write_study(tmp_path / "a.html", adapter_study([TRAINED], {})).read_text())
    two = [TRAINED, {**TRAINED, "spelled": "dora"}]
    assert not hidden.search(write_study(tmp_path / "b.html", adapter_study(two, {})).read_text())


def test_samples_stand_beside_each_other(tmp_path, one):
    assert "continued" not in read(write(tmp_path / "without.html", [one])).text
    one["samples"] = [{"text": "a <b>", "prompt": "It was", "original": "a  dark\nnight", "now": ""}]
    text = read(write(tmp_path / "with.html", [one])).text
    for said in ("a <b>", "It was …", "a dark night", "nothing: the text ends"):
        assert said in text
    trained = {**TRAINED, "samples": one["samples"]}
    assert "a dark night" in read(write_study(tmp_path / "a.html", adapter_study([trained], {}))).text
    two = [trained, {**trained, "spelled": "dora"}]
    assert "a dark night" not in read(write_study(tmp_path / "b.html", adapter_study(two, {}))).text


def test_the_page_says_what_the_command_said_of_the_layers(tmp_path, one):
    one["plan"]["coverage"] = "21 of 22 layers were chosen, 60.0 % of the model's bytes; left whole: a (1.0 %: <b>)"
    assert one["plan"]["coverage"] in read(write(tmp_path / "report.html", [one])).text


def test_strings_of_a_record_are_escaped_everywhere(tmp_path, one, many):
    bad = "</script><img src=http://x onerror=alert(1)>&<!--"
    one["title"] = one["command"] = bad
    one["versions"][bad] = bad
    one["layers"][0]["path"] = one["layers"][0]["kind"] = bad
    one["plan"]["recipe"][0]["method"] = bad
    one["plan"]["budget"] = bad
    for side in ("original", "compressed"):
        one[side]["perplexity"][bad] = 3.0
    one["plan"]["curves"][bad] = one["plan"]["curves"].pop("model.layers.1.mlp.up_proj")
    found = read(write(tmp_path / "a.html", [one]))
    assert found.links == ["data:,"]
    assert found.scripts == 3
    assert "img" not in found.tags
    assert found.text.count(bad) >= 5
    curves = json.loads(found.data)["spectra"][0]
    assert bad in curves["items"]
    assert not re.search(
        "<(?!/?b>|br>|extra>|/extra>)", json.dumps([curves["layout"], list(curves["items"].values())])
    )
    many[3]["error"], many[0]["method"] = bad, bad
    found = read(write(tmp_path / "b.html", many))
    assert found.links == ["data:,"]
    assert f"failed: {bad}" in found.text
    assert not re.search("<(?!/?b>|br>|extra>|/extra>)", json.dumps(json.loads(found.data)["front"]))


def holes(value):
    """The record with every other number that may be missing taken out."""
    if isinstance(value, dict):
        kept = {"curves", "sizes", "layers"}
        return {k: v if k in kept else holes(v) for k, v in value.items()}
    return math.nan if isinstance(value, float) else value


@pytest.mark.parametrize("hole", [None, math.nan, math.inf])
def test_missing_numbers_leave_a_whole_page(tmp_path, one, hole):
    for side in ("original", "compressed"):
        for key in ("operations_per_token", "prefill_tokens_per_second", "decode_tokens_per_second"):
            one[side][key] = hole
        one[side]["peak_memory_bytes"] = one[side]["perplexity"]["sotu"] = hole
        one[side]["details"] = {}
    one["agreement"] = {"kl": hole, "top1": hole}
    one["plan"]["importance"] = dict.fromkeys(one["plan"]["importance"], hole)
    found = read(write(tmp_path / "r.html", [one]))
    assert "NaN" not in found.data
    assert "Infinity" not in found.data
    assert "nan" not in found.text.split()
    assert "speed not measured" in found.text
    assert isinstance(json.loads(found.data)["heat"][0]["importance"], str)
    assert json.loads(found.data)["front"].keys() >= {"bytes|text0"}


def test_a_record_of_holes_only_is_still_drawn(tmp_path, one):
    assert json.loads(read(write(tmp_path / "r.html", [holes(one)])).data)["front"]


def test_the_table_says_what_was_measured(one):
    found = " ".join(re.sub("<[^>]*>", " ", tables.comparison_table(one)).split())
    assert "1.120 ± 0.010" in found
    assert "12.50 (12.10 to 12.90)" in found
    assert "85.0 %" in found
    assert "same top token" in found.lower()


def test_slow_layers_are_named_below_the_table(one):
    assert "takes longer" not in tables.comparison_table(one)
    for layer in one["layers"]:
        layer["time"] = {"1": 0.7, "64": 0.9}
    assert "None of the" in tables.comparison_table(one)
    one["layers"][0]["time"]["64"] = 1.5
    name = one["layers"][0]["path"].rsplit(".", 1)[-1]
    said = tables.comparison_table(one)
    assert f"1 of {len(one['layers'])} layers take longer than those that they replace: {name}, " in said
    assert "up to 1.50 times with 64 rows" in said


def test_the_headline_is_in_words(one, many):
    words_ = headline.sentence([one])
    assert words_ == (
        "The model is now 1.18 times smaller and its perplexity 15.9 % higher; it decodes 1.25 times faster."
    )
    assert headline.sentence(many).startswith(
        "4 of 5 results were measured and 1 failed. Least is lost by lord, keep 0.9"
    )
    assert "Smallest is eora:rank=8" in headline.sentence(many)
    one["compressed"]["details"]["speed"]["decode"]["low"] = 10.0
    assert "within the spread" in headline.sentence([one])


def test_failed_points_stay_with_their_reason(tmp_path, many):
    found = read(write(tmp_path / "r.html", many)).text
    assert many[3]["error"] in found
    alone = read(write(tmp_path / "f.html", [many[3]]))
    assert many[3]["error"] in alone.text
    assert "every point failed" in alone.text


def test_the_geometric_mean_has_the_error_of_its_parts(one):
    mean, error = mean_quality(one)
    assert mean == pytest.approx(math.sqrt(1.12 * 1.2))
    assert error == pytest.approx(mean * math.hypot(0.01 / 1.12, 0.02 / 1.2) / 2)
    assert quality(one, "stdlib") == (1.12, 0.01)
    del one["compressed"]["details"]["perplexity"]["stdlib"]
    assert quality(one, "stdlib") == (pytest.approx(1.12), None)


def test_the_front_joins_what_no_other_beats(many):
    found = front.front_figures(many)
    assert set(found) == {f"{x}|{y}" for x in front.SIZES for y in ("mean", "text0", "text1")}
    line = found["bytes|mean"]["data"][0]
    assert line["name"] == "front"
    assert line["x"] == sorted(line["x"])
    assert len(line["x"]) == sum(bool(p.get("pareto")) for p in many)
    fast = found["decode|mean"]["data"][0]["x"]
    assert fast == pytest.approx([110, 116, 125])  # modegpt is as large as a better one, but faster
    assert not any(trace["name"] == "eora:rank=8" for trace in found["decode|mean"]["data"])


def test_best_keeps_equal_points_and_drops_beaten_ones():
    assert front.pareto_front([(1.0, 2.0), (1.0, 2.0), (1.0, 3.0), (2.0, 1.0)], more=False) == [0, 1, 3]
    assert front.pareto_front([(1.0, 2.0), (2.0, 2.0)], more=True) == [1]


def test_heat_maps_hold_shares_errors_and_importance(one):
    found = heat.heat(one)
    left = found["left"]["data"][0]
    assert left["y"] == ["0", "1", "2"]
    assert left["x"] == ["q_proj", "v_proj", "up_proj", "down_proj"]
    assert left["z"][0][0] == 1.0
    assert left["z"][1][2] == pytest.approx(0.82, abs=1e-3)
    shares = {name: share for name, (share, _) in heat.chosen_errors(one["plan"]).items()}
    assert shares["model.layers.0.self_attn.q_proj"] == 0.0
    assert shares["model.layers.1.self_attn.v_proj"] == pytest.approx(0.45**2)
    weighed = found["importance"]["data"][0]
    assert weighed["z"][2][3] == pytest.approx(math.log10(0.8))  # spread over powers of ten, so drawn as logarithms
    assert "importance 0.8" in weighed["text"][2][3]


def test_a_module_that_lost_rows_shows_what_it_had(one):
    one["layers"][0] |= {"shape": [8, 32], "parameters": 256, "whole": 1024}
    assert heat.heat(one)["left"]["data"][0]["z"][0][0] == 0.25


def test_a_heat_map_of_equal_shares_is_a_sentence_and_comes_last(one):
    for row in one["layers"]:
        row["parameters"], row["whole"], row["time"] = 8, 8, {"1": 0.5, "64": 2.0}
    figures = heat.heat(one)
    assert figures["left"] == "Every layer keeps 100.0 % of its numbers."
    assert {value for line in figures["time"]["data"][0]["z"] for value in line if value is not None} == {0.5}
    order = list(heat.measures_by_use(one))
    assert order.index("time") < order.index("left")
    one["layers"] = []
    assert heat.heat(one)["left"] == "The record holds no list of layers."


def test_errors_between_kept_choices_lie_on_a_line():
    assert heat.interpolate([1, 3, -1], [9.0, 5.0, 0.0], 2) == 7.0
    assert heat.interpolate([1, 3, -1], [9.0, 5.0, 0.0], 5) == 5.0
    assert heat.interpolate([1, 3, -1], [9.0, 5.0, 0.0], -1) == 0.0


def test_spectra_mark_the_chosen_size(one, many):
    found = spectra.spectra(one)
    assert [name for name, _ in found["groups"]] == ["layer 0", "layer 1", "layer 2"]
    line, mark = found["items"]["model.layers.1.self_attn.v_proj"]
    assert (mark["x"][0], mark["y"][0]) in list(zip(line["x"], line["y"], strict=True))
    assert line["x"][-1] == 100
    assert line["y"][-1] is None
    assert len(found["items"]["model.layers.0.self_attn.q_proj"]) == 1  # left whole: no mark
    assert list(spectra.spectra(many[2])["items"])[1] == "model.layers.0:vo"
    assert "given by hand" in spectra.spectra(many[4])


def test_numbers_read_well():
    assert words.clean([math.inf, {"a": (math.nan, True)}]) == [None, {"a": [None, True]}]
    assert words.short(None) == words.figure(math.nan) == "–"
    assert words.size_phrase(None) == "of unknown size"
    assert words.change_phrase(1.0) == "the same"


@pytest.mark.parametrize(
    ("records", "kind", "match"),
    [
        ([], ValueError, "not a list that holds a record"),
        ({"error": "x"}, ValueError, "not a list"),
        (["x"], TypeError, r"records\[0\] is str"),
        ([{"error": "x"}, {"plan": {}}], ValueError, r"records\[1\] lacks original and compressed"),
    ],
)
def test_what_is_no_record_is_refused_with_a_sentence(tmp_path, records, kind, match):
    with pytest.raises(kind, match=match):
        write(tmp_path / "r.html", records)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_and_a_missing_plotly_are_refused_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        check(tmp_path)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"pip install 'polyad\[report\]'"):
        check(tmp_path / "r.html")


def test_a_failed_write_leaves_the_old_report(tmp_path, one, monkeypatch):
    made = write(tmp_path / "r.html", [one])
    before = made.read_bytes()

    def broken(self, target):
        raise OSError("no room")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="no room"):
        write(made, [copy.deepcopy(one)])
    assert made.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


@pytest.mark.parametrize("name", ["compress", "compare"])
def test_commands_write_the_report_and_keep_the_command(tmp_path, one, many, monkeypatch, name):
    monkeypatch.setattr("polyad.compress.run.write_compressed", lambda *_, **__: {**one, "command": None})
    monkeypatch.setattr("polyad.compress.compare", lambda *_, **__: many)
    made, out = tmp_path / "my report.html", ["--out", str(tmp_path / "o")] if name == "compress" else []
    methods = "--method" if name == "compress" else "--methods"
    argv = [
        name,
        "small",
        methods,
        "lord",
        "--keep",
        "0.8",
        "--text",
        "stdlib",
        *out,
        "--report",
        str(made),
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/polyad", *argv])
    done = CliRunner().invoke(app, argv, catch_exceptions=False)
    assert done.exit_code == 0
    command = shlex.join(["polyad", *argv])
    assert command in read(made).text
    found = json.loads(done.stdout)
    assert all(r["command"] == command for r in (found if isinstance(found, list) else [found]))


def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    for where in ("polyad.compress.run.write_compressed", "polyad.compress.compare"):
        monkeypatch.setattr(where, lambda *_, **__: pytest.fail("the work was begun"))
    for argv in (
        ["compress", "small", "--method", "lord", "--out", str(tmp_path / "o")],
        ["compare", "small", "--methods", "lord"],
    ):
        with pytest.raises(IsADirectoryError, match="is a folder"):
            CliRunner().invoke(app, [*argv, "--text", "stdlib", "--report", str(tmp_path)], catch_exceptions=False)


def test_a_study_of_caches_holds_every_pair_of_axes_and_escapes_names(tmp_path):
    records = json.loads((DATA / "caches.json").read_text())
    page = read(write_study(tmp_path / "caches.html", cache_study(records, "kivi:bits=4", {"Seed": 3})))
    assert "Smallest of 3 is </script><b onclick=x>: 7.7 kB a token, +30.00 % perplexity." in page.text
    assert "least is lost by kivi:bits=4: 13.0 kB a token, +0.40 % perplexity" in page.text
    assert "kivi:bits=4 is recommended" in page.text
    assert "</script><b onclick=x>" in page.text
    assert page.tags.count("b") == 0
    assert page.links == ["data:,"]
    figures = json.loads(page.data)["front"]
    assert len(figures) == 6 * 6
    names = {trace["name"]: trace for trace in figures["bytes|text0"]["data"]}
    assert names["kivi:bits=4"]["x"] == [13000]
    assert names["kivi:bits=4"]["y"] == [pytest.approx(0.4)]
    assert names["front"]["x"] == [7700, 13000, 46080]
    assert names["kivi:bits=4"]["error_y"]["array"] == [pytest.approx(0.1)]
    best = figures["smaller|time"]["data"][0]  # to the right is smaller, down is faster
    assert (best["name"], len(best["x"])) == ("front", 3)


def test_a_study_of_adapters_tells_the_failed_and_averages_the_curves(tmp_path):
    records = [TRAINED, {"spelled": "vera", "error": "no <rank> fits"}]
    page = read(write_study(tmp_path / "adapters.html", adapter_study(records, {})))
    assert (
        "1 of 2 adapters were trained. Least is the loss of lora: 2.500 before and 2.100 after on stdlib."
        in page.text
    )
    assert "no <rank> fits" in page.text
    (curve,) = json.loads(page.data)["curves"]["data"]
    assert curve["x"][-1] == 150
    assert len(curve["x"]) == 20
    assert curve["y"][0] == 3.0  # the mean of the first seven
    assert json.loads(page.data)["front"]["trained|memory"] == "Nothing was measured on these axes."
    none = adapter_study(records[1:], {})
    assert read(write_study(tmp_path / "none.html", none)).text.count("every adapter failed") == 1
