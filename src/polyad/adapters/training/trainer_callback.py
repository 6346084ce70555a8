"""A callback for transformers' Trainer that trains adapters, and what it adds to the Trainer's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from polyad._sealed import read_sealed, write_sealed
from polyad._stated import parse_stated
from polyad.adapters.host.adapters import Adapters

EXTRA = "polyad_adapters.safetensors"
"""The file that a checkpoint holds in addition to the model's weights."""


def unsaved_adapter_buffers(adapters: Adapters) -> dict[str, Tensor]:
    """The buffers that no state dict holds, by adapter, layer and name; scores that methods rank by are some."""
    buffers: dict[str, Tensor] = {}
    for name in adapters.names:
        for site, adapter in adapters.of(name).items():
            for path, module in adapter.named_modules():
                for key in sorted(module._non_persistent_buffers_set):
                    buffer = module._buffers[key]
                    if buffer is not None:
                        buffers[f"{name}/{site}/{path}/{key}"] = buffer
    return buffers


def write_extra(adapters: Adapters, checkpoint: Path) -> None:
    """Write what a checkpoint of the model leaves out: unsaved buffers, and which parameters are frozen."""
    frozen = [
        f"{name}/{key}"
        for name in adapters.names
        for key, p in adapters.named_parameters(name).items()
        if not p.requires_grad
    ]
    tensors = {key: t.detach().cpu().contiguous().clone() for key, t in unsaved_adapter_buffers(adapters).items()}
    if tensors or frozen:
        write_sealed(checkpoint / EXTRA, tensors, "checkpoint", {"frozen": json.dumps(frozen)})


def read_extra(adapters: Adapters, checkpoint: Path) -> None:
    """Put back what ``write_extra`` wrote; do nothing where there is no such file."""
    if not (checkpoint / EXTRA).is_file():
        return
    file = checkpoint / EXTRA
    numbers, metadata = read_sealed(file, "checkpoint", "go on from an earlier checkpoint")
    frozen = set(parse_stated(metadata.get("frozen"), list[str], file, "go on from an earlier checkpoint"))
    for key, buffer in unsaved_adapter_buffers(adapters).items():
        if key not in numbers or numbers[key].shape != buffer.shape:
            raise ValueError(
                f"{checkpoint / EXTRA} is of other adapters: {key} is missing or of another shape; attach the "
                "adapters that the checkpoint was written with"
            )
        buffer.copy_(numbers[key])
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
                read_extra(adapters, checkpoint(args, state))

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            if state.is_world_process_zero:
                write_extra(adapters, checkpoint(args, state))

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
