"""Statistics and importance of decoders whose layers return tuples, or that need more than one argument."""

from functools import partial

import pytest
import torch
import transformers

import polyad
import tiny
from polyad.data import Calibration
from polyad.testing.decoders import random_tokens

IDS = random_tokens(2, 24, 50, seed=1)
TEXT = Calibration(random_tokens(6, 24, 50, seed=2), random_tokens(2, 24, 50, seed=3), {"ids": "0"})
HYBRID = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8,
    "num_key_value_heads": 1, "vocab_size": 50, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8,
    "mamba_n_groups": 1, "mamba_d_state": 8, "pad_token_id": 0,
}  # fmt: skip
PAIR = {
    "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 50,
    "decoder_start_token_id": 0,
}  # fmt: skip


def test_layers_that_return_tuples_are_weighed_by_whole_passes():
    torch.manual_seed(0)
    model = transformers.FalconH1ForCausalLM(transformers.FalconH1Config(**HYBRID)).eval()
    before = tiny.logits(model, IDS)
    plan = polyad.plan(model, polyad.compress.modegpt, keep=0.8, calibrate=TEXT)
    assert len(plan.importance) == 2
    assert all(weight > 0 for weight in plan.importance.values())
    assert torch.equal(tiny.logits(model, IDS), before)


def test_models_that_need_more_than_one_argument_are_refused_for_statistics():
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**PAIR)).eval()
    with pytest.raises(
        ValueError, match=r"T5ForConditionalGeneration cannot be run on the calibration data \(.*\); "
    ):
        polyad.plan(model, partial(polyad.compress.lord), keep=0.7, calibrate=TEXT)
