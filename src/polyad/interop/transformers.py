"""Compressed models in folders that transformers writes and reads, by its interface for quantisers.

``save_pretrained`` of a model with layers of polyad describes them in ``quantization_config``, and
``from_pretrained`` makes them again, after ``import polyad``. Without polyad transformers does not know this quantiser
and goes on with a warning, so the weights themselves refuse it: for every tensor that the architecture has and the
compressed model has not, the file holds one of the same name with no numbers, whose shape fits nothing.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.quantizers.auto import (
    AUTO_QUANTIZER_MAPPING,
    register_quantization_config,
    register_quantizer,
)
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from polyad._versions import NEWEST, read_version
from polyad.models.assembly import place_modules, put_tensor, tie_tensors
from polyad.models.manifest import differences, split_ties, unsaved_buffers

METHOD = "polyad"


class PolyadConfig(QuantizationConfigMixin):
    """The ``quantization_config`` of a compressed model: what its layers are, as in polyad's own folders.

    ``modules`` maps paths to specs and ``ties`` names to the tensors that they share; ``dtype`` is the model's when it
    was saved, and ``wrapped`` names tensors that have one dimension more in the file.
    """

    def __init__(
        self,
        modules: Mapping[str, Any] | None = None,
        ties: Mapping[str, str] | None = None,
        dtype: str | None = None,
        wrapped: Iterable[str] = (),
        version: int | None = None,
        **_more: Any,
    ) -> None:
        self.quant_method: Any = METHOD
        self.version = read_version("pretrained", "the quantization_config of this model", version)
        self.modules, self.ties = dict(modules or {}), dict(ties or {})
        self.dtype, self.wrapped = dtype, list(wrapped)


class PolyadQuantizer(HfQuantizer):
    """Saves and loads the compressed layers of a model of transformers.

    ``replacements`` counts the changes of a model's modules that have not been undone.
    """

    requires_calibration = False
    replacements = 0

    def preprocess_model(self, model: Any, *args: Any, **kwargs: Any) -> None:
        """Put the described modules in their places, before transformers loads what it finds for them."""
        self._asked = kwargs.get("dtype")
        self._files = kwargs.get("checkpoint_files")
        super().preprocess_model(model, *args, **kwargs)

    def _process_model_before_weight_loading(self, model: Any, **_kwargs: Any) -> Any:
        config: Any = self.quantization_config
        ours = set(model.state_dict())
        place_modules(model, {"kind": type(model).__name__, "modules": config.modules})
        names = model.state_dict().keys()
        ours |= _buffers_of(model, config.modules).keys()
        tied = getattr(model, "all_tied_weights_keys", {})
        model.all_tied_weights_keys = {a: b for a, b in tied.items() if a in names and b in names}
        for attribute, more in (
            ("_keys_to_ignore_on_load_unexpected", ours - names),
            ("_keys_to_ignore_on_load_missing", config.ties.keys()),
        ):
            patterns = [f"^{re.escape(name)}$" for name in sorted(more)]
            setattr(model, attribute, _Patterns([*(getattr(model, attribute, None) or ()), *patterns]))
        return model

    def param_needs_quantization(self, model: Any, param_name: str, **_kwargs: Any) -> bool:  # noqa: ARG002
        """Tell whether a tensor may come in another shape than the module has."""
        return param_name in self.quantization_config.wrapped  # pyright: ignore[reportAttributeAccessIssue]

    def _process_model_after_weight_loading(self, model: Any, **_kwargs: Any) -> Any:
        """Give the described modules their numbers as they are in the files, whatever transformers cast them to."""
        config: Any = self.quantization_config
        for attribute in ("_keys_to_ignore_on_load_unexpected", "_keys_to_ignore_on_load_missing"):
            delattr(model, attribute)
        tensors = _stored_tensors(self._files or [], _names_of(model, config), config.wrapped)
        for name, tensor in tensors.items():
            now = model.get_parameter_or_buffer(name)
            if not now.is_meta:  # else it lies on disk
                tensor = tensor.to(now.device)
                put_tensor(
                    model, name, nn.Parameter(tensor, now.requires_grad) if isinstance(now, nn.Parameter) else tensor
                )
        for alias, owner in config.ties.items():
            tie_tensors(model, alias, owner, config.ties)
        asked = str(self._asked or config.dtype).removeprefix("torch.")
        for path in config.modules if asked != config.dtype else ():
            model.get_submodule(path).to(self._asked)
        model.is_quantized = False  # nothing of transformers' own quantisers: it may be cast and trained
        model.__dict__.pop("quantization_method", None)
        self.replacements, self._files = 1, None
        return model

    def get_state_dict_and_metadata(self, model: Any, *_args: Any) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
        """The tensors to write, every shared one once; and the configuration states what the modules are."""
        config = copy.deepcopy(model.config)
        config.__dict__.pop("quantization_config", None)
        with torch.device("meta"):
            plain: Any = type(model)(config)
        modules = differences(model, plain)
        if not modules:
            model.config.__dict__.pop("quantization_config", None)
            return None, {}
        owners, ties = split_ties(model)
        tensors = {name: t.detach() for name, t in owners.items()} | _buffers_of(model, modules)
        expected, tied = plain.state_dict(), getattr(plain, "all_tied_weights_keys", {})
        absent = [name for name in expected if name not in tensors and name not in ties and name not in tied]
        other = absent or [name for name, t in tensors.items() if name in expected and t.shape != expected[name].shape]
        wrapped = [] if other else [next(name for name in tensors if name in expected)]
        tensors |= {name: torch.empty(0, dtype=expected[name].dtype) for name in absent}
        tensors |= {name: tensors[name].unsqueeze(0) for name in wrapped}
        dtype = str(model.dtype).removeprefix("torch.")
        self.quantization_config = PolyadConfig(modules, ties, dtype, wrapped, NEWEST["pretrained"])
        model.config.quantization_config = self.quantization_config
        model._weight_conversions = []  # the file has the names that the modules have
        return tensors, {}

    def is_serializable(self, *_args: Any, **_kwargs: Any) -> bool:
        """True: every layer describes itself."""
        return True

    @property
    def is_trainable(self) -> bool:
        """True: the floats of formats are parameters."""
        return True

    @property
    def is_compileable(self) -> bool:
        """True: as far as the model itself is."""
        return True


class _Patterns(list[str]):
    """Regular expressions, to which transformers 5.0 adds a list and later ones a set."""

    def __or__(self, other: Iterable[str]) -> set[str]:
        return {*self, *other}


def _names_of(model: nn.Module, config: PolyadConfig) -> list[str]:
    """The tensors of the described modules that a folder holds, and those that are wrapped in it."""
    inside = tuple(f"{path}." for path in config.modules)
    wanted = [name for name in model.state_dict() if name.startswith(inside) and name not in config.ties]
    return list(dict.fromkeys([*wanted, *_buffers_of(model, config.modules), *config.wrapped]))


def _buffers_of(model: nn.Module, paths: Iterable[str]) -> dict[str, Tensor]:
    """The buffers of modules at these paths that a state dict leaves out."""
    inside = tuple(f"{path}." for path in paths)
    return {name: buffer for name, buffer in unsaved_buffers(model).items() if name.startswith(inside)}


def _stored_tensors(files: Iterable[str], names: list[str], wrapped: list[str]) -> dict[str, Tensor]:
    """The tensors of these names in several files, as they are stored."""
    tensors: dict[str, Tensor] = {}
    wanted, place = set(names), None
    for place in files:
        with safe_open(place, "pt") as opened:
            tensors |= {name: opened.get_tensor(name) for name in wanted.intersection(opened.keys())}
    lost = sorted(wanted - tensors.keys())
    if lost and place is not None:
        raise ValueError(f"no numbers were found for {', '.join(lost[:3])} in {Path(place).parent}; copy it again")
    return {name: t.squeeze(0) if name in wrapped else t for name, t in tensors.items()}


def attach_quantizer(model: nn.Module) -> list[Any]:
    """Let ``save_pretrained`` of a model of transformers describe its modules; the models that now do.

    Those that another quantiser has loaded keep theirs.
    """
    library: Any = sys.modules.get("transformers.modeling_utils")
    models: list[Any] = [m for m in model.modules() if library and isinstance(m, library.PreTrainedModel)]
    for one in models:
        if getattr(one, "hf_quantizer", None) is None:
            one.hf_quantizer = PolyadQuantizer(PolyadConfig())
    models = [one for one in models if isinstance(one.hf_quantizer, PolyadQuantizer)]
    for one in models:
        one.hf_quantizer.replacements += 1
    return models


def detach_quantizer(models: Iterable[Any]) -> None:
    """Take back one ``attach_quantizer``; a model with none left is saved as transformers saves it."""
    for one in models:
        one.hf_quantizer.replacements -= 1
        if not one.hf_quantizer.replacements:
            del one.hf_quantizer
            one.config.__dict__.pop("quantization_config", None)


def register() -> None:
    """Make transformers know the quantiser; doing it twice does no harm."""
    if METHOD not in AUTO_QUANTIZER_MAPPING:
        register_quantization_config(METHOD)(PolyadConfig)
        register_quantizer(METHOD)(PolyadQuantizer)
