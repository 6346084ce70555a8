"""Small random models of every architecture."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from benchmarks.architectures.shapes import INSTEAD, KEPT, OTHER, SIZES
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.models.auto import configuration_auto, modeling_auto

KINDS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "image-text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
}
LARGEST = 3_000_000
TOKENS = 200
"""Tokens are drawn from 3 up to this, so that no special one is among them."""


@dataclass(frozen=True)
class Architecture:
    """A class of transformers, the model type of its configuration, and what it is for."""

    kind: str
    model_type: str
    name: str

    @property
    def cls(self) -> Any:
        return getattr(transformers, self.name)

    def config(self) -> Any:
        """A small configuration."""
        of = INSTEAD.get(self.name, self.model_type)
        plain = configuration_auto.CONFIG_MAPPING[of]
        return plain(**_merge(small(_default(plain)), OTHER.get(of, {})))

    def model(self, seed: int = 0) -> Any:
        """A model in evaluation mode, whose numbers are of the size that trained ones have."""
        with torch.device("meta"):
            count = sum(p.numel() for p in self.cls(self.config()).parameters())
        if count > LARGEST:
            raise ValueError(f"{self.name} has {count:,} numbers at the smallest sizes known for it")
        torch.manual_seed(seed)
        model = self.cls(self.config()).eval()
        spread(model, seed)
        return model


def architectures() -> list[Architecture]:
    """All architectures of the installed transformers, each class once."""
    seen: dict[str, Architecture] = {}
    for kind, table in KINDS.items():
        for model_type, names in getattr(modeling_auto, table).items():
            name = names if isinstance(names, str) else names[0]
            if hasattr(transformers, name):
                seen.setdefault(name, Architecture(kind, model_type, name))
    return list(seen.values())


def spread(model: torch.nn.Module, seed: int = 0) -> None:
    """Scale matrices to outputs of size one, and move biases and norms from where they start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point() or not parameter.requires_grad:  # the latter are not always saved
                continue
            if parameter.ndim > 1 and float(parameter.std()) > 0:
                parameter.mul_(1 / (float(parameter.std()) * min(parameter[0].numel(), 64) ** 0.5))
            elif parameter.ndim == 1 and name.rpartition(".")[2] in ("weight", "bias"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def inputs(
    architecture: Architecture, model: Any, batch: int = 2, length: int = 9, seed: int = 1
) -> dict[str, Tensor]:
    """Token ids, without padding, and what else the model cannot do without."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randint(3, TOKENS, (batch, n), generator=generator)  # noqa: E731
    ids = draw(length)
    if model.config.is_encoder_decoder:
        main = model.main_input_name
        if main != "input_ids":
            raise ValueError(f"{architecture.name} reads {main}, not text")
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": draw(5)}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def small(config: Any) -> dict[str, Any]:
    """The settings of a configuration of the same kind with few layers and channels."""
    stated = config.to_dict()
    smaller: dict[str, Any] = {
        key: small(value) for key, value in vars(config).items() if isinstance(value, PreTrainedConfig)
    }
    total = stated.get("num_hidden_layers")
    lists = {
        key: value for key, value in stated.items() if isinstance(value, list | tuple) and len(value) == total
    } if isinstance(total, int) and total > 4 else {}  # fmt: skip
    chosen = _varied(list(lists.values()), total) if lists else []
    for key, value in stated.items():
        if key in smaller or key in KEPT:
            continue
        if key in lists:
            smaller[key] = [_number("intermediate_size" if "size" in key else "", value[i]) for i in chosen]
        elif key == "num_hidden_layers" and chosen:
            smaller[key] = len(chosen)
        elif _is_count(value):
            new = _token(key, value) if re.fullmatch(r".*token_id|.*_token_(index|idx)", key) else _number(key, value)
            if new != value:
                smaller[key] = new
        elif isinstance(value, dict) and ("rope_type" in str(value) or "mrope" in str(value)):
            smaller[key] = _rope(value)
    if smaller.get("kv_lora_rank") or stated.get("num_key_value_heads") == stated.get("num_attention_heads"):
        smaller |= {key: 4 for key in ("num_key_value_heads",) if stated.get(key)}
    return smaller


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _number(key: str, value: Any) -> Any:
    if not _is_count(value):
        return value
    return next((min(value, size) for pattern, size in SIZES if re.fullmatch(pattern, key)), value)


def _token(key: str, value: int) -> int:
    """Special tokens beyond the small vocabulary get numbers of their own at its end."""
    return value if value < 3 else 250 + sum(map(ord, key)) % 70


def _rope(value: dict[str, Any]) -> dict[str, Any]:
    if "mrope_section" in value:
        return value | {"mrope_section": [2, 1, 1], "partial_rotary_factor": 1.0}
    return {key: _rope(inner) if isinstance(inner, dict) else inner for key, inner in value.items()}


def _varied(lists: list[Any], total: int) -> list[int]:
    """Layers that show every value of every list by layers, and one more of the last kind."""
    chosen: list[int] = []
    for values in lists:
        for value in dict.fromkeys(map(str, values)):
            if not any(str(values[i]) == value for i in chosen):
                chosen.append(next(i for i in range(total) if str(values[i]) == value))
    chosen.sort()
    return chosen + list(range(chosen[-1] + 1, total))[: max(0, 2 - len(chosen))]


def _default(config: Any) -> Any:
    with contextlib.redirect_stderr(None):
        return config()


def _merge(settings: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Settings with others in their place, deep."""
    merged = dict(settings)
    for key, value in more.items():
        inside = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if inside else value
    return merged


def builds(kinds: tuple[str, ...] = tuple(KINDS)) -> Iterator[tuple[Architecture, str]]:
    """Every architecture, with the reason why it does not run small, or an empty word."""
    for architecture in architectures():
        if architecture.kind in kinds:
            try:
                model = architecture.model()
                with torch.no_grad():
                    logits = model(**inputs(architecture, model)).logits
                yield architecture, "" if bool(logits.isfinite().all()) else "its outputs are not finite"
            except Exception as error:
                yield architecture, f"{type(error).__name__}: {str(error).strip().splitlines()[0][:150]}"
