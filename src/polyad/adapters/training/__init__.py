"""The training loop of adapters, and fine-tuning of language models on text."""

from polyad.adapters.host.schedule import trainer_callback
from polyad.adapters.training.loop import train
from polyad.adapters.training.rate_range import RateRange, rate_range

__all__ = ["RateRange", "rate_range", "train", "trainer_callback"]
