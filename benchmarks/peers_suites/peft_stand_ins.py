"""Whatever peft's tests save is also put onto a copy of the base model by polyad, and has to compute the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import torch
from benchmarks.peers_suites.stand_ins import Calls

from polyad.adapters import Adapters
from polyad.interop.peft import from_peft

TABLE: dict[str, Any] = {}
SUITE = ("tests/test_custom_models.py",)
CHOSEN = ("-k", "save_pretrained or from_pretrained")
"""The tests that save an adapter and load it again."""

OTHERWISE: dict[str, str] = {}


def start() -> None:
    """Watch peft's models: the base they were made of, their last inputs, and every folder that they write."""
    begin, forward, save = peft.PeftModel.__init__, peft.PeftModel.forward, peft.PeftModel.save_pretrained

    def watched_begin(self: Any, model: Any, *args: Any, **named: Any) -> None:
        base = copy.deepcopy(model)
        begin(self, model, *args, **named)
        self.__dict__["base_before"] = base

    def watched_forward(self: Any, *args: Any, **named: Any) -> Any:
        self.__dict__["last_inputs"] = (args, named)
        return forward(self, *args, **named)

    def watched_save(self: Any, save_directory: Any, *args: Any, **named: Any) -> Any:
        value = save(self, save_directory, *args, **named)
        if "last_inputs" in self.__dict__ and list(self.peft_config) == ["default"]:
            compare(self, Path(save_directory))
        return value

    peft.PeftModel.__init__ = watched_begin
    peft.PeftModel.forward = watched_forward
    peft.PeftModel.save_pretrained = watched_save


def compare(model: Any, folder: Path) -> None:
    """The outputs of peft's model beside those of its base with the folder's adapter put on by polyad."""
    Calls.count += 1
    args, named = model.__dict__["last_inputs"]
    base, training = model.__dict__["base_before"].eval(), model.training
    model.eval()
    with torch.no_grad():
        expected = _tensor(model(*args, **named))
        from_peft(Adapters(base), folder)
        value = _tensor(base(*args, **named))
        base.train(training)
        model.train(training)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def _tensor(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0] if isinstance(output, tuple) else output.logits
