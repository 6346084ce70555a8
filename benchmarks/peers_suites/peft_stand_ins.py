"""Whatever adapters peft's tests make, polyad reads them from a folder onto the base, and has to compute the same."""

from __future__ import annotations

import copy
import tempfile
import weakref
from pathlib import Path
from typing import Any

import peft
import torch
from benchmarks.peers_suites.stand_ins import Calls, NotOffered
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from polyad.adapters import Adapters
from polyad.interop.peft import MULTIPLYING, from_peft

TABLE: dict[str, Any] = {}
SUITE = ("tests/test_custom_models.py",)
READ = " or ".join(f"-{name}Config-" for name in ("Lora", "LoHa", "LoKr", "Vera", "IA3", "OFT"))
TESTS = (
    "test_forward_bfloat16", "test_forward_float16", "test_save_load_roundtrip[", "test_merge_layers",
    "test_safe_merge", "test_disable_adapters", "test_active_adapter", "test_load_multiple_adapters",
    "test_parameters_after_loading_model", "test_load_model_low_cpu_mem_usage", "test_inference_safetensors",
    "test_delete_adapter", "test_delete_inactive_adapter", "test_delete_merged", "test_only_params_are_updated",
    "test_save_pretrained[", "test_training_custom_models",
)  # fmt: skip
OTHERS = (
    "TestMultipleActiveAdapters", "TestMultiRankAdapter", "TestMixedAdapterBatches", "test_mha_gradients",
    "test_gpt2_dora", "test_add_weighted_adapter", "test_dora_save_and_load", "test_adapter_name_makes",
    "test_set_adapter_non_overlapping", "test_save_pretrained_targeting", "test_load_resized",
    "test_multiple_adapters", "test_delete_adapter_multiple", "test_save_embedding_layers",
    "test_load_does_not_overwrite", "TestDynamicDispatch",
)  # fmt: skip
CHOSEN = ("-k", f"test_forward_output_finite or ({READ}) and ({' or '.join(TESTS)}) or {' or '.join(OTHERS)}")
"""Every kind of peft's adapters is called once; those that are read go through all tests that call a model."""

OTHERWISE: dict[str, str] = {}
TOLERANCES = {torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""Of the largest output; a merged weight is rounded once and its product again, in another order than peft's."""


def start() -> None:
    """Watch peft's models: the base that they are made of, their calls, and what they are unloaded to."""
    begin, forward, unload = peft.PeftModel.__init__, peft.PeftModel.forward, BaseTuner._unload_and_optionally_merge

    def watched_begin(self: Any, model: Any, *args: Any, **named: Any) -> None:
        base = copy.deepcopy(model)
        begin(self, model, *args, **named)
        self.__dict__["base_before"] = base
        self.base_model.__dict__["peft_model"] = weakref.ref(self)

    def watched_forward(self: Any, *args: Any, **named: Any) -> Any:
        output = forward(self, *args, **named)
        if "adapter_names" not in named and not _draws(self):
            compare_calls(self, output, args, named)
        return output

    def watched_unload(self: Any, *args: Any, **named: Any) -> Any:
        model = self.__dict__.get("peft_model", lambda: None)()
        which = _acting(model) if model is not None else None
        ours = None
        if which and not which[1] and args[:1] != (False,) and named.get("merge", True):
            ours = read_adapters(model, named.get("adapter_names") or which[0])
        merged = unload(self, *args, **named)
        if ours is not None:
            ours.merge(keep=False)
            compare_weights(ours.model, merged)
        return merged

    peft.PeftModel.__init__, peft.PeftModel.forward = watched_begin, watched_forward
    BaseTuner._unload_and_optionally_merge = watched_unload


def _draws(model: nn.Module) -> bool:
    """True where two calls differ: dropout in training, and whatever else draws."""
    drops = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
    return model.training and any(isinstance(m, drops) and m.p > 0 for m in model.modules())


def _acting(model: nn.Module) -> tuple[list[str], bool] | None:
    """The adapters that act on every layer and whether they are merged; None where layers differ."""
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    states = {(tuple(m.merged_adapters or m.active_adapters), m.merged, m.disable_adapters) for m in layers}
    if len(states) != 1:
        return None
    names, merged, disabled = states.pop()
    return ([] if disabled else list(names)), merged


def read_adapters(model: Any, names: list[str]) -> Adapters:
    """The base of peft's model with those adapters of it on, as polyad reads them from what peft saves."""
    Calls.count += 1
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.save_pretrained(folder, selected_adapters=list(names))
        base = copy.deepcopy(model.__dict__["base_before"])
        ours = Adapters(base.train(model.training))
        for name in names:
            ours.activate([])
            from_peft(ours, Path(folder) / name if name != "default" else Path(folder), name)
        kinds = {str(model.peft_config[name].peft_type.value) for name in names}
        if len(names) > 1 and kinds & {*MULTIPLYING}:
            raise NotOffered("several adapters that multiply one weight: polyad adds up the changes of all that act")
        ours.activate(list(names))
    return ours


def compare_calls(model: Any, output: Any, args: Any, named: Any) -> None:
    """Hold polyad's output to peft's; where an adapter does nothing yet, both get numbers that do."""
    state = _acting(model)
    if state is None or "base_before" not in model.__dict__:
        return
    names, merged = state
    with torch.no_grad():
        ours = read_adapters(model, names)
        plain = _tensor(copy.deepcopy(model.__dict__["base_before"]).train(model.training)(*args, **named))
        if merged:
            ours.merge()
        elif names and torch.equal(plain, _tensor(output)):
            model = copy.deepcopy(model)
            _disturb(model)
            output = model.base_model(*args, **named)
            ours = read_adapters(model, names)
        _assert_close(_tensor(ours.model(*args, **named)), _tensor(output).detach())


def _disturb(model: nn.Module) -> None:
    draws = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("lora_", "hada_", "lokr_", "vera_", "ia3_", "oft_")):
            parameter.add_(torch.randn(parameter.shape, generator=draws).to(parameter), alpha=0.1)


def compare_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Hold every merged weight to peft's."""
    state = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        if name in state:
            _assert_close(tensor, state[name])


def _assert_close(value: Tensor, right: Tensor) -> None:
    tolerance = TOLERANCES.get(right.dtype, 1e-4) if right.is_floating_point() else 0.0
    value, right = value.double(), right.double()
    torch.testing.assert_close(value, right, rtol=tolerance, atol=tolerance * float(right.abs().max()) + 1e-7)


def _tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0] if isinstance(output, tuple) else output.logits
