"""Bridges in the place of an ensemble's second member, on planted classes. A minute on one core.

The paper's networks are convolutional and its pictures real; here a perceptron learns what a random one labels. With
half the rows and labels that were mostly chance, the first setting tried, the curve's middle was far worse than its
ends, so that nothing was gained by it that a bridge could keep. Here it is as good. Bridges of type I agree with it
well and yet keep a fifth of the gain; those of type II keep nearly all of it, at half of the work of a second member,
since they need the other mode's first layers too.
"""

from __future__ import annotations

import copy
import itertools
from statistics import mean

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from polyad._callback import Callback
from polyad.adapters import BezierCurve, bridge, calibration_figures
from polyad.claims._data_hash import sha
from polyad.claims._planted_changes import normal
from polyad.claims.record import Result

MINUTES = 1
IN, WIDTH, DEPTH, CLASSES, SLIM = 32, 128, 4, 10, 24
ROWS, HELD, SHARED = 6000, 4000, 4
"""``SHARED`` is how many modules of the base, two of its four hidden layers, a bridge reads the output of."""


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """The share of the second member's gain in negative log likelihood that a type I bridge keeps, over seeds."""
    runs, data = [], []
    for seed in range(3):
        figures, used = run(seed)
        runs.append(figures)
        data += used
    gains_kept = {kind: mean(run[kind]["gain kept"] for run in runs) for kind in ("type I", "type II")}
    return Result(
        "a base network averaged with a bridge, which predicts from the base's features the network in the middle of "
        "a curve to another mode, has at least half of the gain in held-out negative log likelihood that averaging "
        "with that network itself has (mean of three seeds)",
        gains_kept["type I"], ">=", 0.5, {"planted classes": sha(data)}, 0,
        {"gain kept": gains_kept, "runs": runs, "multiply-adds, of the base's": _work()},
    )  # fmt: skip


def run(seed: int) -> tuple[dict[str, dict[str, float]], list[Tensor]]:
    """Two modes, a curve between them, and a bridge of each type to its middle; figures on held-out rows."""
    g = Generator().manual_seed(seed)
    teacher = [normal(g, 64, IN) / IN**0.5, normal(g, 64, 64) / 8, normal(g, CLASSES, 64)]
    (x, y), (held_out, truth) = _rows(teacher, ROWS, g), _rows(teacher, HELD, g)
    base, other = (train_perceptron(2 * seed + i, x, y) for i in range(2))
    middle = copy.deepcopy(base)
    live = dict(middle.named_parameters())
    curve = BezierCurve(live, dict(base.named_parameters()), dict(other.named_parameters()))

    def loss(_: int) -> Tensor:
        some = torch.randint(ROWS, (128,), generator=g)
        return F.cross_entropy(middle(x[some]), y[some])

    curve.fit(loss, steps=600, rate=1e-3, generator=g)
    curve.move(0.5)
    reads = {
        "type I": (lambda x: base[:SHARED](x), WIDTH),
        "type II": (lambda x: torch.cat((base[:SHARED](x), other[:SHARED](x)), 1), 2 * WIDTH),
    }
    inputs = lambda step: x[torch.randint(ROWS, (256,), generator=g)]  # noqa: E731, ARG005
    with torch.no_grad():
        one, point = base(held_out).softmax(-1), middle(held_out).softmax(-1)
        both = {"base": one, "other mode": other(held_out).softmax(-1), "middle of the curve": point}
    figures = {name: calibration_figures(p, truth) for name, p in both.items()}
    for name in ("other mode", "middle of the curve"):
        figures[f"base and {name}"] = calibration_figures((one + both[name]) / 2, truth)
    gain = figures["base"]["nll"] - figures["base and middle of the curve"]["nll"]
    for kind, (read, width) in reads.items():
        head = bridge_head(width, seed)
        bridge(head, read, middle, inputs, steps=1500, rate=3e-3, generator=g)
        with torch.no_grad():
            predicted = head(read(held_out)).softmax(-1)
        figures[kind] = {
            f"base and bridge, {k}": v for k, v in calibration_figures((one + predicted) / 2, truth).items()
        }
        figures[kind]["gain kept"] = (figures["base"]["nll"] - figures[kind]["base and bridge, nll"]) / gain
        figures[kind]["R2 of probabilities"] = _explained_share(predicted, point)
    figures["R2 of the base's probabilities"] = {"middle of the curve": _explained_share(one, point)}
    return figures, [x, held_out]


def train_perceptron(seed: int, x: Tensor, y: Tensor) -> nn.Sequential:
    """A perceptron of ``DEPTH`` hidden layers, trained on these rows from a start of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sides = [IN] + [WIDTH] * DEPTH
        layers = [m for a, b in itertools.pairwise(sides) for m in (nn.Linear(a, b), nn.ReLU())]
        model = nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))
    g = Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    for _ in range(600):
        some = torch.randint(len(x), (128,), generator=g)
        optimizer.zero_grad()
        F.cross_entropy(model(x[some]), y[some]).backward()
        optimizer.step()
        schedule.step()
    return model


def bridge_head(width: int, seed: int) -> nn.Sequential:
    """A bridge of one slim hidden layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(width, SLIM), nn.ReLU(), nn.Linear(SLIM, CLASSES))


def _rows(teacher: list[Tensor], count: int, g: Generator) -> tuple[Tensor, Tensor]:
    x = normal(g, count, IN)
    first, second, last = teacher
    chances = ((x @ first.mT * 2).tanh() @ second.mT * 2).tanh() @ last.mT
    return x, torch.multinomial((1.5 * chances).softmax(-1), 1, generator=g).squeeze(1)


def _explained_share(predicted: Tensor, wanted: Tensor) -> float:
    return 1 - float((predicted - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())


def _work() -> dict[str, float]:
    base = IN * WIDTH + (DEPTH - 1) * WIDTH**2 + WIDTH * CLASSES
    shared = IN * WIDTH + WIDTH**2
    head = {"type I": WIDTH * SLIM + SLIM * CLASSES, "type II": 2 * WIDTH * SLIM + SLIM * CLASSES + shared}
    return {"second member": 1.0, **{kind: count / base for kind, count in head.items()}}
