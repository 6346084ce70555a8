"""The main job, its comparisons, and going on after a kill."""

import functools
import importlib
import json

import pytest
import torch
from safetensors.torch import load_file

import polyad
import tiny
from polyad.compress import compare, lord, modegpt
from polyad.compress.compare import mark_front
from polyad.compress.run import Asked, compress_to_folder, round_to
from polyad.compress.statistics_store import StatisticsStore
from polyad.data import Calibration
from polyad.models.calibration import collect
from polyad.quantize import round_to_nearest

plans = importlib.import_module("polyad.compress.statistics_store")
TEXT = Calibration(tiny.ids(40, 16, seed=2), tiny.ids(1, 16, seed=3), {"ids": "0"})


@pytest.fixture
def asked(tiny_text, own_cache):
    return Asked((str(tiny_text),), (str(tiny_text),), calibration_windows=20, windows=3, alternations=0)


class Killed(BaseException):
    pass


def test_a_killed_run_goes_on_where_its_statistics_stood(tmp_path, monkeypatch):
    runs = []

    def counting(*args, **options):
        if len(runs) == stop:
            raise Killed
        runs.append(1)
        return collect(*args, **options)

    monkeypatch.setattr(plans, "collect", counting)
    recipe, told = functools.partial(modegpt), {"keep": 0.7, "calibrate": TEXT}
    stop = 99
    alone = polyad.plan(tiny.model(), recipe, **told)
    assert len(runs) == 3  # parts of 16 windows
    runs.clear()
    stop = 2
    with pytest.raises(Killed):
        polyad.plan(tiny.model(), recipe, memory=StatisticsStore(tmp_path / "work", "x"), **told)
    stop = 99
    again = polyad.plan(tiny.model(), recipe, memory=StatisticsStore(tmp_path / "work", "x"), **told)
    assert len(runs) == 3  # two before the kill, one after
    assert again.sizes == alone.sizes
    assert again.importance == alone.importance
    for path, moments in alone.stats.items():
        assert again.stats[path].count == moments.count
        for name in ("second", "output_square"):
            one, other = getattr(moments, name), getattr(again.stats[path], name)
            assert (one is None) == (other is None)
            assert one is None or torch.equal(one, other)
    runs.clear()
    polyad.plan(tiny.model(), recipe, memory=StatisticsStore(tmp_path / "work", "another model"), **told)
    assert len(runs) == 3


def test_a_damaged_memory_is_made_again_and_shared_tensors_are_written_once(tmp_path):
    memory = StatisticsStore(tmp_path / "work", "x")
    model = tiny.model()
    paths = [f"model.layers.0.self_attn.{r}_proj" for r in "qk"]
    asked = {path: {"second"} for path in paths}
    memory.keep(0, asked, TEXT, collect(model, asked, [tiny.ids()]))
    found = memory.recall(0, asked, TEXT)
    assert found[paths[0]].second is found[paths[1]].second
    (file,) = (tmp_path / "work").glob("*.safetensors")
    assert len(load_file(file)) == 1
    whole = file.read_bytes()
    for damage in (lambda: file.write_bytes(whole[:-1] + b"x"), lambda: file.write_bytes(b"x"), file.unlink):
        damage()
        assert memory.recall(0, asked, TEXT) is None
        memory.keep(0, asked, TEXT, collect(model, asked, [tiny.ids()]))
        assert memory.recall(0, asked, TEXT) is not None
    assert memory.recall(1, asked, TEXT) is None
    assert memory.recall(0, {path: {"mean"} for path in paths}, TEXT) is None
    memory.forget()
    assert not (tmp_path / "work").exists()


def test_the_figures_of_a_run_are_those_of_the_saved_files(tiny_folder, tmp_path, asked):
    found = compress_to_folder(str(tiny_folder), lord, tmp_path / "out", asked, keep=0.7)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["out"]
    again = polyad.load(tmp_path / "out", dtype=torch.float32)
    told = polyad.evaluation.evaluate(again, asked.evaluate, original=polyad.load(tiny_folder), windows=3)
    assert found["compressed"]["perplexity"]["topics"] == pytest.approx(
        told.perplexity["topics"].perplexity, rel=1e-6
    )
    assert found["agreement"]["kl"] == pytest.approx(told.agreement.kl, rel=1e-5)
    sizes = [found[which]["parameters"]["selected"] for which in ("compressed", "original")]
    assert 0.65 < sizes[0] / sizes[1] <= 0.7 + 1e-9
    buffers = load_file(tmp_path / "out" / "buffers.safetensors")
    size = found["compressed"]["file_bytes"] - sum(b.nbytes for b in buffers.values())
    assert size == found["compressed"]["bytes"]["total"]
    assert len(found["layers"]) == 21
    assert found["version"] == 1
    json.dumps(found, allow_nan=False)
    stated = json.loads((tmp_path / "out" / "polyad.json").read_text())
    assert stated["base"]["sha256"] == polyad.models.folder.base_of(tiny_folder)
    assert stated["recipe"]["keep"] == 0.7


def test_a_bad_text_to_evaluate_on_costs_no_work(tiny_folder, tmp_path, asked, monkeypatch):
    monkeypatch.setattr(plans, "collect", lambda *_, **__: pytest.fail("statistics were collected"))
    with pytest.raises(FileNotFoundError, match="no text at 'nowhere'"):
        compress_to_folder(str(tiny_folder), lord, tmp_path / "out", Asked(asked.calibrate, ("nowhere",)), keep=0.7)
    assert not [p for p in tmp_path.iterdir() if p.name != "cache"]


def test_rounding_gives_weights_the_values_of_their_file():
    model = tiny.model()
    expected = model.lm_head.weight.detach().bfloat16()
    round_to(model, torch.bfloat16)
    assert model.lm_head.weight.dtype == torch.float32
    assert torch.equal(model.lm_head.weight.detach(), expected.float())


def test_comparisons_keep_points_that_fail(tiny_folder, asked):
    rtn = functools.partial(round_to_nearest, bits=4)
    recipes = {
        "lord": lord,
        "rtn": rtn,
        "bad": functools.partial(lord, rank=99),
        "mlp": functools.partial(modegpt, rules="mlp"),
    }
    points = compare(str(tiny_folder), recipes, [0.8, 0.05], asked)
    assert [(p["method"], p["keep"]) for p in points] == [
        ("lord", 0.8), ("lord", 0.05), ("rtn", None), ("bad", None), ("mlp", 0.8), ("mlp", 0.05),
    ]  # fmt: skip
    failed = {(p["method"], p["keep"]): p["error"] for p in points if p["error"]}
    assert set(failed) == {("bad", None), ("lord", 0.05), ("mlp", 0.05)}
    assert "rank=99 exceeds" in failed["bad", None]
    assert "keep=0.05 of the parameters cannot be met" in failed["mlp", 0.05]
    good = [p for p in points if not p["error"]]
    for point in good:
        after, before = point["compressed"]["perplexity"]["topics"], point["original"]["perplexity"]["topics"]
        assert point["ratio"] == pytest.approx(after / before)
    assert any(p["pareto"] for p in good)
    assert len({p["original"]["perplexity"]["topics"] for p in good}) == 1


def point(ratio, size):
    return {"error": None, "compressed": {"perplexity": {"a": ratio, "b": ratio}, "bytes": {"total": size}},
            "original": {"perplexity": {"a": 1.0, "b": 1.0}}}  # fmt: skip


def test_the_front_holds_what_no_other_beats():
    points = [point(1.0, 9), point(2.0, 5), point(3.0, 6), point(2.0, 5), point(1.5, 9), {"error": "failed"}]
    mark_front(points)
    assert [p.get("pareto") for p in points] == [True, True, False, True, False, None]


@pytest.mark.real
def test_the_built_in_model_loads_and_speaks():
    model = polyad.load("smollm2")
    tokenizer = polyad.models.origin(model).tokenizer
    ids = torch.tensor([tokenizer("The capital of France is").input_ids])
    with torch.no_grad():
        made = model.generate(ids, max_new_tokens=4, do_sample=False)[0]
    assert "Paris" in tokenizer.decode(made)
    assert len(polyad.models.blocks(model)) == 90
