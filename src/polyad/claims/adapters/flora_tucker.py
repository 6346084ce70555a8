"""FLoRA's Tucker updates of convolutions against LoRA of flattened kernels. About a minute on one core."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Generator, nn

from polyad._callback import Callback
from polyad.adapters import FLoRATucker, LoRA
from polyad.claims.adapters._second_task import RATES, Data, steps, tune_adapter
from polyad.claims.record import Result

MINUTES = 1
SIZE, CLASSES, CHANNELS = 12, 8, 24


def gratings(count: int, generator: Generator, *, turned: bool) -> Data:
    """Waves in noise, (count, 1, SIZE, SIZE), of four directions and two lengths; turned ones are inverted too."""
    kind = torch.randint(CLASSES, (count,), generator=generator)
    angle = (kind % 4) * torch.pi / 4 + 0.2 * torch.randn(count, generator=generator)
    angle = angle + torch.pi / 8 if turned else angle
    rate = torch.where(kind < 4, 0.9, 1.5)
    place = torch.arange(SIZE) - SIZE / 2
    along = angle.cos()[:, None, None] * place[:, None] + angle.sin()[:, None, None] * place
    wave = (rate[:, None, None] * along + 6.3 * torch.rand(count, 1, 1, generator=generator)).sin()
    image = (-wave.clamp(min=0) if turned else wave.clamp(min=0)) + 0.8 * torch.randn(wave.shape, generator=generator)
    return image.unsqueeze(1), kind


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """A small convolutional network adapted from gratings to turned, inverted ones, at about equal numbers."""
    generator = Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, CHANNELS, 3, padding=1), nn.GELU(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(CHANNELS * 25, CLASSES),
        )  # fmt: skip
    steps(model, gratings(8000, generator, turned=False), model.parameters(), 3e-3, 250, 0)
    data, held_out = (gratings(n, generator, turned=True) for n in (1500, 3000))
    best: dict[str, Any] = {}
    for name, method, rank in (("tucker", FLoRATucker, (8, 8, 3, 3)), ("lora", LoRA, 4)):
        runs = [tune_adapter(model, data, held_out, method, lr, 200, which=["2", "4"], rank=rank) for lr in RATES]
        best[name] = min(runs, key=lambda run: run.held).figures()
    digest = hashlib.sha256(held_out[0].numpy().tobytes()).hexdigest()
    return Result(
        "adapting a convolutional network at about equal numbers, Tucker updates of kernels have at most the "
        "held-out loss of LoRA on flattened kernels; ratio",
        best["tucker"]["held"] / best["lora"]["held"], "<=", 1.0, {"planted gratings, held out": digest}, 0, best,
    )  # fmt: skip
