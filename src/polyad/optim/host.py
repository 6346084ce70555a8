"""The optimiser that hosts a transform: steps, weight decay, state dicts and their dtypes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from polyad._versions import NEWEST, read_version
from polyad.formats import Format
from polyad.optim.transform import Transform


class Optimizer(torch.optim.Optimizer):
    """``param ← (1 - lr * weight_decay) * param - lr * transform(gradient)``, for any transform.

    ``params`` are parameters, groups or named parameters as torch takes them; a group may have its own ``lr`` and
    ``weight_decay``. Gradients must be dense. State dicts hold plain tensors, numbers and strings only, so that
    ``torch.load(weights_only=True)`` reads them, and loading keeps each state tensor's dtype: torch itself would
    cast float32 moments and integer codes to the dtype of a bfloat16 parameter.

    >>> from polyad.optim import ProjectedAdam
    >>> weight = torch.nn.Parameter(torch.ones(8, 4))
    >>> optimizer = Optimizer([weight], ProjectedAdam(rank=2), lr=0.1)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> optimizer.nbytes  # a basis of 4 x 2 and two moments of 8 x 2, in float32
    160
    """

    def __init__(self, params: ParamsT, transform: Transform, *, lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name}={value} is negative; give 0 or a positive number")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.transform = transform

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step with the gradients at hand; ``closure`` computes them and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                if not self.state[param]:
                    self.state[param] = self.transform.init(param)
                direction = self.transform.update(param.grad, self.state[param], param)
                param.mul_(1 - group["lr"] * group["weight_decay"])
                param.add_(direction.to(param.dtype), alpha=-group["lr"])
        return loss

    @property
    def nbytes(self) -> int:
        """Bytes of all state tensors, those inside formats included; plain numbers count none."""
        return sum(_nbytes(value) for state in self.state.values() for value in state.values())

    def state_dict(self) -> dict[str, Any]:
        """The state as torch has it, formats taken apart into their description and tensors."""
        packed = super().state_dict()
        packed["state"] = {i: {k: _pack(v) for k, v in state.items()} for i, state in packed["state"].items()}
        return packed | {"version": NEWEST["optimizer"]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of ``state_dict``; moves state to its parameter's device and never casts it."""
        read_version("optimizer", "the state dict of this optimizer", state_dict.get("version"))
        super().load_state_dict({**state_dict, "state": {}})
        params = [param for group in self.param_groups for param in group["params"]]
        indices = [i for group in state_dict["param_groups"] for i in group["params"]]
        for i, param in zip(indices, params, strict=True):
            if i in state_dict["state"]:
                self.state[param] = {k: _unpack(v, param.device) for k, v in state_dict["state"][i].items()}


def _tensors(value: Any) -> Iterable[Tensor]:
    return (value,) if isinstance(value, Tensor) else value.tensors().values() if isinstance(value, Format) else ()


def _nbytes(value: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(value))


def _pack(value: Any) -> Any:
    return {"spec": value.spec(), "tensors": value.tensors()} if isinstance(value, Format) else value


def _unpack(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict) and value.keys() == {"spec", "tensors"}:
        tensors = {name: tensor.to(device, copy=True) for name, tensor in value["tensors"].items()}
        return Format.from_spec(value["spec"]).replace(tensors)
    return value
