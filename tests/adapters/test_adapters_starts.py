"""The start of every adapter, number by number, as its docstring states it."""

import math

import pytest
import torch
from torch import nn

import polyad.adapters  # noqa: F401
from polyad._card import card, methods
from polyad.adapters import Adapters
from polyad.testing.adapters._subject import UnitMoments

OUT, IN = 300, 200

STARTS = {
    "adalora": (500 * 25 + 25, {"rank": 20, "spare": 5}, {"P": 0.02**2, "Q": 0.02**2, "values": 0}),
    "aflora": (500 * 20 + 20 + OUT, {"rank": 20}, {"A": 2 / IN, "B": 2 / 20, "d": [0.1], "b": 0}),
    "block_lora": (IN * 5 + OUT * 20, {"rank": 20, "blocks": 4}, {"A": 1 / (3 * IN), "B": 0}),
    "c3a": (OUT * IN // 20, {"block": 20}, {"factors.columns": 0}),
    "dora": (500 * 20 + OUT, {"rank": 20}, {"direction.A": 1 / (3 * IN), "direction.B": 0, "magnitude": "norms"}),
    "edora": (
        20**2 + OUT, {"rank": 20},
        {"direction.R": 0, "direction.left": "U S", "direction.A": "V", "magnitude": "norms"},
    ),
    "eigenlorax": (
        2 * 10 * 40, {"rank": 10, "components": 40}, {"CA": 1 / 40, "CB": 0, "VA": "orthonormal", "VB": "orthonormal"}
    ),
    "flora_tucker": (500 * 20 + 20**2, {"rank": 20}, {"core": 0, "factors.0": 1 / 20, "factors.1": 1 / IN}),
    "gralora": (
        500 * 12, {"rank": 12, "blocks": 2, "shared": 4},
        {"A": 1 / (3 * IN / 2), "A_shared": 1 / (3 * IN), "B": 0, "B_shared": 0},
    ),
    "ia3": (OUT, {}, {"factors": [1.0]}),
    "loha": (2 * 500 * 20, {"rank": 20}, {"A1": 1, "A2": 1, "B1": 0.1**2, "B2": 0}),
    "lokh": (20 * IN + OUT // 20 * IN, {"first": 20}, {"factors.first": 1 / 20, "factors.second": 0}),
    "lokr": (20 * 10 + 15 * 20, {"factor": (20, 10)}, {"factors.first": 1 / 10, "factors.second": 0}),
    "loldu": (20 + 1, {"rank": 20}, {"factor": [1.0]}),
    "loqt": (20 * OUT, {"rank": 20, "group": 20}, {"B": 0}),
    "lora": (500 * 20, {"rank": 20}, {"A": 1 / (3 * IN), "B": 0}),
    "lotr": (500 * 20 + 20**2, {"rank": 20}, {"G": 0, "bank.A_300x20": 1 / 20, "bank.B_20x200": 1 / IN}),
    "oft": (10 * 190, {"block": 20}, {"skew": 0}),
    "pissa": (500 * 20, {"rank": 20}, {"A": "√S V", "B": "U √S"}),
    "riemannlora": (500 * 20, {"rank": 20}, {"B": "orthonormal", "A": "orthonormal"}),
    "singlora": (OUT * 20, {"rank": 20}, {"A": 1 / (3 * OUT), "u": [1.0]}),
    "soka": (20 * (15 * 10 + 20 * 20), {"rank": 20}, {}),
    "surm": (2 * OUT, {"family": "product"}, {"v": 0, "u": 1 / OUT}),
    "svfit": (20, {"rank": 20}, {"s": "S", "U": "U", "V": "V"}),
    "tensorpoly": (2 * 20 * 2 * (15 + 18), {"rank": 20, "terms": 2}, {"A": (2 * IN) ** -0.5}),
    "tera": (
        15 + 20 + 10 + 20, {},
        {"first": 0, "others.0": [1.0], "others.1": [1.0], "others.2": [1.0], "bank.U0_15x15": 1 / 15,
         "bank.U1_20x20": 1 / 20, "bank.V2_10x10": 1 / 10, "bank.V3_20x20": 1 / 20, "bank.G_300x200": 1 / IN},
    ),
    "tlora_transform": (
        10 * 10 * 4 + 4 * 20 * 20 + 500 * 20, {"bond": 4, "rank": 20}, {"residual.A": 1 / (3 * IN), "residual.B": 0}
    ),
    "vera": (20 + OUT, {"rank": 20}, {"d": [0.1], "b": 0, "bank.B_300x20": 2 / 20, "bank.A_20x200": 2 / IN}),
}  # fmt: skip
"""Of every adapter the numbers that it trains, its arguments, and the start of its tensors: a variance, [a constant],
or a part of the weight's singular value decomposition."""


def test_every_adapter_states_its_start():
    assert STARTS.keys() == {one.name for one in methods("adapter")}


@pytest.mark.parametrize("name", STARTS)
def test_the_start_is_as_stated(name):
    count, options, stated = STARTS[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(IN, OUT, bias=False))
    adapters, x = Adapters(model), torch.randn(50, IN)
    given = {"loss": lambda: model(x).square().mean(), "stats": UnitMoments(model), **options}
    adapters.attach("a", "*", card(name).function, seed=3, **given)
    assert sum(p.numel() for p in adapters.parameters("a")) == count
    own, bank = adapters.of("a")["0"], adapters.bank("a")
    tensors = {**dict(own.named_parameters()), **dict(own.named_buffers())}
    if bank is not None:
        tensors |= {f"bank.{key}": t for key, t in [*bank.named_parameters(), *bank.named_buffers()]}
    u, s, v = torch.linalg.svd(base_weight(model).double(), full_matrices=False)
    u, s, v = u[:, :20], s[:20], v[:20]
    parts = {
        "U S": u * s, "V": v, "U": u, "S": s, "U √S": u * s.sqrt(), "√S V": s.sqrt()[:, None] * v,
        "norms": base_weight(model).double().norm(dim=1),
    }  # fmt: skip
    for key, start in stated.items():
        tensor = tensors[key].detach().double()
        if isinstance(start, list):
            assert torch.equal(tensors[key], torch.full_like(tensors[key], start[0])), key
        elif start == "orthonormal":
            thin = tensor if tensor.shape[0] >= tensor.shape[1] else tensor.mT
            assert torch.allclose(thin.mT @ thin, torch.eye(thin.shape[1], dtype=torch.float64), atol=1e-5), key
        elif isinstance(start, str):
            assert torch.allclose(tensor.abs(), parts[start].abs(), atol=1e-4), key  # vectors have either sign
        else:
            spread = 6 * math.sqrt(2 / tensor.numel())
            assert float(tensor.square().mean()) == pytest.approx(start, rel=spread), key


def base_weight(model):
    return next(t for key, t in model.state_dict().items() if key.endswith("weight") and "adapters" not in key)
