"""Adapters of which two processes hold shards (FSDP2) are merged, read and combined as one process does it."""

import pytest
import torch
from torch import nn

from polyad.adapters import Adapters, DoRA, LoRA, VeRA, changes, combine, diagnose, overlap
from polyad.testing.adapters import move
from two_processes import run_in_two, shard

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
METHODS = {"lora": (LoRA, {"rank": 2}), "dora": (DoRA, {"rank": 2}), "vera": (VeRA, {"rank": 4})}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Experts(nn.Module):
    """Two matrices an expert in one tensor each, of which every token gets the mean."""

    def __init__(self):
        super().__init__()
        self.num_experts = 4
        self.up, self.down = nn.Parameter(torch.randn(4, 8, 6)), nn.Parameter(torch.randn(4, 5, 8))

    def forward(self, x):
        return torch.einsum("eoh,ebh->bo", self.down, torch.tanh(torch.einsum("ehi,bi->ebh", self.up, x))) / 4


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Experts(), nn.Linear(5, 3)

    def forward(self, x):
        return self.second(self.first(x))


def hosted_experts():
    """Experts with adapters, none of which is at zero."""
    torch.manual_seed(0)
    model = Mixture()
    adapters = Adapters(model)
    adapters.attach("a", "first*", LoRA, of=("experts",), rank=2, seed=1)
    move(adapters, "a", seed=1)
    return model, adapters


def results_of_experts(model, adapters):
    """The updates before and after a forward pass, which leaves the shards of some layers whole, and the output."""
    updates = {f"before {key}": t for key, t in changes(adapters, "a").items()}
    with torch.no_grad():
        output = {"output": model(X)}
    return updates | output | {f"after {key}": t for key, t in changes(adapters, "a").items()}


def hosted(name):
    torch.manual_seed(0)
    model = Net()
    adapters = Adapters(model)
    for which, seed in (("a", 1), ("b", 2)):
        adapters.attach(which, "*", METHODS[name][0], seed=seed, **METHODS[name][1])
        move(adapters, which, seed=seed)
    adapters.activate({"a": 1.0, "b": 0.5})
    return model, adapters


def whole(x):
    return getattr(x, "full_tensor", lambda: x)().detach().clone()


def results(model, adapters):
    """Everything that one process or two find, as tensors by name."""
    with torch.no_grad():
        found = {"adapted": model(X)}
        adapters.merge()
        assert adapters.merged
        found["merged"] = model(X)
        found |= {f"weight {key}": whole(model.get_submodule(key).weight) for key in ("first", "second")}
        adapters.unmerge()
        found["unmerged"] = model(X)
    found |= {f"change {key}": t for key, t in changes(adapters, "a").items()}
    for measured in (diagnose(adapters, "a"), {"overlap": overlap(adapters, "a", "b")}):
        found |= {f"{key} {n}": torch.tensor(float(v)) for key, row in measured.items() for n, v in row.items()}
    errors = combine(adapters, "c", {"a": 1.0, "b": -1.0}, rank=1)
    found |= {f"error {key}": torch.tensor(error) for key, error in errors.items()}
    adapters.activate("c")
    with torch.no_grad():
        found["combined"] = model(X)
    return found


def work(rank, file):
    every = {}
    for name in METHODS:
        model, adapters = hosted(name)
        shard(model)
        every[name] = results(model, adapters)
        for take_out in (lambda a=adapters: a.detach("c"), lambda a=adapters: a.merge(keep=False)):
            with pytest.raises(ValueError, match="first was given to fully_shard with its adapters on it"):
                take_out()
        assert not adapters.merged
    model, adapters = hosted_experts()
    shard(model)
    every["experts"] = results_of_experts(model, adapters)
    if rank == 0:
        torch.save(every, file)


@pytest.fixture(scope="module")
def in_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    run_in_two(work, folder, folder / "found.pt")
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_merge_and_measure_as_one(name, in_two):
    expected = results(*hosted(name))
    assert in_two[name].keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(
            in_two[name][key], tensor, rtol=1e-4, atol=1e-5, msg=lambda said, key=key: f"{key}: {said}"
        )
    assert not torch.allclose(expected["merged"], Net()(X), atol=1e-2)


def test_updates_of_sharded_experts_are_gathered_by_layer(in_two):
    expected = results_of_experts(*hosted_experts())
    assert in_two["experts"].keys() == expected.keys()
    shapes = sorted(tuple(t.shape) for key, t in in_two["experts"].items() if key.startswith("before"))
    assert shapes == [(4, 5, 8), (4, 8, 6)]
    for key, tensor in expected.items():
        torch.testing.assert_close(
            in_two["experts"][key], tensor, rtol=1e-4, atol=1e-5, msg=lambda said, key=key: f"{key}: {said}"
        )
        assert tensor.norm() > 1e-2, key
