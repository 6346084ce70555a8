"""The training loop of adapters, and fine-tuning of language models on text."""

from polyad.adapters.training.loop import train
from polyad.adapters.training.rate_range import RateRange, rate_range
from polyad.adapters.training.trainer_callback import trainer_callback

__all__ = ["RateRange", "rate_range", "train", "trainer_callback"]
