"""What a training loop asks of adapters: groups of parameters, and calls around its steps."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from polyad._versions import KEY, read_version, stamp

if TYPE_CHECKING:
    from polyad.adapters.host.adapters import Adapters

BESIDE = "polyad_adapters.safetensors"
"""What lies in a Trainer's checkpoint beside the model's weights."""


def groups(parameters: Mapping[str, nn.Parameter], lr: float, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """One group a rate: parameters whose name matches a pattern of ``rates`` get so many times ``lr``."""
    found: dict[float, list[nn.Parameter]] = {}
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    for pattern in rates:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in trained):
            near = ", ".join(list(trained)[:3]) or "(there are none)"
            raise ValueError(f"the rate of {pattern!r} matches no parameter; they are called {near}")
    for name, parameter in trained.items():
        own = [pattern for pattern in rates if fnmatch.fnmatchcase(name, pattern)]
        if len(own) > 1:
            raise ValueError(f"the rate of {name} is given by {own[0]!r} and by {own[1]!r}; let one pattern match it")
        found.setdefault(rates[own[0]] if own else 1.0, []).append(parameter)
    return [{"params": own, "lr": lr * rate} for rate, own in found.items()]


def trainable(parameters: Iterable[nn.Parameter], flag: bool) -> None:
    """Train these parameters, or stop."""
    for parameter in parameters:
        parameter.requires_grad_(flag)


def tell(adapters: Adapters, when: str, step: int, total: int) -> None:
    """Call a hook of every active method with all its adapters of one name."""
    for name in adapters.common.active:
        own = list(adapters.of(name).values())
        getattr(type(own[0]), when)(own, step, total)


def unsaved(adapters: Adapters) -> dict[str, Tensor]:
    """The buffers that no state dict holds, by adapter, layer and name: what methods rank by is among them."""
    found: dict[str, Tensor] = {}
    for name in adapters.names:
        for site, adapter in adapters.of(name).items():
            for path, module in adapter.named_modules():
                for key in sorted(module._non_persistent_buffers_set):
                    buffer = module._buffers[key]
                    if buffer is not None:
                        found[f"{name}/{site}/{path}/{key}"] = buffer
    return found


def keep_beside(adapters: Adapters, checkpoint: Path) -> None:
    """Write what a checkpoint of the model leaves out: unsaved buffers, and which parameters are frozen."""
    frozen = [
        f"{name}/{key}"
        for name in adapters.names
        for key, p in adapters.named_parameters(name).items()
        if not p.requires_grad
    ]
    tensors = {key: t.detach().cpu().contiguous().clone() for key, t in unsaved(adapters).items()}
    if tensors or frozen:
        save_file(tensors, checkpoint / BESIDE, metadata={"frozen": json.dumps(frozen), **stamp("checkpoint")})


def resume_beside(adapters: Adapters, checkpoint: Path) -> None:
    """The inverse of ``keep_beside``; nothing where nothing was kept."""
    if not (checkpoint / BESIDE).is_file():
        return
    with safe_open(checkpoint / BESIDE, "pt") as opened:
        metadata = opened.metadata() or {}
        read_version("checkpoint", checkpoint / BESIDE, metadata.get(KEY))
        frozen = set(json.loads(metadata["frozen"]))
        kept = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - it is no mapping
    for key, buffer in unsaved(adapters).items():
        if key not in kept or kept[key].shape != buffer.shape:
            raise ValueError(f"{checkpoint / BESIDE} is of other adapters: {key} is missing or of another shape")
        buffer.copy_(kept[key])
    for name in adapters.names:
        for key, parameter in adapters.named_parameters(name).items():
            if f"{name}/{key}" in frozen:
                parameter.requires_grad_(False)


def trainer_callback(adapters: Adapters) -> Any:
    """A callback for transformers' ``Trainer`` that calls the hooks of the active adapters around its steps.

    What methods rank by and have frozen is kept in the Trainer's checkpoints, so that it goes on from
    ``output_dir/checkpoint-…`` as if it had not been stopped.

    The gradient of what they add to the loss (``penalty``) is added before the optimiser steps, since the Trainer
    takes the model's own loss; it is not in the loss that the Trainer reports, and clipping has happened.
    """
    from transformers import TrainerCallback

    def checkpoint(args: Any, state: Any) -> Path:
        return Path(args.output_dir) / f"checkpoint-{state.global_step}"

    class Steps(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            if state.global_step:
                resume_beside(adapters, checkpoint(args, state))

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            if state.is_world_process_zero:
                keep_beside(adapters, checkpoint(args, state))

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            adapters.before_step(state.global_step, state.max_steps)

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            penalty = adapters.penalty()
            if penalty.requires_grad:
                penalty.backward()
            adapters.after_backward(state.global_step, state.max_steps)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            adapters.after_step(state.global_step, state.max_steps)

    return Steps()
