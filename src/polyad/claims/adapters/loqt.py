"""A decoder trained from nothing on weights of four bits, with and without merging. Five minutes on one core.

The paper trains from 60 M parameters on C4; here 0.1 M on the bytes of a manual, 400 steps of 1,024 tokens. At so few
numbers a LoRA that is never merged is no worse than full training. A rate of 0.003 was worse for every way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from polyad._callback import Callback
from polyad.adapters import Adapters, LoQT, LoRA, absorb, merge_steps
from polyad.attention import Decoder, decoder
from polyad.claims.record import Result
from polyad.data import digest, split, stdlib, windows
from polyad.layers import Linear
from polyad.models import replace
from polyad.quantize import round_to_nearest

MINUTES = 5
SIZES = {"width": 64, "layers": 2, "heads": 4, "hidden": 160}
STEPS, BATCH, LENGTH, RANK, FIRST = 400, 16, 64, 16, 20
RATES = (1e-2, 3e-2)
"""Learning rates that each way is trained with; the better one counts."""

WAYS: dict[str, dict[str, Any]] = {
    "full": {"bits": None},
    "LoQT": {"method": LoQT, "growth": 1.2, "rounds": 5},
    "LoRA on codes, never merged": {"method": LoRA},
    "LoQT, B from zero": {"method": LoQT, "growth": 1.2, "rounds": 0},
    "LoQT, equal intervals": {"method": LoQT, "growth": 0.0, "rounds": 5},
    "LoQT on full weights": {"method": LoQT, "growth": 1.2, "rounds": 5, "bits": None},
}


def claim(callback: Callback | None = None) -> Result:
    """LoQT's held-out loss above that of full training, less half of what LoRA on codes has above it."""
    parts = split(stdlib(), lambda text: list(text.encode()))
    held_out = windows(parts.evaluation, LENGTH + 1, 256)
    runs: dict[str, dict[str, float]] = {}
    for i, (way, how) in enumerate(WAYS.items()):
        by_rate = {f"{rate:g}": train_decoder(parts.calibration, held_out, rate, **how) for rate in RATES}
        runs[way] = min(by_rate.values(), key=lambda one: one["held-out loss"])
        runs[way] |= {f"loss at rate {rate}": one["held-out loss"] for rate, one in by_rate.items()}
        if callback is not None:
            callback(i + 1, len(WAYS), {"stage": way, "loss": runs[way]["held-out loss"]})
    losses = {way: one["held-out loss"] for way, one in runs.items()}
    above = {way: loss - losses["full"] for way, loss in losses.items() if way != "full"}
    return Result(
        "trained from nothing, weights of four bits with LoQT end at a held-out loss whose distance from full "
        "training is at most half of what a LoRA of that rank on such weights, never merged, has; the distance less "
        "half of the other, in nats a byte (one seed)",
        above["LoQT"] - 0.5 * above["LoRA on codes, never merged"], "<=", 0.0,
        {"training text": digest(parts.calibration), "held-out text": digest(held_out)}, 0,
        {"above full training, nats a byte": above, "runs": runs, "steps": STEPS, "rank": RANK,
         "merged before": merge_steps(STEPS, first=FIRST)},
    )  # fmt: skip


def train_decoder(
    ids: Tensor, held_out: Tensor, rate: float, *, method: Any = None, bits: int | None = 4,
    growth: float | None = None, rounds: int = 5,
) -> dict[str, float]:  # fmt: skip
    """Train a new decoder in one way, embedding and norms in full always; its losses, and bytes of its weights."""
    torch.manual_seed(0)
    model = decoder("mha", 256, **SIZES)
    linears = {path: m for path, m in model.named_modules() if isinstance(m, nn.Linear)}
    if bits is not None:
        codes = {path: round_to_nearest(m.weight.detach(), bits, group=32) for path, m in linears.items()}
        replace(model, {path: Linear(weight, linears[path].bias, trainable=False) for path, weight in codes.items()})
    host = Adapters(model)
    if method is not None:
        rest = [p for n, p in model.named_parameters() if n.rpartition(".")[0] not in linears]
        host.attach("a", list(linears), method, rank=RANK)
        for p in rest:
            p.requires_grad_(True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, STEPS, pct_start=0.1, cycle_momentum=False)
    at = [] if growth is None else merge_steps(STEPS, first=FIRST, growth=growth)
    rows, losses = batches(ids), []
    for step in range(STEPS):
        batch = next(rows)
        if step in at:
            absorb(host, "a", lambda batch=batch: nats_a_byte(model, batch), rounds=rounds)
        nats = nats_a_byte(model, batch)
        optimizer.zero_grad()
        nats.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(nats.detach()))
    with torch.no_grad():
        held_out_loss = torch.stack([nats_a_byte(model, w) for w in held_out.split(32)]).mean()
    moments = sum(t.numel() * 4 for state in optimizer.state.values() for t in state.values() if t.ndim)
    return {
        "held-out loss": float(held_out_loss), "training loss, last 30 steps": sum(losses[-30:]) / 30,
        "bytes of the layers": bytes_of_layers(model), "bytes of moments": moments,
    }  # fmt: skip


def bytes_of_layers(model: Decoder) -> int:
    """Stored bytes of the decoder's layers, without its embedding and head."""
    tensors = model.state_dict().items()
    return sum(t.numel() * t.element_size() for name, t in tensors if name.partition(".")[0] == "layers")


def nats_a_byte(model: Decoder, batch: Tensor) -> Tensor:
    """Mean nats a byte."""
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def batches(ids: Tensor) -> Iterator[Tensor]:
    """Random windows, the same for every way."""
    g = Generator().manual_seed(0)
    while True:
        starts = torch.randint(len(ids) - LENGTH, (BATCH,), generator=g)
        yield torch.stack([ids[s : s + LENGTH + 1] for s in starts.tolist()])
