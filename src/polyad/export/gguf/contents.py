"""Everything that a GGUF file of a decoder holds, and what is said of how it got there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from polyad.export.gguf.architectures import QKV, Architecture
from polyad.export.gguf.choice import Rules, refuse_idle_rules
from polyad.export.gguf.containers import BLOCK
from polyad.export.gguf.encoding import Encoded, encode
from polyad.export.gguf.keys import FILE_TYPES, limit_context, model_keys
from polyad.export.gguf.pieces import Piece, head_counts, mlp_widths, pieces, widen_mlp
from polyad.export.gguf.rotation import rotary_keys
from polyad.export.gguf.tokens import name_of_file, token_keys

WORDS = {
    **dict.fromkeys(("Tensor", "Parameter", "Dense"), "dense"),
    **dict.fromkeys(("Quantized", "Superblocks", "Levels"), "quantised in another way"),
}
"""Words for what weights were."""


@dataclass(frozen=True, eq=False)
class Contents:
    """A file's architecture, keys and tensors (container and bytes), the tensors of a LoRA file, and notes."""

    architecture: str
    keys: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, np.ndarray]]
    lora: Mapping[str, tuple[str, np.ndarray]]
    encoded: tuple[Encoded, ...]
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors."""
        return sum(stored.nbytes for part in (self.tensors, self.lora) for _, stored in part.values())


def contents(model: Any, architecture: Architecture, rules: Rules) -> Contents:
    """All of a model as GGUF has it; what that cannot hold is refused before any number is turned."""
    tokens = token_keys(model, model.get_input_embeddings().weight.shape[0])
    architecture, plain, before, after = fit_architecture(model, architecture)
    name = architecture.name
    rotation, factors = rotary_keys(model, architecture)
    refuse_idle_rules(rules, plain)
    widened = [widen_mlp(piece, before, after) for piece in plain]
    keys = {**model_keys(model, architecture, after, head_counts(plain, model.config)), **rotation}
    notes = limit_context(keys, model, architecture)
    if before != after:
        notes.append(
            f"widths of MLPs {min(before)} to {max(before)} are filled up with zeros: {min(after)} to {max(after)}"
        )
    encoded = tuple(encode(piece, rules) for piece in widened)
    tensors: dict[str, tuple[str, np.ndarray]] = {
        name: ("F32", vector.numpy().view(np.uint8)) for name, vector in factors.items()
    }
    for one in encoded:
        tensors |= piece_tensors(one)
    kinds = Counter(one.rows.container for one in encoded if one.origin != "vector")
    most = FILE_TYPES[kinds.most_common(1)[0][0]]
    whole = {
        "general.type": "model", "general.name": name_of_file(model),
        "general.file_type": most, "general.quantization_version": 2,
        **{f"{name}.{key}": value for key, value in keys.items()}, **tokens,
    }  # fmt: skip
    return Contents(name, whole, tensors, lora_tensors(encoded), encoded, (*notes, *_notes(encoded)))


def fit_architecture(
    model: Any, architecture: Architecture
) -> tuple[Architecture, list[Piece], list[int], list[int]]:
    """The architecture that has a place for all of a model, its pieces, and the MLP widths of model and file.

    Widths that were cut are filled up to whole blocks; where they differ and no architecture has widths by layer,
    to the widest.
    """
    plain = pieces(model, architecture)
    before = mlp_widths(plain)
    stated = model.config.intermediate_size
    after = [width if width == stated else -(-width // BLOCK) * BLOCK for width in before]
    strange = [
        piece.path
        for piece in plain
        if piece.bias is not None and piece.name.rpartition(".")[2] not in (*QKV, *architecture.biases)
    ]
    uneven = any(len(set(counts)) > 1 for counts in head_counts(plain, model.config))
    if architecture.wider is not None and (len(set(after)) > 1 or strange or uneven):
        return architecture.wider, pieces(model, architecture.wider), before, after
    if uneven:
        raise ValueError(
            f"{model.config.model_type} with heads that differ by layer cannot be written as GGUF: the architecture "
            f"{architecture.name} has one number of them; use --format onnx instead"
        )
    if strange:
        raise ValueError(
            f"{strange[0]} has a bias, for which llama.cpp has no place in the architecture {architecture.name}; use "
            "--format onnx or transformers instead"
        )
    return architecture, plain, before, [max(after)] * len(after)


def piece_tensors(one: Encoded) -> dict[str, tuple[str, np.ndarray]]:
    """The tensors of a piece by their names: its matrix or vector, and its bias."""
    piece = one.piece
    stored = one.rows.take(piece.rows)
    tensors = {f"{piece.name}.weight": (one.rows.container, stored[0] if one.origin == "vector" else stored)}
    if piece.bias is not None:
        bias = piece.bias.detach().cpu().float()
        if piece.rows is not None:
            bias = torch.where(piece.rows < 0, torch.zeros(()), bias[piece.rows.clamp(min=0)])
        tensors[f"{piece.name}.bias"] = ("F32", bias.numpy().view(np.uint8))
    return tensors


def lora_tensors(encoded: tuple[Encoded, ...]) -> dict[str, tuple[str, np.ndarray]]:
    """The factors of all corrections, scaled for the one number that the file divides by their ranks."""
    corrected = [(one.piece.name, one.correction) for one in encoded if one.correction is not None]
    alpha = lora_alpha(encoded)
    tensors: dict[str, tuple[str, np.ndarray]] = {}
    for name, low_rank in corrected:
        up = (low_rank.left.detach() * (low_rank.rank / alpha)).contiguous().numpy()
        tensors[f"{name}.weight.lora_a"] = ("F32", low_rank.right.detach().contiguous().numpy().view(np.uint8))
        tensors[f"{name}.weight.lora_b"] = ("F32", up.view(np.uint8))
    return tensors


def lora_alpha(encoded: tuple[Encoded, ...]) -> int:
    """The number that a LoRA file states as its alpha: the largest rank."""
    return max((one.correction.rank for one in encoded if one.correction is not None), default=0)


def _notes(encoded: tuple[Encoded, ...]) -> list[str]:
    """Sentences on what the matrices became."""
    matrices = [one for one in encoded if one.origin != "vector"]
    in_codes = Counter(one.rows.container for one in matrices if one.rows.codes)
    notes = [
        f"{count} of {len(matrices)} matrices keep their codes, in {container}"
        for container, count in in_codes.items()
    ]
    moved = max((one.rows.error for one in matrices if one.rows.codes), default=0.0)
    if moved > 1e-3:
        notes.append(f"scales and minima became float16, which moves no number by more than {moved:.3f} of a step")
    others: dict[tuple[str, str], list[Encoded]] = {}
    for one in matrices:
        if not one.rows.codes:
            others.setdefault((one.origin, one.rows.container), []).append(one)
    for (origin, container), group in others.items():
        what = WORDS.get(origin, f"{origin}, multiplied out")
        error = max(one.rows.error for one in group)
        loss = f", relative error up to {error:.2g}" if error else ", exactly"
        wide = sum(one.rows.stored.nbytes for one in group)
        cost = ""
        if what not in ("dense",):
            cost = f" ({wide / 1e6:.1f} MB for {sum(one.piece.weight.nbytes for one in group) / 1e6:.1f} MB)"
        notes.append(f"{len(group)} of {len(matrices)} matrices ({what}) are in {container}{loss}{cost}")
    return notes
