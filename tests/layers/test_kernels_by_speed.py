"""Which of several fitting kernels serves a matrix: the one that was measured to be the fastest."""

import pytest
import torch
from torch import nn

from polyad.layers import Embedding, Linear
from polyad.layers.kernels import choice, kernel_rows, prepare_layers
from polyad.layers.kernels.choice import Choice
from polyad.layers.kernels.prepared import fitting_kernels
from polyad.quantize import round_to_nearest


class Tied(nn.Module):
    """An embedding that shares its matrix with a head, and a layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = Embedding(round_to_nearest(torch.randn(96, 64), bits=8, group=None))
        self.head = Linear(self.embed.weight)
        self.layer = Linear(round_to_nearest(torch.randn(64, 64), bits=8, group=None))
        self.plain = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))


@pytest.fixture
def seconds(monkeypatch):
    """Microseconds of one row by kernel, in the place of measurements."""
    times: dict[str, float] = {}

    def measure(source, kernel, dtype):
        return Choice(most=16, packed=times[kernel], restored=9.0, dense=9.0)

    monkeypatch.setattr(choice, "measure_choice", measure)
    monkeypatch.setattr(choice, "read_choices", dict)
    monkeypatch.setattr(choice.CHOICES, "known", {})
    monkeypatch.setattr(choice.CHOICES, "place", "")
    monkeypatch.setattr(choice.CHOICES, "spent", 0.0)
    monkeypatch.setattr(choice.CHOICES, "write", lambda: None)
    return times


@pytest.mark.parametrize(("digits8", "packed4"), [(1.0, 2.0), (2.0, 1.0)])
def test_the_fastest_kernel_serves_and_embeddings_keep_one_that_tells_rows(seconds, digits8, packed4):
    seconds.update(digits8=digits8, packed4=packed4)
    # digits8 needs a processor with dot products of bytes
    fastest = min(fitting_kernels(Tied().layer.weight(), False), key=seconds.__getitem__)
    model = prepare_layers(Tied().eval())
    with torch.no_grad():
        x = torch.randn(1, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
        expected = [layer.weight().dequantize(torch.float32) for layer in (model.head, model.layer)]
        for layer, weight in zip((model.head, model.layer), expected, strict=True):
            y = layer(x).float()
            assert (y - x.float() @ weight.mT).norm() <= 2.0**-7 * y.norm()
        assert model.layer.weight.prepared.format.kernel == fastest
        assert model.head.weight.prepared.format.kernel == "packed4"
        assert torch.equal(
            model.embed(torch.tensor([3])).float(), expected[0][[3]].to(model.embed.weight.dtype).float()
        )
    rows = {row.layer: row.few for row in kernel_rows(model)}
    assert rows["layer"].startswith(fastest)
    assert rows["head"].startswith("packed4")
