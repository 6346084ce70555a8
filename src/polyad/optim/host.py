"""The optimiser that hosts a transform: steps, weight decay, state dicts and their dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from polyad._versions import NEWEST, read_version
from polyad.optim.state import pack_state, refuse_other_state, state_bytes, unpack_state
from polyad.optim.transform import Transform, take_step


class Optimizer(torch.optim.Optimizer):
    """``param ← (1 - lr * weight_decay) * param - lr * transform(gradient)``, for any transform.

    ``params`` are parameters, groups or named parameters as torch takes them; a group may have its own ``lr``,
    ``weight_decay`` and ``transform``. Gradients must be dense and real. ``bad`` says what becomes of one that is
    not finite: "refuse" raises ValueError with the parameter's name before anything of the step is done, "skip"
    leaves out the whole step, "keep" does not look. State dicts hold plain tensors, numbers and strings only, so
    that ``torch.load(weights_only=True)`` reads them, and loading keeps each state tensor's dtype: torch itself
    would cast float32 moments and integer codes to the dtype of a bfloat16 parameter.

    >>> from polyad.optim import ProjectedAdam
    >>> weight = torch.nn.Parameter(torch.ones(8, 4))
    >>> optimizer = Optimizer([weight], ProjectedAdam(rank=2), lr=0.1)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> optimizer.nbytes  # a basis of 4 x 2 and two moments of 8 x 2, in float32
    160
    """

    def __init__(
        self,
        params: ParamsT,
        transform: Transform,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        bad: Literal["refuse", "skip", "keep"] = "refuse",
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name}={value} is negative; give 0 or a positive number")
        if bad not in ("refuse", "skip", "keep"):
            raise ValueError(f"bad={bad!r} is not known; choose 'refuse', 'skip' or 'keep'")
        for need in ("init", "update"):
            if not callable(getattr(transform, need, None)):
                raise TypeError(
                    f"transform={transform!r} has no {need}; give one such as polyad.optim.ProjectedAdam(rank=128)"
                )
        self.transform, self.bad, self.skipped = transform, bad, 0
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as torch does; complex parameters are refused."""
        super().add_param_group(param_group)
        for name, param in self._named(self.param_groups[-1]):
            if param.is_complex():
                raise ValueError(f"{name} is complex; only real parameters are trained: torch.view_as_real gives two")

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
        if not self._are_useful():
            self.skipped += 1
            return loss
        place = 0
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self.step_one(param, group, place)
                place += 1
        return loss

    @torch.no_grad()
    def step_one(self, param: Tensor, group: dict[str, Any], place: int = 0) -> None:
        """The step of one parameter of a group."""
        transform: Any = group.get("transform", self.transform)
        grad = param.grad
        assert grad is not None
        state = self.state[param]
        if not state:
            state = self.state[param] = transform.init(param)
            if "phase" in state:
                state["phase"] = place
        take_step(transform, param, grad, state, group["lr"], group["weight_decay"])

    @property
    def nbytes(self) -> int:
        """Bytes of all state tensors, those inside formats included; plain numbers count none."""
        return sum(state_bytes(state) for state in self.state.values())

    def state_dict(self) -> dict[str, Any]:
        """The state as torch has it, formats taken apart into their description and tensors."""
        packed = super().state_dict()
        packed["param_groups"] = [{k: v for k, v in g.items() if k != "transform"} for g in packed["param_groups"]]
        packed["state"] = {i: pack_state(state) for i, state in packed["state"].items()}
        return packed | {"version": NEWEST["optimizer"]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of ``state_dict``; moves state to its parameter's device and never casts it.

        State of another transform or of other shapes is refused, and what was there stays.
        """
        read_version("optimizer", "the state dict of this optimizer", state_dict.get("version"))
        transforms = [group.get("transform") for group in self.param_groups]
        named = [(*one, group) for group in self.param_groups for one in self._named(group)]
        indices = [i for group in state_dict["param_groups"] for i in group["params"]]
        stored = state_dict["state"]
        if len(indices) == len(named):
            for i, (name, param, group) in zip(indices, named, strict=True):
                if i in stored:
                    refuse_other_state(name, stored[i], group.get("transform", self.transform).init(param))
        super().load_state_dict({**state_dict, "state": {}})
        for group, transform in zip(self.param_groups, transforms, strict=True):
            group |= {} if transform is None else {"transform": transform}
        for i, (_, param, _) in zip(indices, named, strict=True):
            if i in stored:
                self.state[param] = unpack_state(stored[i], param.device)

    def _are_useful(self) -> bool:
        """False where the step is to be left out; raise where a gradient can be of no use."""
        named = [(n, p.grad) for group in self.param_groups for n, p in self._named(group) if p.grad is not None]
        for name, grad in named:
            if grad.layout != torch.strided:
                raise ValueError(f"the gradient of {name} is sparse; make the embedding with sparse=False")
        grads = [grad for _, grad in named if grad.numel()]
        if self.bad == "keep" or not grads:
            return True
        totals = torch.stack([grad.sum().float() for grad in grads])  # one pass; what is not finite stays so
        if bool(torch.isfinite(totals).all()):
            return True
        for name, grad in named:
            wrong = int((~torch.isfinite(grad)).sum())
            if wrong and self.bad == "skip":
                return False
            if wrong:
                nans = int(grad.isnan().sum())
                raise ValueError(
                    f"the gradient of {name} holds {nans} NaN and {wrong - nans} infinite numbers; lower the "
                    "learning rate or clip gradients, or give bad='skip' to leave out such steps"
                )
        return True  # the sum alone was too large

    @staticmethod
    def _named(group: dict[str, Any]) -> list[tuple[str, Tensor]]:
        """The parameters of a group with their names, or with their places where they have none."""
        names = group.get("param_names") or [f"parameter {i}" for i in range(len(group["params"]))]
        return list(zip(names, group["params"], strict=True))
