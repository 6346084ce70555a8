"""The state of a training in a file, from which it resumes to the same numbers."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from polyad._versions import KEY, read_version, stamp


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
    file: Path, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, stated: Mapping[str, Any]
) -> None:
    """Write the tensors that training changes, the optimiser's, the random generator's, and what is ``stated``.

    ``stated["asked"]`` says what the training is of. The file is written under another name and moved into place.
    """
    state = {f"tensor/{key}": t.detach().clone().contiguous() for key, t in tensors.items()}
    for i, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer/{i}/{key}": t.detach().clone().contiguous() for key, t in moments.items()}
    state["random"] = torch.get_rng_state()
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    try:
        save_file(state, partial, metadata={"polyad": json.dumps(dict(stated)), **stamp("training")})
        partial.replace(file)
    except (SafetensorError, OSError) as error:  # the first is what writing says of a full disk
        partial.unlink(missing_ok=True)
        raise OSError(errno.EIO, f"the state of the training could not be kept in {file}: {error}") from error


def resume(
    file: Path, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, asked: str
) -> dict[str, Any] | None:
    """Put a file's numbers into the tensors and the optimiser; what was ``stated``, or None where there is no file.

    ``asked`` is a JSON object; a file of another training, or a broken one, is refused.
    """
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder; give a file to keep the state of the training in")
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            stated = json.loads(metadata["polyad"])
            stored = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{file} holds no state of a training ({error}); remove it to begin again") from None
    read_version("training", file, metadata.get(KEY))
    if stated["asked"] != asked:
        raise ValueError(
            f"{file} is of another training ({difference(stated['asked'], asked)}); ask for the same again, or "
            "remove the file to begin anew"
        )
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor.copy_(stored[f"tensor/{key}"])
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        part, _, rest = key.partition("/")
        if part == "optimizer":
            index, _, what = rest.partition("/")
            states.setdefault(int(index), {})[what] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(stored["random"])
    return stated


def difference(one: str, other: str) -> str:
    """The differences between the arguments of two trainings, in words."""
    mine, theirs = json.loads(other), json.loads(one)
    keys = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
    return ", ".join(f"{key} was {theirs.get(key)} and is {mine.get(key)}" for key in sorted(keys)[:3])
