"""Quality, size, speed and memory, against what is computed by hand."""

import functools
import json
import math
import subprocess

import pytest
import torch
from torch import nn

import polyad
import tiny
from polyad.decompose import svd
from polyad.evaluation import clock, evaluate, measured_pair, nbytes, operations_per_token, parameters, speeds
from polyad.evaluation.memory import peak
from polyad.evaluation.quality import compare_quality, original_losses, perplexity_of
from polyad.formats import LowRank
from polyad.layers import Linear
from polyad.models import replace, shards
from polyad.quantize import round_to_nearest


def by_hand(model, windows):
    """Mean negative log-likelihood of each window's tokens after the first."""
    found = []
    for window in windows:
        p = tiny.logits(model, window[None])[0].double().softmax(-1)
        found.append(-sum(math.log(p[i, window[i + 1]]) for i in range(len(window) - 1)) / (len(window) - 1))
    return torch.tensor(found, dtype=torch.float64)


def test_perplexity_ratio_and_error_are_those_computed_by_hand():
    model, other, windows = tiny.model(), tiny.model(seed=1), tiny.ids(5, 16)
    found, agreement = compare_quality(model, other, {"text": windows})
    mine, theirs = by_hand(model, windows), by_hand(other, windows)
    said = found["text"]
    assert said.perplexity == pytest.approx(math.exp(mine.mean()), rel=1e-4)
    assert said.original == pytest.approx(math.exp(theirs.mean()), rel=1e-4)
    assert said.ratio == pytest.approx(math.exp((mine - theirs).mean()), rel=1e-4)
    assert said.error == pytest.approx(said.ratio * float((mine - theirs).std()) / math.sqrt(5), rel=1e-3)
    assert said.windows == 5
    p, q = (tiny.logits(m, windows)[:, :-1].double().log_softmax(-1) for m in (other, model))
    assert agreement.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3)
    assert agreement.top1 == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).float().mean()))


def test_a_model_agrees_with_itself():
    model = tiny.model()
    found, agreement = compare_quality(model, model, {"a": tiny.ids(1, 16), "b": tiny.ids(9, 16)})
    assert (agreement.kl, agreement.top1) == (0.0, 1.0)
    assert found["b"].ratio == 1.0
    assert found["b"].error == 0.0
    assert found["a"].error is None  # one window says nothing of the error


def test_hopeless_models_have_infinite_perplexity():
    assert perplexity_of(torch.tensor([1e4], dtype=torch.float64), tiny.ids()).perplexity == math.inf


def test_evaluate_is_the_protocol(tiny_folder, tiny_text, own_cache):
    model = polyad.load(tiny_folder)
    found = evaluate(model, tiny_text, windows=3)
    windows = polyad.data.evaluation(model, tiny_text, count=3)["topics"]
    assert found.perplexity["topics"].perplexity == pytest.approx(math.exp(by_hand(model, windows).mean()), rel=1e-4)
    assert found.perplexity["topics"].sha256 == polyad.data.digest(windows)
    assert found.agreement is None
    beside = evaluate(model, tiny_text, windows=3, original=model)
    assert beside.perplexity["topics"].ratio == pytest.approx(1.0)
    assert json.loads(json.dumps(beside.to_json()))["protocol"] == "text-1"


def counted(model, calls):
    model.register_forward_hook(lambda *_: calls.append(1))
    return model


def test_the_originals_losses_are_kept_for_that_model_and_those_tokens(tiny_folder, tmp_path, own_cache):
    calls = []
    first = original_losses(counted(polyad.load(tiny_folder), calls), tiny.ids(2))
    assert len(calls) == 2
    assert torch.equal(original_losses(counted(polyad.load(tiny_folder), calls), tiny.ids(2)), first)
    assert len(calls) == 2
    original_losses(counted(polyad.load(tiny_folder), calls), tiny.ids(2, seed=5))
    assert len(calls) == 4
    other = tiny.model(seed=3)
    other.save_pretrained(tmp_path / "other")
    assert not torch.equal(original_losses(polyad.load(tmp_path / "other"), tiny.ids(2)), first)
    changed = polyad.load(tiny_folder)
    changed.lm_head.weight.data.mul_(0.5)
    assert not torch.equal(original_losses(changed, tiny.ids(2)), first)
    turned = polyad.load(tiny_folder)
    turned.model.layers[1].self_attn.o_proj.weight.data.neg_()
    assert not torch.equal(original_losses(turned, tiny.ids(2)), first)


def test_a_damaged_record_of_losses_is_made_again(tiny_folder, own_cache):
    first = original_losses(polyad.load(tiny_folder), tiny.ids(2))
    (record,) = (own_cache / "baselines").iterdir()
    record.write_text("[1.0,")
    assert torch.equal(original_losses(polyad.load(tiny_folder), tiny.ids(2)), first)


UP = "model.layers.0.mlp.up_proj"


@pytest.mark.parametrize("kind", ["llama", "tied"])
def test_sizes_are_those_of_the_files(kind, tmp_path):
    model = tiny.model(kind)
    model.save_pretrained(tmp_path / "plain")
    numbers = sum(p.numel() for p in model.parameters())
    assert parameters(model, [UP]).total == numbers
    assert parameters(model, [UP]).selected == 32 * 48
    assert nbytes(model, [UP]).selected == 4 * 32 * 48
    assert nbytes(model, []).total == shards.folder_bytes(tmp_path / "plain") == 4 * numbers
    assert nbytes(model, [], width=2).total == 2 * numbers


def test_codes_count_as_numbers_and_scales_as_bytes(tmp_path):
    model = tiny.model()
    held = round_to_nearest(model.get_submodule(UP).weight.detach(), 4, group=16, scale_dtype=torch.float32)
    before = nbytes(model, [UP], width=2)
    replace(model, {UP: Linear(held)})
    assert parameters(model, [UP]).selected == 32 * 48
    after = nbytes(model, [UP], width=2)
    assert after.selected == held.nbytes
    assert before.total - after.total == 2 * 32 * 48 - held.nbytes
    polyad.save(model, tmp_path / "out", dtype=torch.bfloat16)
    buffers = sum(b.nbytes for n, b in model.named_buffers() if "rotary" in n)
    assert shards.folder_bytes(tmp_path / "out") == after.total + buffers


def test_operations_are_two_for_each_number_of_a_linear_layer():
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48
    assert operations_per_token(tiny.model()) == 2 * (3 * layer + 32 * 500)
    assert operations_per_token(tiny.model("tied")) == operations_per_token(tiny.model())
    model = tiny.model()
    polyad.apply(model, polyad.plan(model, functools.partial(svd, rank=4), select=UP))
    assert operations_per_token(model) == 2 * (3 * layer + 32 * 500 - 32 * 48 + 4 * (32 + 48))


def test_speeds_have_a_rate_for_every_model():
    told = []
    found = speeds({"a": tiny.model(), "b": tiny.model("qwen2")}, tokens=16, alternations=3,
                   callback=lambda *step: told.append(step[0]))  # fmt: skip
    assert set(found) == {"a", "b"}
    assert told == [1, 2, 3, 4]
    for speed in found.values():
        assert speed.threads == torch.get_num_threads()
        assert speed.dtype == "float32"
        for rate in (speed.prefill, speed.decode):
            assert len(rate.seconds) == 3
            assert 0 < rate.low <= rate.median <= rate.high
    one = speeds({"a": tiny.model()}, tokens=16, alternations=1)["a"].prefill
    assert one.low == one.median == one.high
    with pytest.raises(ValueError, match="alternations=0 measures nothing"):
        speeds({"a": tiny.model()}, alternations=0)


def test_speed_stays_within_the_context_that_a_model_has():
    assert speeds({"a": tiny.model("gpt2")}, alternations=1)["a"].decode.median > 0


def test_a_pair_is_measured_side_by_side():
    model, original = tiny.model(), tiny.model()
    polyad.apply(model, polyad.plan(model, functools.partial(svd, rank=4), select=UP))
    after, before, agreement = measured_pair(model, original, {"t": tiny.ids(3, 16)}, (UP,), width=2, alternations=0)
    assert before.parameters.selected == 32 * 48
    assert after.parameters.selected == 4 * 80
    assert before.bytes.total - after.bytes.total == 2 * (32 * 48 - 4 * 80)
    assert after.perplexity["t"] == pytest.approx(math.exp(by_hand(model, tiny.ids(3, 16)).mean()), rel=1e-4)
    assert before.perplexity["t"] == pytest.approx(math.exp(by_hand(original, tiny.ids(3, 16)).mean()), rel=1e-4)
    assert agreement.kl > 0
    assert after.prefill_tokens_per_second is None
    assert after.peak_memory_bytes is None
    json.dumps([after.to_json(), before.to_json()])


def test_peak_memory_is_that_of_a_fresh_process(tiny_folder):
    assert peak(str(tiny_folder), tokens=8) > 50e6  # torch alone takes that


def test_a_process_that_fails_says_why(monkeypatch):
    done = subprocess.CompletedProcess([], 1, "", "Traceback\n  ...\nValueError: no such model\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(RuntimeError, match="measures memory failed on here: ValueError: no such model"):
        peak("here")


def test_times_of_layers_are_told_by_shape_and_kind():
    original = nn.ModuleDict({name: nn.Linear(512, 512, bias=False) for name in ("thin", "also", "whole")})
    model = nn.ModuleDict({
        "thin": Linear(LowRank(torch.zeros(512, 4), torch.zeros(4, 512))),
        "also": Linear(LowRank(torch.zeros(512, 4), torch.zeros(4, 512))),
        "whole": Linear(LowRank(torch.zeros(512, 512), torch.zeros(512, 512))),
    })  # fmt: skip
    seen = []
    found = clock.relative_times(model, original, ["thin", "also", "whole"], lambda *given: seen.append(given[0]))
    assert seen == [1, 2, 3]
    assert found["thin"] is found["also"]
    assert set(found["whole"]) == set(clock.ROWS)
    assert all(value > 0 for times in found.values() for value in times.values())


def test_copies_of_a_layer_fill_the_cache_and_no_more(monkeypatch):
    made = []
    monkeypatch.setattr(clock.copy, "deepcopy", lambda layer: made.append(layer) or layer)
    for wide, count in ((64, clock.MOST_COPIES), (2048, clock.CACHE // (2048 * 2048 * 4)), (4096, 0)):
        made.clear()
        call = clock._call(nn.Linear(wide, wide, bias=False), 1)
        assert len(made) == count
        assert call().shape == (1, wide)


def test_break_even_is_found_where_the_clock_says(monkeypatch):
    asked = []

    def ratio(factored, _dense, turns=9):
        asked.append(factored.weight().rank)
        return 0.5 if asked[-1] <= 100 else 1.5

    monkeypatch.setattr(clock, "_call", lambda layer, rows: layer)
    monkeypatch.setattr(clock, "time_ratio", ratio)
    clock.break_even.cache_clear()
    found = clock.break_even((256, 512))
    clock.break_even.cache_clear()
    assert 96 <= found <= 100
    assert len(set(asked)) < 10
