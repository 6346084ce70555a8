"""Folders of peft's written by two processes that hold shards of the model: whole, and once."""

import pytest
import torch
import torch.distributed as dist
from peft import PeftModel
from torch import nn

from polyad.adapters import Adapters, DoRA, LoKr, LoRA, PiSSA, VeRA
from polyad.interop.peft import to_peft
from two_processes import run_in_two, shard

METHODS = {
    "lora": (LoRA, {"rank": 2}),
    "dora": (DoRA, {"rank": 2}),
    "pissa": (PiSSA, {"rank": 2}),
    "lokr": (LoKr, {"factor": 2}),
    "vera": (VeRA, {"rank": 4}),
}
X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def hosted(name):
    model, (method, arguments) = Net(), METHODS[name]
    adapters = Adapters(model)
    adapters.attach("a", "*", method, **arguments)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapters.parameters("a"):
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model, adapters


def write(_rank, folder):
    """Shard every model as FSDP2 does and write its adapter."""
    for name in METHODS:
        model, adapters = hosted(name)
        shard(model)
        errors = to_peft(adapters, "a", folder / name, rank=8)
        assert errors.keys() == {"first", "second"}
        assert max(errors.values()) < 1e-5
        dist.barrier()
        assert all(hasattr(p, "full_tensor") for p in model.parameters())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    run_in_two(write, folder, folder)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_shards_are_written_as_one_process_writes_them(name, folder):
    theirs = PeftModel.from_pretrained(Net(), folder / name).eval()
    torch.testing.assert_close(theirs(X), hosted(name)[0](X), rtol=1e-4, atol=1e-5)
