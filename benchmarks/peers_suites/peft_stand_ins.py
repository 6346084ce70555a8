"""Whatever adapters peft's tests make, polyad reads them from a folder onto the base, and has to compute the same."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import peft
import torch
from benchmarks.peers_suites.stand_ins import Calls

from polyad.adapters import Adapters
from polyad.interop.peft import from_peft

TABLE: dict[str, Any] = {}
SUITE = ("tests/test_custom_models.py",)
CHOSEN = ("-k", "test_forward_output_finite or test_save_load_roundtrip or test_safe_merge")
"""Tests that call every kind of adapter on every custom model."""

OTHERWISE: dict[str, str] = {}


def start() -> None:
    """Watch peft's models: the base that they are made of, and their calls."""
    begin, forward = peft.PeftModel.__init__, peft.PeftModel.forward

    def watched_begin(self: Any, model: Any, *args: Any, **named: Any) -> None:
        base = copy.deepcopy(model)
        begin(self, model, *args, **named)
        self.__dict__["base_before"] = base

    def watched_forward(self: Any, *args: Any, **named: Any) -> Any:
        output = forward(self, *args, **named)
        base = self.__dict__.get("base_before")
        if base is not None and not self.training and list(self.peft_config) == ["default"]:
            compare(self, base, output, args, named)
        return output

    peft.PeftModel.__init__ = watched_begin
    peft.PeftModel.forward = watched_forward


def compare(model: Any, base: Any, output: Any, args: Any, named: Any) -> None:
    """The output of peft's model beside that of its base, on which polyad puts what peft saves."""
    Calls.count += 1
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.save_pretrained(folder)
        again = copy.deepcopy(base).eval()
        from_peft(Adapters(again), Path(folder))
        value = again(*args, **named)
    torch.testing.assert_close(_tensor(value), _tensor(output).detach(), rtol=1e-4, atol=1e-5)


def _tensor(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0] if isinstance(output, tuple) else output.logits
