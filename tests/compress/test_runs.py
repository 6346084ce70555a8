"""The main job, its comparisons, and going on after a kill."""

import dataclasses
import functools
import importlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import polyad
import tiny
from polyad.compress import Step, compare, lord, modegpt
from polyad.compress.asked import Request
from polyad.compress.compare import mark_front
from polyad.compress.compression import Compression
from polyad.compress.recipe import steps
from polyad.compress.result import measure_result
from polyad.compress.run import Asked, compress_model, compress_to_folder
from polyad.compress.statistics_store import StatisticsStore
from polyad.data import Calibration
from polyad.layers import Linear
from polyad.models import load
from polyad.models.calibration import collect
from polyad.models.shards import round_to
from polyad.quantize import round_to_nearest

runs = importlib.import_module("polyad.compress.run")
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


def test_statistics_of_another_configuration_are_not_used(tiny_folder, tmp_path, asked, monkeypatch):
    changed = tmp_path / "model"
    shutil.copytree(tiny_folder, changed)
    with pytest.raises(Killed):
        _compress_until_applied(changed, tmp_path, asked, monkeypatch)
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    collected = []
    real = plans.collect
    monkeypatch.setattr(plans, "collect", lambda *a, **k: collected.append(1) or real(*a, **k))
    compress_to_folder(str(changed), lord, tmp_path / "out", asked, keep=0.7)
    assert collected, "the statistics were collected with another configuration"


def _compress_until_applied(folder, place, asked, monkeypatch):
    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Compression, "replace", killed)
        compress_to_folder(str(folder), lord, place / "out", asked, keep=0.7)


def test_a_run_that_was_killed_while_it_measured_goes_on(tiny_folder, tmp_path, asked, monkeypatch):
    def killed(*_, **__):
        raise Killed

    alone = compress_to_folder(str(tiny_folder), lord, tmp_path / "alone", asked, keep=0.7)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "measure_result", killed)
        with pytest.raises(Killed):
            compress_to_folder(str(tiny_folder), lord, tmp_path / "out", asked, keep=0.7)
    assert (tmp_path / "out" / "polyad.json").is_file()
    with pytest.raises(FileExistsError, match="already holds something"):
        compress_to_folder(str(tiny_folder), lord, tmp_path / "out", asked, keep=0.6)
    again = compress_to_folder(str(tiny_folder), lord, tmp_path / "out", asked, keep=0.7)
    assert again["compressed"]["perplexity"] == alone["compressed"]["perplexity"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["alone", "out"]


def test_a_cache_that_cannot_be_written_in_costs_time_alone(tiny_folder, tmp_path, asked, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("POLYAD_CACHE", str(tmp_path / "file"))
    compress_to_folder(str(tiny_folder), lord, tmp_path / "out", asked, keep=0.7)


def test_damaged_tokens_and_baselines_are_made_again(tiny_folder, tmp_path, asked, monkeypatch):
    monkeypatch.setenv("POLYAD_CACHE", str(tmp_path / "cache"))
    first = compress_to_folder(str(tiny_folder), lord, tmp_path / "a", asked, keep=0.7)
    (tokens,) = (tmp_path / "cache" / "tokens").glob("*.safetensors")
    (baseline,) = (tmp_path / "cache" / "baselines").glob("*.json")
    whole, right = tokens.read_bytes(), {name: ids.clone() for name, ids in load_file(tokens).items()}
    tokens.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    for number, text in enumerate((baseline.read_text().replace("0", "1", 1), '{"losses": {}}', "[" * 9999, "[1.0]")):
        baseline.write_text(text)
        again = compress_to_folder(str(tiny_folder), lord, tmp_path / str(number), asked, keep=0.7)
        assert again["original"]["perplexity"] == first["original"]["perplexity"]
        assert again["compressed"]["perplexity"] == first["compressed"]["perplexity"]
    assert all(torch.equal(ids, right[name]) for name, ids in load_file(tokens).items())


def test_the_figures_of_a_run_are_those_of_the_saved_files(tiny_folder, tmp_path, asked):
    found = compress_to_folder(str(tiny_folder), lord, tmp_path / "out", asked, keep=0.7)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["out"]
    again = polyad.load(tmp_path / "out", dtype=torch.float32)
    told = polyad.evaluation.evaluate(again, asked.evaluate, original=polyad.load(tiny_folder), windows=3)
    assert found["compressed"]["perplexity"]["topics"] == pytest.approx(
        told.perplexity["topics"].perplexity, rel=1e-6
    )
    assert found["agreement"]["kl"] == pytest.approx(told.agreement.kl, rel=1e-5)
    (sample,) = found["samples"]
    ids = polyad.data.evaluation(again, asked.evaluate, count=3)["topics"][0, :32]
    for name, model in (("original", polyad.load(tiny_folder)), ("now", again)):
        assert sample[name] == polyad.generate(model, ids, max_new_tokens=32).text[0]
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


def test_arguments_that_are_dtypes_are_written(tiny_folder, tmp_path, asked):
    recipe = "rtn:bits=8,scale_dtype=float16"
    found = compress_to_folder(str(tiny_folder), recipe, tmp_path / "out", asked)
    expected = [{"method": "round_to_nearest", "arguments": {"bits": 8, "scale_dtype": "float16"}}]
    assert json.loads((tmp_path / "out" / "polyad.json").read_text())["recipe"]["recipe"] == expected
    assert json.loads(json.dumps(found))["plan"]["recipe"] == expected
    assert steps(recipe)[0].to_json() == expected[0]


def test_a_record_that_cannot_be_written_costs_no_work(tiny_folder, tmp_path, asked, monkeypatch):
    monkeypatch.setattr(runs, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    monkeypatch.setattr(Step, "to_json", lambda _step: {"method": torch.float16})
    with pytest.raises(TypeError, match="not JSON serializable"):
        compress_to_folder(str(tiny_folder), "rtn:bits=8", tmp_path / "out", asked)


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


@pytest.mark.usefixtures("own_cache")
def test_what_is_timed_has_the_kernels_of_whoever_loads_it(tiny_folder, asked, tmp_path):
    request = Request(str(tiny_folder), steps("rtn:bits=4,group=16"), None, asked)
    compressed, original = compress_model(request, tmp_path), load(str(tiny_folder))
    wishes = [m.weight.wish for m in compressed.model.modules() if isinstance(m, Linear)]
    assert wishes
    assert not any(wishes)
    measure_result(compressed, original, dataclasses.replace(asked, alternations=1), (None, None), None)
    layers = [m for m in compressed.model.modules() if isinstance(m, Linear)]
    assert all(layer.weight.wish or layer.weight.prepared for layer in layers)
