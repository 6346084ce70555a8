"""Compressed models in folders that transformers writes and reads, by its interface for quantisers.

``save_pretrained`` of a model with layers of polyad describes them in ``quantization_config``, and
``from_pretrained`` makes them again, after ``import polyad``. Without polyad transformers does not know this
quantiser and goes on with a warning, so the weights themselves refuse it: for every tensor that the architecture has
and the compressed model has not, the file holds one of the same name with no numbers, whose shape fits nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer

from polyad._stated import in_words
from polyad.interop._pretrained import (
    METHOD,
    Patterns,
    PolyadQuantization,
    buffers_of,
    compressed_state,
    names_of,
    stored_tensors,
)
from polyad.models.assembly import place_modules, put_tensor, tie_tensors
from polyad.models.stated import AGAIN


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
        with in_words("the layers that this model's quantization_config describes cannot be made", AGAIN):
            place_modules(model, {"kind": type(model).__name__, "modules": config.modules})
        names = model.state_dict().keys()
        ours |= buffers_of(model, config.modules).keys()
        tied = getattr(model, "all_tied_weights_keys", {})
        model.all_tied_weights_keys = {a: b for a, b in tied.items() if a in names and b in names}
        for attribute, more in (
            ("_keys_to_ignore_on_load_unexpected", ours - names),
            ("_keys_to_ignore_on_load_missing", config.ties.keys()),
        ):
            patterns = [f"^{re.escape(name)}$" for name in sorted(more)]
            setattr(model, attribute, Patterns([*(getattr(model, attribute, None) or ()), *patterns]))
        return model

    def param_needs_quantization(self, model: Any, param_name: str, **_kwargs: Any) -> bool:  # noqa: ARG002
        """Tell whether a tensor may come in another shape than the module has."""
        return param_name in self.quantization_config.wrapped  # pyright: ignore[reportAttributeAccessIssue]

    def _process_model_after_weight_loading(self, model: Any, **_kwargs: Any) -> Any:
        """Give the described modules their numbers as they are in the files, whatever transformers cast them to."""
        config: Any = self.quantization_config
        for attribute in ("_keys_to_ignore_on_load_unexpected", "_keys_to_ignore_on_load_missing"):
            delattr(model, attribute)
        tensors = stored_tensors(self._files or [], names_of(model, config), config.wrapped, config.modules)
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
        model.hf_quantizer, self._files = self, None
        attach_quantizer(model)
        return model

    def get_state_dict_and_metadata(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model: Any, *_args: Any
    ) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
        """The tensors to write, every shared one once; and the configuration states what the modules are."""
        tensors, self.quantization_config = compressed_state(model)
        if tensors is None:
            model.config.__dict__.pop("quantization_config", None)
            return None, {}
        model.config.quantization_config = self.quantization_config
        model._weight_conversions = []  # the file has the names that the modules have
        return tensors, {}

    def is_serializable(self, *_args: Any, **_kwargs: Any) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """True: every layer describes itself."""
        return True

    @property
    def is_trainable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """True: the floats of formats are parameters."""
        return True

    @property
    def is_compileable(self) -> bool:
        """True: as far as the model itself is."""
        return True


def attach_quantizer(model: nn.Module) -> list[Any]:
    """Let ``save_pretrained`` of a model of transformers describe its modules; the models that now do.

    Those that another quantiser has loaded keep theirs.
    """
    library: Any = sys.modules.get("transformers.modeling_utils")
    models: list[Any] = [m for m in model.modules() if library and isinstance(m, library.PreTrainedModel)]
    for one in models:
        if getattr(one, "hf_quantizer", None) is None:
            one.hf_quantizer = PolyadQuantizer(PolyadQuantization())
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
        register_quantization_config(METHOD)(PolyadQuantization)
        register_quantizer(METHOD)(PolyadQuantizer)
