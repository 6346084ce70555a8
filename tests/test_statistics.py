"""Calibration statistics against moments computed by hand."""

import pytest
import torch

import tiny
from polyad.models import Moments, collect
from polyad.models.calibration.collect import combined

EVERY = {"second", "mean", "peak", "output_square"}
LAYER = "model.layers.1."


def inputs(model, path, windows):
    """What a module gets and gives, as rows."""
    seen, given = [], []

    def hook(_module, args, output):
        seen.append(args[0].detach().flatten(0, -2).double())
        given.append(output.detach().flatten(0, -2).double())

    handle = model.get_submodule(path).register_forward_hook(hook)
    for window in windows:
        tiny.logits(model, window[None])
    handle.remove()
    return torch.cat(seen), torch.cat(given)


@pytest.mark.parametrize("path", [LAYER + "self_attn.o_proj", LAYER + "mlp.down_proj", "lm_head"])
def test_moments_are_those_of_the_inputs(path):
    model, windows = tiny.model(), tiny.ids(3, 20)
    found = collect(model, {path: EVERY}, windows.split(2))[path]
    x, y = inputs(model, path, windows)
    assert found.count == len(x) == 60
    torch.testing.assert_close(found.second.double(), x.mT @ x / 60, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.mean.double(), x.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.peak.double(), x.abs().amax(0))
    torch.testing.assert_close(found.output_square.double(), y.square().mean(0), rtol=1e-4, atol=1e-5)
    centred = x - x.mean(0)
    torch.testing.assert_close(found.covariance().double(), centred.mT @ centred / 60, rtol=1e-3, atol=1e-4)


def test_influence_is_the_mean_angle_between_input_and_output():
    model, windows = tiny.model(), tiny.ids(2, 16)
    found = collect(model, {"model.layers.1": {"influence"}}, windows.split(1))["model.layers.1"]
    x, y = inputs(model, "model.layers.1", windows)
    expected = (1 - torch.nn.functional.cosine_similarity(x, y)).mean()
    assert float(found.influence) == pytest.approx(float(expected), rel=1e-4)
    assert found.second is None


def test_modules_that_get_one_tensor_share_its_moment_and_keep_their_own_outputs():
    model = tiny.model()
    roles = [LAYER + f"self_attn.{r}_proj" for r in "qkv"]
    needs = {roles[0]: {"second", "output_square"}, roles[1]: {"second", "output_square"}, roles[2]: {"second"}}
    found = collect(model, needs, tiny.ids(2, 20).split(1))
    assert found[roles[0]].second is found[roles[1]].second is found[roles[2]].second
    assert found[roles[2]].output_square is None
    for role in roles[:2]:
        x, y = inputs(model, role, tiny.ids(2, 20))
        torch.testing.assert_close(found[role].second.double(), x.mT @ x / 40, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[role].output_square.double(), y.square().mean(0), rtol=1e-4, atol=1e-5)
        assert found[role].count == 40


def test_a_module_that_needs_more_than_the_one_before_collects_for_itself():
    model = tiny.model()
    q, v = LAYER + "self_attn.q_proj", LAYER + "self_attn.v_proj"
    found = collect(model, {q: {"output_square"}, v: {"second"}}, [tiny.ids()])
    x, _ = inputs(model, v, tiny.ids())
    assert found[q].second is None
    torch.testing.assert_close(found[v].second.double(), x.mT @ x / len(x), rtol=1e-4, atol=1e-5)


def test_parts_combine_to_the_whole():
    model, windows = tiny.model(), tiny.ids(3, 20)
    paths = {LAYER + "mlp.gate_proj": EVERY, LAYER + "mlp.up_proj": EVERY}
    whole = collect(model, paths, windows.split(1))
    parts = combined(collect(model, paths, windows[:1].split(1)), collect(model, paths, windows[1:].split(1)))
    for path, moments in parts.items():
        assert moments.count == whole[path].count
        for name in EVERY:
            torch.testing.assert_close(getattr(moments, name), getattr(whole[path], name), rtol=1e-4, atol=1e-5)
    up, gate = parts[LAYER + "mlp.up_proj"], parts[LAYER + "mlp.gate_proj"]
    assert up.second is gate.second


def test_hooks_are_gone_afterwards_and_progress_is_told():
    model, told = tiny.model(), []
    path = LAYER + "mlp.up_proj"
    collect(model, {path: {"second"}}, tiny.ids(3, 8).split(1), callback=lambda *step: told.append(step[:2]))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert not model.get_submodule(path)._forward_hooks
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="hold NaN"):
        collect(model, {path: {"second"}}, [tiny.ids()])
    assert not model.get_submodule(path)._forward_hooks


def test_bad_activations_are_named_by_module():
    model = tiny.model()
    model.model.layers[1].mlp.up_proj.weight.data[3] = float("inf")
    healthy, ill = LAYER + "self_attn.q_proj", LAYER + "mlp.down_proj"
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.down_proj hold NaN or infinite"):
        collect(model, {healthy: {"second"}, ill: {"second"}}, [tiny.ids()])


@pytest.mark.parametrize("batches", [[], [torch.zeros(1, 0, dtype=torch.int64)]])
def test_empty_calibration_is_refused(batches):
    with pytest.raises(ValueError, match="the calibration data is empty; give at least one window"):
        collect(tiny.model(), {LAYER + "mlp.up_proj": {"second"}}, batches)


def test_unknown_statistics_are_refused_and_missing_ones_named():
    with pytest.raises(ValueError, match=r"needs \['third'\]; there are second, mean"):
        collect(tiny.model(), {LAYER + "mlp.up_proj": {"third"}}, [tiny.ids()])
    with pytest.raises(ValueError, match="'mean' was not collected; calibrate with a text"):
        Moments(1, second=torch.eye(2)).covariance()
