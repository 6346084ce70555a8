"""The layers of a decoder as pieces of a GGUF file: each weight with its name there and the order of its rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from polyad.export.gguf.adapter_weights import is_adapted, weight_with_adapters
from polyad.export.gguf.architectures import Architecture, head_width
from polyad.export.gguf.attention_rows import attention_columns, attention_rows
from polyad.formats import Format
from polyad.interop.gguf_files import TensorNames
from polyad.layers import Embedding, Linear
from polyad.models.layer_matrices import is_transposed, linear_types


@dataclass(frozen=True, eq=False)
class Piece:
    """One layer: its path, its name in the file, its matrix (out, in) or vector, and its bias.

    ``rows`` are the rows of the matrix and of the bias in the file's order, -1 for a row of zeros, None for all as
    they are; ``columns`` the same of what is multiplied.
    """

    path: str
    name: str
    weight: Tensor | Format
    bias: Tensor | None = None
    rows: Tensor | None = None
    columns: Tensor | None = None

    @property
    def layer(self) -> int | None:
        """The number of the decoder layer, None outside of them."""
        return int(self.name.split(".")[1]) if self.name.startswith("blk.") else None


def pieces(model: Any, architecture: Architecture) -> list[Piece]:
    """Every layer of a decoder; one that has no place in the architecture is refused by its path."""
    names = TensorNames(architecture.name, model.config.num_hidden_layers)
    all_pieces, taken = [], set()
    for path, module in model.named_modules():
        weight = _weight(module)
        if weight is None:
            continue
        if is_adapted(module):
            weight = weight_with_adapters(path, module, weight)
        taken.add(path)
        name = names(f"{path}.weight")
        if path == "lm_head" and _is_tied(model, weight):
            continue
        if name is None:
            raise ValueError(
                f"{path} ({type(module).__name__}) has no place in GGUF's architecture {architecture.name}; "
                "use --format onnx or transformers instead"
            )
        bias = getattr(module, "bias", None)
        bias = None if bias is None else bias.detach()
        piece = Piece(path, name.removesuffix(".weight"), weight, bias)
        all_pieces.append(_in_order(model, piece, architecture))
    _refuse_left(model, taken)
    return all_pieces


def _refuse_left(model: nn.Module, taken: set[str]) -> None:
    left = [
        name for name, _ in model.named_parameters() if not any(name.startswith(f"{path}.") for path in taken)
    ]  # fmt: skip
    if left:
        owner = model.get_submodule(left[0].rpartition(".")[0])
        raise ValueError(
            f"{left[0]} ({type(owner).__name__}) has no place in a GGUF file, nor have {len(left) - 1} other "
            "parameters; merge adapters first, and use --format onnx or transformers for other layers"
        )


def _weight(module: Any) -> Tensor | Format | None:
    """The matrix or vector of a layer that multiplies, looks up or normalises; None for modules of other layers."""
    if isinstance(module, Linear | Embedding):
        return module.weight()
    weight = getattr(module, "weight", None)
    if is_adapted(module):
        inner = _weight(module.layer)
        return None if inner is None or inner.ndim != 2 else inner
    if not isinstance(weight, Tensor) or any(True for _ in module.children()):
        return None
    weight = weight.detach()
    if isinstance(module, (*linear_types(), nn.Embedding)):
        return weight.mT if is_transposed(module) else weight
    return _norm_weight(module, weight) if weight.ndim == 1 else None


def _norm_weight(norm: nn.Module, weight: Tensor) -> Tensor:
    """The numbers by which a normalisation multiplies, found by running it: its weight, or one more than that."""
    if isinstance(norm, nn.LayerNorm):
        return weight
    width = weight.shape[0]
    probe = torch.randn(1, width, generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        ratio = norm(probe).double() / (probe.double() / probe.double().square().mean().sqrt())
    for numbers in (weight.double(), weight.double() + 1):
        if float((ratio - numbers).abs().max()) <= 0.02 * float(numbers.abs().max()):
            return numbers.float()
    raise ValueError(
        f"{type(norm).__name__} multiplies neither by its weight nor by one more than it, so it has no place in a "
        "GGUF file; use --format onnx or transformers instead"
    )


def _is_tied(model: Any, head: Tensor | Format) -> bool:
    """True where the head holds the very numbers of the embedding, whatever the configuration says."""
    table = _weight(model.get_input_embeddings())
    if isinstance(head, Tensor) and isinstance(table, Tensor):
        return head.shape == table.shape and bool(torch.equal(head, table))
    if isinstance(head, Format) and isinstance(table, Format) and head.spec() == table.spec():
        return all(torch.equal(a, b) for a, b in zip(head.tensors().values(), table.tensors().values(), strict=True))
    return False


def _in_order(model: Any, piece: Piece, architecture: Architecture) -> Piece:
    """A piece of attention with the order of its rows and columns in the file."""
    role = piece.path.rpartition(".")[2]
    attention = model.get_submodule(piece.path.rpartition(".")[0]) if "." in piece.path else None
    if attention is None or not hasattr(attention, "o_proj"):
        return piece
    rows = attention_rows(attention, role, piece.weight.shape[0], head_width(model.config), architecture.pairs)
    return replace(piece, rows=rows, columns=attention_columns(attention, role, head_width(model.config)))


def head_counts(all_pieces: list[Piece], config: Any) -> tuple[list[int], list[int]]:
    """Query heads and key heads of each layer, by the rows that their projections have in the file."""
    width: int = head_width(config)
    counts: list[list[int]] = []
    for name, stated in (("attn_q", config.num_attention_heads), ("attn_k", config.num_key_value_heads)):
        rows = {
            piece.layer: len(piece.rows) if piece.rows is not None else piece.weight.shape[0]
            for piece in all_pieces
            if piece.name.endswith(f".{name}") and piece.weight.ndim > 1
        }
        every = [rows[layer] // width if layer in rows else stated for layer in range(config.num_hidden_layers)]
        counts.append(every)
    return counts[0], counts[1]


def mlp_widths(all_pieces: list[Piece]) -> list[int]:
    """The width of the MLP of each layer, by what its last matrix reads."""
    down = {piece.layer: piece.weight.shape[1] for piece in all_pieces if piece.name.endswith(".ffn_down")}
    return [width for _, width in sorted(down.items(), key=lambda item: item[0] or 0)]


def widen_mlp(piece: Piece, before: list[int], after: list[int]) -> Piece:
    """A piece of an MLP for the width that its layer has in the file: with rows, or columns, of zeros more."""
    kind = piece.name.rpartition(".")[2]
    if piece.layer is None or kind not in ("ffn_up", "ffn_gate", "ffn_down"):
        return piece
    one, other = before[piece.layer], after[piece.layer]
    if one == other:
        return piece
    if kind == "ffn_down":
        return replace(piece, columns=_longer(torch.arange(one), other))
    parts = torch.arange(piece.weight.shape[0]).split(one)  # gate and up may be one matrix
    return replace(piece, rows=torch.cat([_longer(part, other) for part in parts]))


def _longer(index: Tensor, count: int) -> Tensor:
    return torch.cat([index, index.new_full((count - len(index),), -1)])
