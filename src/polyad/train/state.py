"""The state of a training in a file, from which it resumes to the same numbers."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from polyad._partial import check_place
from polyad._sealed import read_sealed, write_sealed
from polyad._stated import parse_stated

REMEDY = "remove it to begin again"


class _Stated(TypedDict):
    """The statements of a file."""

    asked: str
    losses: list[float]
    frozen: NotRequired[list[str]]
    seconds: NotRequired[float]


def fingerprint(model: nn.Module) -> str:
    """The first digits of the sha256 of all tensors of a model; a second or two for each GB.

    >>> len(fingerprint(nn.Linear(2, 2)))
    16
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def keep(
    file: Path,
    tensors: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    stated: Mapping[str, Any],
    schedule: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the tensors that training changes, the optimiser's, the random generator's, and what is ``stated``.

    ``stated["asked"]`` says what the training is of; ``schedule`` is what its schedule knows. The file is written
    beside and moved into place.
    """
    state = {f"tensor/{key}": t.detach().clone().contiguous() for key, t in tensors.items()}
    state |= {f"schedule/{key}": t.detach().clone().contiguous() for key, t in (schedule or {}).items()}
    for i, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer/{i}/{key}": t.detach().clone().contiguous() for key, t in moments.items()}
    state["random"] = torch.get_rng_state()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(file, state, "training", {"polyad": json.dumps(dict(stated))})
    except OSError as error:
        said = error.strerror or error
        raise OSError(errno.EIO, f"the state of the training could not be kept in {file}: {said}") from error


def resume(
    file: Path, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, asked: str
) -> dict[str, Any] | None:
    """Put a file's numbers into the tensors and the optimiser; what was ``stated``, or None where there is no file.

    ``asked`` is a JSON object; a file of another training, or a broken one, is refused.
    """
    state = read_state(file, asked)
    if state is None:
        return None
    stated, numbers = state
    restore(numbers, tensors, optimizer)
    return stated


def read_state(file: Path, asked: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The statements of a file and its numbers, refused as ``resume`` says; None where there is no file."""
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder; give a file to keep the state of the training in")
    if not file.is_file():
        check_place(file)
        return None
    numbers, metadata = read_sealed(file, "training", REMEDY)
    stated: Any = parse_stated(metadata.get("polyad"), _Stated, file, REMEDY)
    if stated["asked"] != asked:
        raise ValueError(
            f"{file} is of another training ({difference(stated['asked'], asked)}); ask for the same again, or "
            "remove the file to begin anew"
        )
    return stated, numbers


def restore(numbers: Mapping[str, Tensor], tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Put the numbers of a file into the tensors, the optimiser and torch's random generator."""
    for key, tensor in tensors.items():
        _check_shape(f"tensor/{key}", numbers, tensor)
    random = numbers.get("random")
    if random is None or (random.dtype, random.shape) != (torch.uint8, torch.get_rng_state().shape):
        raise ValueError(f"the state of the training lacks that of the random generator; {REMEDY}")
    try:
        torch.Generator().set_state(random)
    except RuntimeError as error:
        raise ValueError(f"the state of the random generator is damaged ({error}); {REMEDY}") from None
    states = _optimizer_states(numbers, optimizer)
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor.copy_(numbers[f"tensor/{key}"])
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(random)


ADAM = {"step", "exp_avg", "exp_avg_sq"}


def _optimizer_states(
    numbers: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[int, dict[str, Tensor]]:
    """The numbers of the optimiser, by the place of the parameter and by name."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in numbers.items():
        part, _, rest = key.partition("/")
        if part == "optimizer":
            index, _, name = rest.partition("/")
            if not (index.isascii() and index.isdigit() and int(index[:9]) < len(parameters)):
                raise ValueError(f"the state of the training holds {key}, which is of no parameter; {REMEDY}")
            if name in ("exp_avg", "exp_avg_sq"):
                _check_shape(key, numbers, parameters[int(index)])
            states.setdefault(int(index), {})[name] = tensor
    for index, state in states.items():
        if isinstance(optimizer, torch.optim.Adam) and not state.keys() >= ADAM:
            raise ValueError(
                f"the state of the training lacks {sorted(ADAM - state.keys())} of parameter {index}; {REMEDY}"
            )
    return states


def _check_shape(key: str, numbers: Mapping[str, Tensor], like: Tensor) -> None:
    """Refuse a tensor that is missing or of another shape."""
    stored = numbers.get(key)
    if stored is None or stored.shape != like.shape:
        what = "no such tensor" if stored is None else f"the shape {tuple(stored.shape)}"
        raise ValueError(
            f"the state of the training has {what} for {key}, of shape {tuple(like.shape)} here; {REMEDY}"
        )


def difference(one: str, other: str) -> str:
    """The differences between the arguments of two trainings, in words."""
    mine, theirs = (
        parse_stated(text, dict[str, Any], "what a training was asked for", REMEDY) for text in (other, one)
    )
    keys = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
    return ", ".join(f"{key} was {theirs.get(key)} and is {mine.get(key)}" for key in sorted(keys)[:3])
