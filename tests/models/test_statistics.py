"""Calibration statistics against moments computed by hand."""

import pytest
import torch

import tiny
from polyad.models import Moments, collect
from polyad.models.calibration import join_statistics

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
    parts = join_statistics(collect(model, paths, windows[:1].split(1)), collect(model, paths, windows[1:].split(1)))
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
    with pytest.raises(ValueError, match=r"needs \['third'\]; there are influence, mean"):
        collect(tiny.model(), {LAYER + "mlp.up_proj": {"third"}}, [tiny.ids()])
    with pytest.raises(ValueError, match="'mean' was not collected; calibrate with a text"):
        Moments(1, second=torch.eye(2)).covariance()


class Parted(torch.nn.Module):
    """Two layers that get one tensor; at every second call the second gets another one."""

    def __init__(self, in_place):
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.norm, self.in_place, self.calls = torch.nn.BatchNorm1d(4), in_place, 0

    def forward(self, x):
        self.calls += 1
        x = self.norm(x)
        y = self.first(x)
        if self.in_place:
            x.mul_(3)
        elif self.calls % 2 == 0:
            x = 2 * x
        return y + self.second(x)


@pytest.mark.parametrize("in_place", [True, False])
def test_layers_that_stop_sharing_their_input_count_for_themselves(in_place):
    torch.manual_seed(0)
    model, batches = Parted(in_place).train(), [torch.randn(8, 4) for _ in range(4)]
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    found = collect(model, {"first": {"second"}, "second": {"second"}}, batches)
    assert model.training
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    x = torch.cat(batches) / (1 + model.norm.eps) ** 0.5
    scales = (
        torch.full((32, 1), 3.0) if in_place else torch.tensor([1.0, 2.0, 1.0, 2.0]).repeat_interleave(8)[:, None]
    )
    torch.testing.assert_close(found["first"].second, x.mT @ x / 32)
    torch.testing.assert_close(found["second"].second, (scales * x).mT @ (scales * x) / 32)


def test_a_layer_that_is_never_called_is_named():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3))
    model.add_module("idle", torch.nn.Linear(3, 3))
    model.forward = lambda x: model[0](x)
    with pytest.raises(ValueError, match="idle is never called on the calibration data"):
        collect(model, {"idle": {"mean"}}, [torch.ones(2, 3)])
