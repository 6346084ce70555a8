"""Small random pictures in the ways in which models of transformers take them, found by trying."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from benchmarks.architectures.build import TOKENS
from torch import Tensor

COUNTS = (1, 2, 4, 8, 9, 16, 17, 25, 32, 36, 49, 64, 65)
"""Places for a picture, to be tried where the model does not say how many features it makes of one."""


def pictured(model: Any, ids: Tensor, seed: int = 11) -> dict[str, Tensor] | None:
    """Inputs of a prompt with a picture in each row, which changes the logits; None where no way is found."""
    kind = torch.float32
    for shapes in _ways(model):
        for merged in (None, *COUNTS) if _token(model) is not None else (0,):
            count = _features(model, _draw(shapes, len(ids), seed, kind)) if merged is None else merged
            if count is None:
                continue
            inputs = _prompt(model, ids, count) | _draw(shapes, len(ids), seed, kind)
            other = inputs | _draw(shapes, len(ids), seed + 1, kind)
            logits = _logits(model, inputs)
            if logits is not None and (again := _logits(model, other)) is not None and not torch.equal(logits, again):
                return inputs
            if merged is None and count:
                break  # as many places as the model says that it has features, and it takes them not
    return None


def _logits(model: Any, inputs: dict[str, Tensor]) -> Tensor | None:
    try:
        with torch.no_grad():
            logits = model(**inputs).logits
    except Exception:  # whatever a wrong way makes it raise
        return None
    return logits if bool(logits.isfinite().all()) else None


def _ways(model: Any) -> Iterator[dict[str, Any]]:
    """Shapes of what a picture is given as; the batch is the first number of each, tables are as they are."""
    names = ("vision_config", "vision", "encoder")
    vision = next((getattr(model.config, name) for name in names if hasattr(model.config, name)), model.config)
    size = _first(vision, "image_size", 16)
    size = size[0] if isinstance(size, list | tuple) else size
    patch, channels = (
        _first(vision, "patch_size", 4),
        _first(vision, "num_channels", _first(vision, "in_channels", 3)),
    )
    patch = patch[0] if isinstance(patch, list | tuple) else patch
    takes = inspect.signature(model.forward).parameters
    if "image_grid_thw" in takes:
        merge, frames = _first(vision, "spatial_merge_size", 2), _first(vision, "temporal_patch_size", 1)
        side = 2 * merge
        for width in dict.fromkeys((channels * frames * patch**2, channels * patch**2)):
            yield {"pixel_values": (side * side, width), "image_grid_thw": [1, side, side], "together": True}
        yield {"pixel_values": (side * side, channels, patch, patch), "image_grid_thw": [1, side, side],
               "together": True}  # fmt: skip
    for side in dict.fromkeys((size, 4 * patch, 32, 64)):
        plain = {"pixel_values": (channels, side, side)}
        sizes = {"image_sizes": [side, side]}
        if "image_sizes" in takes:
            yield plain | sizes
            yield {"pixel_values": (2, channels, side, side)} | sizes
        yield plain
        yield {"pixel_values": (1, channels, side, side)}
        if "pixel_attention_mask" in takes:
            yield {"pixel_values": (1, channels, side, side), "pixel_attention_mask": (1, side, side)}


def _first(config: Any, name: str, default: Any) -> Any:
    value = getattr(config, name, None)
    return default if value is None else value


def _draw(shapes: dict[str, Any], batch: int, seed: int, kind: torch.dtype) -> dict[str, Tensor]:
    generator, drawn = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        if name == "pixel_attention_mask":
            drawn[name] = torch.ones(batch, *shape, dtype=torch.int64)
        elif isinstance(shape, list):
            drawn[name] = torch.tensor([shape] * batch)
        elif isinstance(shape, tuple):
            whole = (batch * shape[0], *shape[1:]) if "together" in shapes else (batch, *shape)
            drawn[name] = torch.randn(whole, generator=generator).to(kind)
    return drawn


def _token(model: Any) -> int | None:
    """The token in whose place a feature of the picture stands."""
    for config in (model.config, model.config.get_text_config(decoder=True)):
        for name in ("image_token_id", "image_token_index", "image_patch_id", "img_context_token_id"):
            token = getattr(config, name, None)
            if isinstance(token, int) and 0 <= token < model.get_input_embeddings().num_embeddings:
                return token
    return None


def _features(model: Any, picture: dict[str, Tensor]) -> int | None:
    """The features of the picture of one row, as the model itself counts them; None where it does not say."""
    ask = getattr(model, "get_image_features", None) or getattr(model.base_model, "get_image_features", None)
    if ask is None:
        return None
    try:
        with torch.no_grad():
            given = {k: v for k, v in picture.items() if k in inspect.signature(ask).parameters} or picture
            features = ask(**given)
    except Exception:
        return None
    features = getattr(features, "pooler_output", features)
    parts = list(features) if isinstance(features, list | tuple) else [features]
    if not all(isinstance(part, Tensor) for part in parts):
        return None
    rows = (
        next(iter(picture.values())).shape[0] if "image_grid_thw" not in picture else len(picture["image_grid_thw"])
    )
    return sum(part.numel() // part.shape[-1] for part in parts) // rows


def _prompt(model: Any, ids: Tensor, count: int) -> dict[str, Tensor]:
    """The tokens with so many places for a picture after the second of them, where the model has such a token."""
    token, begin = _token(model), getattr(model.config, "vision_start_token_id", None)
    middle = [token] * count if token is not None else []
    if isinstance(begin, int) and begin < model.get_input_embeddings().num_embeddings:
        middle = [begin, *middle]
    place = torch.tensor(middle, dtype=ids.dtype).expand(len(ids), -1)
    assert token is None or token >= TOKENS
    with_picture = torch.cat([ids[:, :2], place, ids[:, 2:]], 1)
    inputs = {"input_ids": with_picture, "attention_mask": torch.ones_like(with_picture)}
    if "mm_token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["mm_token_type_ids"] = torch.eq(with_picture, -1 if token is None else token).long()
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["token_type_ids"] = torch.zeros_like(with_picture)
    return inputs
